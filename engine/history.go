package engine

import (
	"context"
	"time"
)

// Sample is a sandbox's use at one moment of the past, with the limits that
// held then.
type Sample struct {
	Time        time.Time `json:"time"`
	CPU         float64   `json:"cpu"` // cores in use since the sample before, on average
	CPULimit    float64   `json:"cpuLimit"`
	MemoryBytes uint64    `json:"memoryBytes"`
	CacheBytes  uint64    `json:"cacheBytes"` // part of the memory that the kernel gives back on need
	MemoryLimit uint64    `json:"memoryLimit"`
	DiskBytes   uint64    `json:"diskBytes"`
	DiskTotal   uint64    `json:"diskTotal"`
}

// History is what a sandbox used. The gateway calls it.
type History interface {
	// Samples returns those between from and to, oldest first. They are close
	// together for the last hour and further apart before; a stopped or idle
	// sandbox has few.
	Samples(ctx context.Context, ref SandboxRef, from, to time.Time) ([]Sample, error)
}

// SampleQuery selects samples of one sandbox.
type SampleQuery struct {
	Sandbox  string    `json:"sandbox"`
	From, To time.Time // both included
}
