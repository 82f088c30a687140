package core

import (
	"context"
	"maps"
	"reflect"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/scheduler"
	"github.com/atoll-sh/atoll/engine/store"
)

// Resize changes limits; zero fields stay. A started sandbox may only get
// more cores and memory, a stopped one any of them and a larger disk.
func (s sandboxes) Resize(ctx context.Context, ref engine.SandboxRef, r engine.Resources) (engine.Sandbox, error) {
	if err := checkResources(r); err != nil {
		return engine.Sandbox{}, err
	}
	ctx, sb, end, err := s.change(ctx, ref, opResize, limitResize)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer end()
	if sb.State != engine.StateStarted && sb.State != engine.StateStopped {
		return engine.Sandbox{}, refuse(sb, "resize", "started or stopped")
	}
	want := merge(r, sb.Resources)
	if err := firstError(checkResize(sb, want), s.room(ctx, sb, want)); err != nil {
		return engine.Sandbox{}, public(err)
	}
	free, err := s.within(ctx, sb, want, sb.State == engine.StateStarted)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer free()
	if err := s.resize(ctx, sb, want); err != nil {
		return engine.Sandbox{}, public(cause(ctx, err))
	}
	return s.view(sb), nil
}

func checkResize(sb *store.Sandbox, want engine.Resources) error {
	has := sb.Resources
	live := sb.State == engine.StateStarted
	switch {
	case want == has:
		return invalid("the new limits are those that sandbox %s has", sb.Name).WithHint("change cpu, memory or disk")
	case want.GPU != has.GPU:
		return engine.Errorf(engine.KindUnsupported, "gpu cannot be changed").WithHint("create a new sandbox")
	case live && want.DiskMiB != has.DiskMiB:
		return invalid("disk cannot be changed while sandbox %s is started", sb.Name).WithHint("stop it first")
	case want.DiskMiB < has.DiskMiB:
		return invalid("disk can only grow; it is %d MiB", has.DiskMiB).WithHint("ask for more, or create a new sandbox")
	case live && want.CPU < has.CPU:
		return invalid("cpu can only grow while sandbox %s is started; it is %v", sb.Name, has.CPU).WithHint("stop it first")
	case live && want.MemoryMiB < has.MemoryMiB:
		return invalid("memory can only grow while sandbox %s is started; it is %d MiB", sb.Name, has.MemoryMiB).WithHint("stop it first")
	}
	return nil
}

// room asks the scheduler whether the sandbox's own runner can give the rest.
func (s sandboxes) room(ctx context.Context, sb *store.Sandbox, want engine.Resources) error {
	req := scheduler.Request{Class: sb.Class, Resources: want, Runner: sb.Runner}
	req.Holds = engine.Resources{DiskMiB: sb.Resources.DiskMiB}
	if sb.State == engine.StateStarted {
		req.Holds = sb.Resources
	}
	req.Restart = want.DiskMiB == sb.Resources.DiskMiB
	_, err := s.Scheduler.Place(ctx, req, s.Cluster.Runners(ctx))
	return err
}

func (s sandboxes) resize(ctx context.Context, sb *store.Sandbox, want engine.Resources) error {
	before := sb.State
	if err := s.move(ctx, sb, engine.StateResizing, nil); err != nil {
		return err
	}
	_, err := s.Cluster.Client(sb.Runner).Resize(ctx, sb.ID, want)
	if err != nil {
		// The limits that hold now are those of before, or reconcile finds
		// the runner's and writes them.
		if berr := s.back(ctx, sb, before, nil); berr != nil {
			s.Log.Error("state not written", "sandbox", sb.ID, "state", before, "error", berr)
		}
		return cause(ctx, err)
	}
	return s.back(ctx, sb, before, func(row *store.Sandbox) { row.Resources = want })
}

// Update changes labels, timers, visibility and network policy. Only the
// last waits for other changes, since it reaches the runner.
func (s sandboxes) Update(ctx context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	if u.Network != nil {
		if err := checkProxy(*u.Network, s.OutboundProxies); err != nil {
			return engine.Sandbox{}, err
		}
	}
	if err := firstError(ctx.Err(), checkUpdate(u)); err != nil {
		return engine.Sandbox{}, public(err)
	}
	if u.Network != nil {
		sb, err := s.updateNetwork(ctx, ref, u)
		return sb, public(err)
	}
	sb, err := s.find(ctx, ref)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	if sb.State == engine.StateDestroying {
		return engine.Sandbox{}, inProgress(sb.Name, string(sb.State))
	}
	// The state may change in between; a new start from its new value does it.
	for try := 0; ; try++ {
		err = s.write(ctx, &sb, func(row *store.Sandbox) { apply(row, u) })
		if !store.Conflicting(err) || try == casRetries {
			break
		}
		if sb, err = s.find(ctx, engine.SandboxRef{OrganizationID: ref.OrganizationID, IDOrName: sb.ID}); err != nil {
			break
		}
	}
	if err != nil {
		return engine.Sandbox{}, public(cause(ctx, err))
	}
	s.publish("sandbox.updated", &sb, string(sb.State))
	return s.view(&sb), nil
}

func checkUpdate(u engine.UpdateSandbox) error {
	if u.Labels != nil {
		if err := checkLabels(*u.Labels); err != nil {
			return err
		}
	}
	if u.Network != nil {
		if err := checkNetwork(*u.Network); err != nil {
			return err
		}
	}
	timer := func(field string, d *time.Duration) error {
		if d == nil {
			return nil
		}
		return checkTimer(field, *d)
	}
	if u.AutoDelete != nil && *u.AutoDelete < 0 {
		u.AutoDelete = nil // any negative value means off
	}
	return firstError(timer("autoStop", u.AutoStop), timer("autoArchive", u.AutoArchive),
		timer("autoDelete", u.AutoDelete), timer("ttl", u.TTL))
}

func apply(row *store.Sandbox, u engine.UpdateSandbox) {
	set(&row.Public, u.Public)
	set(&row.Lifecycle.AutoStop, u.AutoStop)
	set(&row.Lifecycle.AutoArchive, u.AutoArchive)
	set(&row.Lifecycle.AutoDelete, u.AutoDelete)
	set(&row.Lifecycle.TTL, u.TTL)
	set(&row.Network, u.Network)
	if u.Labels != nil {
		row.Labels = maps.Clone(*u.Labels)
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// updateNetwork writes the new policy and makes the runner enforce it. When
// the runner fails, the old policy is written back, so that the row says what
// holds. After a crash in between, reconcile applies the row's policy.
func (s sandboxes) updateNetwork(ctx context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	ctx, sb, end, err := s.change(ctx, ref, opUpdate, limitResize)
	if err != nil {
		return engine.Sandbox{}, err
	}
	defer end()
	if !sb.State.Settled() {
		return engine.Sandbox{}, inProgress(sb.Name, string(sb.State))
	}
	old := sb.Network
	if err := s.write(ctx, sb, func(row *store.Sandbox) { apply(row, u) }); err != nil {
		return engine.Sandbox{}, err
	}
	if sb.State == engine.StateStarted && !reflect.DeepEqual(old, *u.Network) {
		err = s.Cluster.Client(sb.Runner).SetNetwork(ctx, sb.ID, *u.Network)
	}
	if err != nil {
		undo := context.WithoutCancel(ctx)
		if werr := s.write(undo, sb, func(row *store.Sandbox) { row.Network = old }); werr != nil {
			s.Log.Error("network policy not written back", "sandbox", sb.ID, "error", werr)
		}
		return engine.Sandbox{}, cause(ctx, err)
	}
	s.publish("sandbox.updated", sb, string(sb.State))
	return s.view(sb), nil
}
