package engine

import (
	"context"
	"time"
)

// Bounds of a time of learning.
const (
	MinLearning = time.Second
	MaxLearning = 24 * time.Hour
)

// Learning is a time in which a sandbox's network is open and watched. Its
// network settings stay as they are, and hold again from Until on.
type Learning struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	After uint64    `json:"after"` // last record of the ledger before it
	Over  bool      `json:"over"`  // the settings are enforced again
}

// Active tells whether the network is open at a time.
func (l *Learning) Active(now time.Time) bool { return l != nil && !l.Over && now.Before(l.Until) }

// Lesson is what a time of learning came to so far.
type Lesson struct {
	Sandbox string    `json:"sandbox"` // id
	Active  bool      `json:"active"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	// Policy is the smallest policy under which the same can be done again, as
	// a document of package policies.
	Policy string `json:"policy"`
	// Notes say what the policy does not cover, and what was not seen.
	Notes []string `json:"notes"`
}

// LessonOptions say what the policy shall be like.
type LessonOptions struct {
	Name      string // of the policy; empty: the sandbox's
	Wildcards bool   // two names or more below one become a wildcard
}

// Learner runs sandboxes open for a while and tells the policy that they need.
// Learn and Finish need write:sandboxes.
type Learner interface {
	// Learn opens a started sandbox's network from now on for d. While it is
	// open, it moves the end only, so a caller who may vanish renews it. With
	// since, which a Lesson told, it does nothing but that, and is a conflict
	// when that time of learning has ended.
	Learn(ctx context.Context, p Principal, ref SandboxRef, d time.Duration, since time.Time) (Lesson, error)
	// Lesson is KindNotFound for a sandbox that never learned.
	Lesson(ctx context.Context, ref SandboxRef, o LessonOptions) (Lesson, error)
	// Finish puts the settings back, if they are not yet.
	Finish(ctx context.Context, p Principal, ref SandboxRef, o LessonOptions) (Lesson, error)
}
