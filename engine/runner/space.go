package runner

import (
	"context"
	"errors"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Disks are sparse and promise more than the pool has. When the pool itself
// runs full, writes of any sandbox fail, and a neighbour's file system turns
// read-only. So the sandbox that writes the most is stopped before that.

const (
	spaceCalm  = 2 * time.Second        // between looks while there is room
	spaceTense = 200 * time.Millisecond // between looks near the mark
)

// spaceMark is how much must stay free: 2 %, at least 512 MiB, of small pools
// at least an eighth. New disks are refused well above it.
func spaceMark(total int64) int64 { return max(total/50, min(512<<20, total/8)) }

// guardSpace watches the pool until ctx ends.
func (r *Runner) guardSpace(ctx context.Context) {
	used := map[string]int64{} // by instance, at the last look
	wait := spaceCalm
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		free, total, err := r.cfg.Disks.Room(ctx)
		if err != nil {
			if ctx.Err() == nil {
				r.log.Warn("look at the pool's room", "err", err)
			}
			continue
		}
		wait = spaceCalm
		if free < 4*spaceMark(total) {
			wait = spaceTense
			most := r.fastestWriter(ctx, used)
			if free < spaceMark(total) && most != nil {
				r.stopForSpace(ctx, most)
			}
		}
	}
}

// fastestWriter returns the sandbox whose disk grew the most since the last
// look, or nil when none did.
func (r *Runner) fastestWriter(ctx context.Context, used map[string]int64) *instance {
	var most *instance
	var by int64
	for _, in := range r.all() {
		if in.state() != engine.StateStarted {
			continue
		}
		now, _, err := r.cfg.Disks.Usage(ctx, in.rec.ID)
		if err != nil {
			continue
		}
		before, known := used[in.rec.ID]
		used[in.rec.ID] = now
		if grown := now - before; known && grown > by {
			most, by = in, grown
		}
	}
	return most
}

// stopForSpace stops a sandbox at once and keeps its disk.
func (r *Runner) stopForSpace(ctx context.Context, in *instance) {
	defer r.lock(in.rec.Sandbox)()
	if in.state() != engine.StateStarted {
		return
	}
	r.log.Warn("the storage pool is full; stopping the sandbox that writes the most", "sandbox", in.rec.Sandbox)
	err := r.stopInstance(ctx, in, engine.StopOptions{Force: true})
	in.mu.Lock()
	in.failure = "the host's storage pool is full and this sandbox was writing the most, so it was stopped; delete sandboxes or snapshots, then start it again"
	in.mu.Unlock()
	if err = errors.Join(err, in.save(false)); err != nil {
		r.log.Error("stop for space", "sandbox", in.rec.Sandbox, "err", err)
	}
	r.cfg.Changed(in.snapshot())
}
