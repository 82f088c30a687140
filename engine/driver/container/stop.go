package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Stop ends the toolbox and with it the instance; a paused one is thawed first,
// because a frozen process takes no signal. An unknown instance is an error of
// kind not_found.
func (d *Driver) Stop(ctx context.Context, h driver.Handle, grace time.Duration) error {
	if _, err := decodeHandle(h); err != nil {
		return err
	}
	in := d.instance(h.ID)
	in.change.Lock()
	defer in.change.Unlock()
	p, err := d.find(ctx, in)
	if err != nil {
		if engine.KindOf(err) == engine.KindNotFound {
			d.forget(h.ID)
		}
		return err
	}
	in.mu.Lock()
	in.stopping = true
	in.mu.Unlock()
	if p != nil {
		if err := d.end(ctx, in, p, grace); err != nil {
			return translate(err, "stop instance %s", h.ID)
		}
		d.recordExit(ctx, in)
	} else if _, saved := d.loadExit(h.ID); !saved {
		if t, err := d.getTask(ctx, h.ID); err == nil && t != nil {
			d.recordExit(ctx, in)
		}
	}
	if err := d.deleteTask(ctx, in); err != nil {
		return translate(err, "stop instance %s", h.ID)
	}
	in.detach()
	return nil
}

// end asks the toolbox to end, waits for grace and then kills it, which kills
// every process of its namespace.
func (d *Driver) end(ctx context.Context, in *instance, p *process, grace time.Duration) error {
	path := d.template.cgroupPath(in.id)
	if d.cgroups.frozen(path) {
		if err := d.cgroups.setFrozen(ctx, path, false); err != nil {
			return err
		}
	}
	if grace > 0 {
		if err := p.signal(unix.SIGTERM); err != nil {
			return fmt.Errorf("signal toolbox: %w", err)
		}
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.done:
			return nil
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill toolbox: %w", err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(callTimeout):
		return engine.Errorf(engine.KindTimeout, "the toolbox of instance %s does not die", in.id)
	}
}

// deleteTask removes whatever is left of a task: the toolbox, the runtime's
// state, the shim, and the control group. It is nil when there is none.
func (d *Driver) deleteTask(ctx context.Context, in *instance) error {
	ctx, cancel := d.firm(ctx)
	defer cancel()
	path := d.template.cgroupPath(in.id)
	if p := in.running(); p != nil {
		if err := d.end(ctx, in, p, 0); err != nil {
			return err
		}
		_, _ = d.waitStopped(ctx, in.id) // Delete says more when this fails
	}
	for stopped := 0; ; {
		_, err := d.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: in.id})
		if err == nil || isNotFound(err) {
			return removeCgroup(ctx, d.cgroups, path)
		}
		t, known := d.getTask(ctx, in.id)
		if t != nil && t.Status == task.Status_STOPPED {
			stopped++
		}
		if known != nil || stopped == 3 {
			return fmt.Errorf("delete task: %w", err)
		}
		// The shim has not yet seen the exit, or process 1 waits to be started.
		if err := killCgroup(ctx, d.cgroups, path); err != nil {
			return err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("delete task: %w", err)
		}
	}
}

// Remove ends the instance and clears every trace of it, also of one that was
// never whole. Unknown instances count as removed.
func (d *Driver) Remove(ctx context.Context, h driver.Handle) error {
	if err := validID(h.ID); err != nil {
		return err
	}
	in := d.instance(h.ID)
	in.change.Lock()
	defer in.change.Unlock()
	d.jobs.flush()
	in.mu.Lock()
	in.stopping = true
	in.mu.Unlock()

	if err := d.ours(ctx, h.ID); err != nil {
		return err
	}
	if err := d.deleteTask(ctx, in); err != nil {
		return translate(err, "remove the task of instance %s", h.ID)
	}
	callCtx, cancel := d.firm(ctx)
	defer cancel()
	if err := d.killStray(callCtx, h.ID); err != nil {
		return translate(err, "remove the shim of instance %s", h.ID)
	}
	if err := d.boxes.Delete(callCtx, h.ID); err != nil && !errdefs.IsNotFound(err) {
		return translate(err, "remove the container of instance %s", h.ID)
	}
	d.forget(h.ID)
	err := errors.Join(os.RemoveAll(d.dir(h.ID)), removeRuntimeState(d.cfg, h.ID))
	return translate(err, "remove the state of instance %s", h.ID)
}

// ours refuses ids that another server in the same containerd uses.
func (d *Driver) ours(ctx context.Context, id string) error {
	ctx, cancel := d.call(ctx)
	defer cancel()
	box, err := d.boxes.Get(ctx, id)
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return translate(err, "look up instance %s", id)
	case box.Labels[labelServer] != d.cfg.ServerID:
		return engine.Errorf(engine.KindDenied, "container %s belongs to another server", id)
	}
	return nil
}
