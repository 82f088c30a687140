package core

import (
	"context"
	"maps"
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
	err = firstError(checkResize(sb, want), s.room(ctx, sb, want), s.permitsChange(ctx, sb, func(row *store.Sandbox) { row.Resources = want }))
	if err != nil {
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
	sb, err := s.update(ctx, ref, u)
	if err != nil && (u.Network != nil || u.Policy != nil) {
		s.refusedPolicy(ctx, ref, err)
	}
	return sb, err
}

// refusedPolicy records that somebody wanted a sandbox to have another network
// policy, and why it has not.
func (s sandboxes) refusedPolicy(ctx context.Context, ref engine.SandboxRef, why error) {
	if s.Ledger == nil {
		return
	}
	sb, err := s.find(context.WithoutCancel(ctx), ref)
	if err != nil { // nobody's ledger
		return
	}
	r := engine.ActivityRecord{Sandbox: sb.ID, Incarnation: sb.Incarnation, Kind: engine.ActivityPolicy, Operation: engine.PolicyRefused, Reason: why.Error()}
	by(ctx, &r)
	s.Ledger.Record(r)
}

func (s sandboxes) update(ctx context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	if u.Network != nil {
		if err := checkProxy(*u.Network, s.OutboundProxies); err != nil {
			return engine.Sandbox{}, err
		}
	}
	if err := firstError(ctx.Err(), checkUpdate(u)); err != nil {
		return engine.Sandbox{}, public(err)
	}
	if u.Network != nil || u.Policy != nil {
		sb, err := s.updateNetwork(ctx, ref, u)
		return sb, public(err)
	}
	sb, err := s.find(ctx, ref)
	if err == nil {
		err = staysWithin(engine.ScopeOf(ctx), u.Labels)
	}
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	if sb.State == engine.StateDestroying {
		return engine.Sandbox{}, inProgress(sb.Name, string(sb.State))
	}
	if err := s.permitsChange(ctx, &sb, func(row *store.Sandbox) { apply(row, u) }); err != nil {
		return engine.Sandbox{}, public(err)
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
	set(&row.Policy, u.Policy)
	if u.Labels != nil {
		row.Labels = maps.Clone(*u.Labels)
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// updateNetwork makes other lists or another policy hold. Lists stand in place
// of what was granted, and end a time of learning: whoever sets them means just
// them.
func (s sandboxes) updateNetwork(ctx context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	ctx, sb, end, err := s.change(ctx, ref, opUpdate, limitResize)
	if err != nil {
		return engine.Sandbox{}, err
	}
	defer end()
	if err := staysWithin(engine.ScopeOf(ctx), u.Labels); err != nil {
		return engine.Sandbox{}, err
	}
	if !sb.State.Settled() {
		return engine.Sandbox{}, inProgress(sb.Name, string(sb.State))
	}
	if err := s.permitsUpdate(ctx, sb, &u); err != nil {
		return engine.Sandbox{}, err
	}
	granted := false
	if u.Network != nil {
		network := u.Network.Settings()
		u.Network, granted = &network, len(sb.Network.Grants) > 0
	}
	err = s.renetwork(ctx, sb, func(row *store.Sandbox) {
		apply(row, u)
		if u.Network != nil {
			row.Learning = ended(row.Learning, s.Now())
		}
	})
	if err != nil {
		return engine.Sandbox{}, cause(ctx, err)
	}
	if granted {
		if err := s.Store.DropGrants(ctx, sb.ID); err != nil {
			s.Log.Warn("approved requests not forgotten", "sandbox", sb.ID, "error", err)
		}
	}
	s.publish("sandbox.updated", sb, string(sb.State))
	return s.view(sb), nil
}

// permitsUpdate asks the policy that a sandbox shall be under about all that
// the sandbox is then. Keys that are bound to a policy change no attachment.
func (s sandboxes) permitsUpdate(ctx context.Context, sb *store.Sandbox, u *engine.UpdateSandbox) error {
	row := *sb
	apply(&row, *u)
	if u.Policy == nil || row.Policy == sb.Policy {
		return s.permitsChange(ctx, sb, func(r *store.Sandbox) { apply(r, *u) })
	}
	if err := engine.Unbound(engine.CallerOf(ctx).Principal, "change the policy of a sandbox"); err != nil || row.Policy == "" {
		return err
	}
	p, err := s.policyFor(ctx, row.OrganizationID, row.Policy)
	if err != nil {
		return err
	}
	// A longer idle time becomes that of the policy; what would delete the
	// sandbox is the caller's to say.
	if most := p.Lifecycle.AutoStop; most > 0 && (row.Lifecycle.AutoStop == 0 || row.Lifecycle.AutoStop > most) {
		u.AutoStop, row.Lifecycle.AutoStop = &most, most
	}
	return firstError(permits(p, ask(&row, 0)), s.permitsSecrets(ctx, &row, p))
}
