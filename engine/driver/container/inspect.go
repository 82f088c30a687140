package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Inspect tells how an instance is. Of one that runs and is known it asks the
// kernel alone. An unknown instance is gone, which is no error.
func (d *Driver) Inspect(ctx context.Context, h driver.Handle) (driver.Status, error) {
	if _, err := decodeHandle(h); err != nil {
		return driver.Status{}, err
	}
	in := d.instance(h.ID)
	if p := in.running(); p != nil {
		return d.runningStatus(in, p), nil
	}
	p, err := d.find(ctx, in)
	switch {
	case engine.KindOf(err) == engine.KindNotFound:
		d.forget(h.ID)
		return driver.Status{Phase: driver.PhaseGone}, nil
	case err != nil:
		return driver.Status{}, err
	case p != nil:
		return d.runningStatus(in, p), nil
	}
	return d.restingStatus(ctx, in)
}

func (d *Driver) runningStatus(in *instance, p *process) driver.Status {
	s := driver.Status{Phase: driver.PhaseRunning, PID: p.pid, OOM: d.oomKilled(in)}
	if d.cgroups.frozen(d.template.cgroupPath(in.id)) {
		s.Phase = driver.PhasePaused
	}
	return s
}

// restingStatus tells a stopped instance from one that never started.
func (d *Driver) restingStatus(ctx context.Context, in *instance) (driver.Status, error) {
	if end, ok := d.loadExit(in.id); ok {
		return driver.Status{Phase: driver.PhaseStopped, ExitCode: end.Code, OOM: end.OOM, ExitedAt: end.At}, nil
	}
	t, err := d.getTask(ctx, in.id)
	if err != nil {
		return driver.Status{}, translate(err, "look up the task of instance %s", in.id)
	}
	if t == nil || t.Status == task.Status_CREATED {
		return driver.Status{Phase: driver.PhaseCreated}, nil
	}
	end := d.recordExit(ctx, in)
	return driver.Status{Phase: driver.PhaseStopped, ExitCode: end.Code, OOM: end.OOM, ExitedAt: end.At}, nil
}

// getTask returns containerd's view of a task, nil when there is none.
func (d *Driver) getTask(ctx context.Context, id string) (*task.Process, error) {
	ctx, cancel := d.call(ctx)
	defer cancel()
	r, err := d.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.Process, nil
}

// find returns the toolbox's process, attaching to it when it runs without our
// knowing. It is nil for an instance that does not run, and an error of kind
// not_found for one that containerd does not know.
func (d *Driver) find(ctx context.Context, in *instance) (*process, error) {
	if p := in.running(); p != nil {
		return p, nil
	}
	t, err := d.getTask(ctx, in.id)
	if err != nil {
		return nil, translate(err, "look up the task of instance %s", in.id)
	}
	if t != nil && live(t.Status) {
		if p, err := d.attach(in, int(t.Pid)); err == nil {
			return p, nil
		}
		// It ended between the two looks.
	}
	callCtx, cancel := d.call(ctx)
	defer cancel()
	box, err := d.boxes.Get(callCtx, in.id)
	switch {
	case errdefs.IsNotFound(err):
		return nil, errUnknown(in.id)
	case err != nil:
		return nil, translate(err, "look up instance %s", in.id)
	case box.Labels[labelServer] != d.cfg.ServerID:
		return nil, errUnknown(in.id)
	}
	return nil, nil
}

// Recover follows an instance again after our restart. One that ended
// meanwhile is no error: Inspect says so.
func (d *Driver) Recover(ctx context.Context, h driver.Handle) error {
	if _, err := decodeHandle(h); err != nil {
		return err
	}
	in := d.instance(h.ID)
	in.change.Lock()
	defer in.change.Unlock()
	if _, err := d.find(ctx, in); err != nil {
		if engine.KindOf(err) == engine.KindNotFound {
			d.forget(h.ID)
		}
		return err
	}
	return nil
}

// List finds every container of this server, also those that no runner knows,
// and shims that have outlived their container.
func (d *Driver) List(ctx context.Context) ([]driver.Handle, error) {
	d.jobs.flush()
	ctx, cancel := d.call(ctx)
	defer cancel()
	boxes, err := d.boxes.List(ctx, fmt.Sprintf("labels.%q==%q", labelServer, d.cfg.ServerID))
	if err != nil {
		return nil, translate(err, "list containers")
	}
	handles := make([]driver.Handle, 0, len(boxes))
	for _, box := range boxes {
		handles = append(handles, driver.Handle{
			Version: handleVersion, Driver: name, ID: box.ID, Data: json.RawMessage(box.Labels[labelHandle]),
		})
	}
	shims, err := d.shims()
	if err != nil {
		return nil, translate(err, "list shims")
	}
	for id := range shims {
		known := slices.ContainsFunc(handles, func(h driver.Handle) bool { return h.ID == id })
		// A container that is there, but not ours, is another server's.
		if _, err := d.boxes.Get(ctx, id); !known && errdefs.IsNotFound(err) {
			handles = append(handles, driver.Handle{Version: handleVersion, Driver: name, ID: id, Data: json.RawMessage("{}")})
		}
	}
	return handles, nil
}

// removeRuntimeState clears what the runtime keeps of a container whose shim
// could not clean up.
func removeRuntimeState(c Config, id string) error {
	return os.RemoveAll(filepath.Join(c.StateDir, "runc", c.Namespace, id))
}
