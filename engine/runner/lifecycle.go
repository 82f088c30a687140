package runner

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// defaultGrace is how long processes have after SIGTERM.
const defaultGrace = 10 * time.Second

// Start implements engine.Runner: it brings a stopped or failed sandbox back
// on its own disk. On error the sandbox stays stopped.
func (r *Runner) Start(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	defer r.lock(l.Sandbox)()
	in, err := r.find(l.Sandbox)
	if err != nil {
		return engine.Launched{}, err
	}
	if have := in.snapshot(); have.State == engine.StateStarted {
		return r.known(in, l.Incarnation)
	} else if have.Incarnation >= l.Incarnation {
		return engine.Launched{}, engine.Errorf(engine.KindConflict, "sandbox %s is at incarnation %d, the call is for %d", l.Sandbox, have.Incarnation, l.Incarnation)
	}
	sw := newStopwatch()
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	if err := r.unmake(ctx, in); err != nil {
		return engine.Launched{}, err
	}
	in.mu.Lock()
	in.rec.Launch, in.rec.Boot, in.rec.Phase = l, bootID(), phaseStarting
	in.failure, in.ooms, in.lastActive = "", 0, time.Now()
	in.mu.Unlock()
	if err := in.save(false); err != nil {
		return engine.Launched{}, err
	}
	sw.mark("clean")
	err = r.bringUp(ctx, in, sw)
	if err == nil {
		err = in.ready(true)
	}
	if err != nil {
		r.halt(ctx, in)
		return engine.Launched{}, err
	}
	return engine.Launched{Instance: in.snapshot(), Timing: sw.stages}, nil
}

// halt puts an instance to rest after a start that did not succeed.
func (r *Runner) halt(ctx context.Context, in *instance) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := r.unmake(ctx, in)
	if perr := in.setPhase(phaseStopped, true); err == nil {
		err = perr
	}
	if err != nil {
		r.log.Error("halt", "sandbox", in.rec.Sandbox, "err", err)
	}
}

// Stop implements engine.Runner. Stopping a stopped sandbox is not an error.
func (r *Runner) Stop(ctx context.Context, sandbox string, opt engine.StopOptions) (engine.Instance, error) {
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil {
		return engine.Instance{}, err
	}
	if err := r.stopInstance(ctx, in, opt); err != nil {
		return engine.Instance{}, err
	}
	return in.snapshot(), nil
}

func (r *Runner) stopInstance(ctx context.Context, in *instance, opt engine.StopOptions) error {
	if in.state() == engine.StateStopped {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout+opt.Grace)
	defer cancel()
	grace := opt.Grace
	if opt.Force {
		grace = 0
	} else if grace <= 0 {
		grace = defaultGrace
	}
	if err := in.setPhase(phaseStopping, false); err != nil {
		return err
	}
	r.cfg.Checkpoint("stopping")
	if err := r.cfg.Driver.Stop(ctx, in.handle(), grace); err != nil {
		return err
	}
	r.cfg.Checkpoint("driver-stopped")
	if err := r.unmake(ctx, in); err != nil {
		return err
	}
	r.cfg.Checkpoint("unmade")
	in.mu.Lock()
	in.failure, in.busy = "", false
	in.mu.Unlock()
	return in.setPhase(phaseStopped, true)
}

// Remove implements engine.Runner.
func (r *Runner) Remove(ctx context.Context, sandbox string) error {
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := in.setPhase(phaseRemoving, false); err != nil {
		return err
	}
	r.cfg.Checkpoint("removing")
	return r.erase(ctx, in)
}

// StopAll stops every sandbox, keeps their disks, and empties the warm pool.
// The host can then be taken down.
func (r *Runner) StopAll(ctx context.Context) error {
	r.pool.drain(ctx)
	var first error
	for _, in := range r.all() {
		unlock := r.lock(in.rec.Sandbox)
		if err := r.stopInstance(ctx, in, engine.StopOptions{Grace: 5 * time.Second}); err != nil && first == nil {
			first = err
		}
		unlock()
	}
	return first
}

// watch turns what the runtime reports into the state of instances.
func (r *Runner) watch(events <-chan driver.Event) {
	for e := range events {
		r.mu.Lock()
		in := r.instances[e.ID]
		r.mu.Unlock()
		if in == nil {
			continue
		}
		switch e.Kind {
		case driver.EventOOM:
			in.mu.Lock()
			in.ooms++
			in.lastOOM = e.Time
			in.mu.Unlock()
			r.log.Warn("out of memory", "sandbox", in.rec.Sandbox, "instance", e.ID)
		case driver.EventExit:
			r.lost(in, e)
		}
	}
}

// lost handles the end of a toolbox that nobody asked for. A sandbox goes to
// error and keeps its disk; a start mends it.
func (r *Runner) lost(in *instance, e driver.Event) {
	in.mu.Lock()
	sandbox := in.rec.Sandbox
	expected := in.rec.Phase != phaseStarted || in.failure != ""
	if !expected {
		in.failure = lossReason(e.Exit, in.ooms > 0)
	}
	in.mu.Unlock()
	switch {
	case expected:
	case sandbox == "":
		r.pool.lost(in)
	default:
		r.log.Warn("toolbox lost", "sandbox", sandbox, "instance", e.ID, "exit", e.Exit)
		r.cfg.Changed(in.snapshot())
	}
}

func lossReason(exit int, oom bool) string {
	if oom {
		return "the toolbox process ended after the sandbox ran out of memory; start the sandbox again, with more memory if it repeats"
	}
	if exit == 137 {
		return "the toolbox process was killed; start the sandbox again"
	}
	return "the toolbox process ended unexpectedly; start the sandbox again"
}
