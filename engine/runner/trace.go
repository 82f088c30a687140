package runner

import (
	"context"
	"path/filepath"

	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/storage"
	"github.com/atoll-sh/atoll/engine/trace"
)

// Traces watches what the processes of instances do; engine/trace does.
type Traces interface {
	// Begin comes before the first process, Started once there is process 1.
	Begin(instance string, g trace.Group) error
	Started(instance string, pid int)
	// Bind says whose it is, before the sandbox's first process.
	Bind(instance, sandbox string, incarnation uint64)
	End(instance string)
}

// traceBegin has an instance watched that is about to start, or that runs
// already. A sandbox that cannot be watched runs all the same, and its ledger
// says so.
func (r *Runner) traceBegin(ctx context.Context, in *instance) {
	if r.cfg.Traces == nil {
		return
	}
	g, ok := driver.As[driver.Grouper](r.cfg.Driver)
	if !ok {
		return // its class tells of itself
	}
	dir, err := g.Group(ctx, in.handle())
	var disk storage.Disk
	if err == nil {
		disk, err = r.cfg.Disks.Mount(ctx, in.rec.ID) // it is, already
	}
	if err == nil {
		err = r.cfg.Traces.Begin(in.rec.ID, trace.Group{
			Dir: dir, Upper: filepath.Join(disk.Dir, "upper"), Control: r.controlDir(in.rec.ID), UIDBase: in.rec.Slot.UIDBase,
		})
	}
	if err != nil {
		r.log.Warn("what processes do is not recorded", "instance", in.rec.ID, "err", err)
	}
}

// traceStarted tells of process 1 and, unless the instance is a member of the
// warm pool, whose it is.
func (r *Runner) traceStarted(ctx context.Context, in *instance) {
	if r.cfg.Traces == nil {
		return
	}
	if st, err := r.cfg.Driver.Inspect(ctx, in.handle()); err == nil {
		r.cfg.Traces.Started(in.rec.ID, st.PID)
	}
	r.traceBind(in)
}

func (r *Runner) traceBind(in *instance) {
	if r.cfg.Traces == nil || in.rec.Sandbox == "" {
		return
	}
	r.cfg.Traces.Bind(in.rec.ID, in.rec.Sandbox, in.rec.Launch.Incarnation)
}

func (r *Runner) traceEnd(in *instance) {
	if r.cfg.Traces != nil {
		r.cfg.Traces.End(in.rec.ID)
	}
}
