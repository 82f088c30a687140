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
	spaceCalm  = time.Second            // between looks while there is room
	spaceTense = 100 * time.Millisecond // between looks near the mark
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
		pending, most := r.writers(ctx, used)
		wait = spaceCalm
		if free-pending < 8*spaceMark(total) {
			wait = spaceTense
		}
		if free-pending < spaceMark(total) && most != nil {
			r.evict(ctx, most)
		}
	}
}

// writers returns how much all disks still have to write to the pool, and the
// running sandbox whose disk grew the most since the last look, nil when none
// did.
func (r *Runner) writers(ctx context.Context, used map[string]int64) (pending int64, most *instance) {
	var by int64
	for _, in := range r.all() {
		if in.state() == engine.StateStopped {
			continue
		}
		if n, err := r.cfg.Disks.Pending(ctx, in.rec.ID); err == nil {
			pending += n
		}
		now, _, err := r.cfg.Disks.Usage(ctx, in.rec.ID)
		if err != nil {
			continue
		}
		before, known := used[in.rec.ID]
		used[in.rec.ID] = now
		if grown := now - before; known && grown > by && in.state() == engine.StateStarted {
			most, by = in, grown
		}
	}
	return pending, most
}

// evict stops a sandbox at once and keeps its disk. Its processes are killed
// before evict returns; what they wrote is flushed beside the watching.
func (r *Runner) evict(ctx context.Context, in *instance) {
	in.mu.Lock()
	evicted := in.evicting
	in.evicting = true
	in.mu.Unlock()
	if evicted {
		return
	}
	r.log.Warn("the storage pool is full; stopping the sandbox that writes the most", "sandbox", in.rec.Sandbox)
	r.tasks.Go(func() { r.stopForSpace(context.WithoutCancel(ctx), in) })
}

func (r *Runner) stopForSpace(ctx context.Context, in *instance) {
	defer r.lock(in.rec.Sandbox)()
	var err error
	if in.state() == engine.StateStarted {
		err = r.stopInstance(ctx, in, engine.StopOptions{Force: true})
		in.mu.Lock()
		in.failure = "the host's storage pool is full and this sandbox was writing the most, so it was stopped; delete sandboxes or snapshots, then start it again"
		in.mu.Unlock()
		err = errors.Join(err, in.save(false))
	}
	if err != nil {
		r.log.Error("stop for space", "sandbox", in.rec.Sandbox, "err", err)
	}
	in.mu.Lock()
	in.evicting = false
	in.mu.Unlock()
	r.cfg.Changed(in.snapshot())
}
