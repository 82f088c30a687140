package core

import (
	"context"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// casRetries bounds how often a write is repeated when labels, timers or
// activity were written in between.
const casRetries = 8

// move is the only way by which a sandbox changes its state. It checks that
// the state machine allows it, applies change to the row, writes it if nobody
// else moved the sandbox meanwhile, and tells watchers. On error the row is
// unchanged. The caller holds the sandbox's op.
func (c *Core) move(ctx context.Context, sb *store.Sandbox, next engine.State, change func(*store.Sandbox)) error {
	old, wished := sb.State, sb.Desired
	if !old.CanBecome(next) {
		return engine.Errorf(engine.KindConflict, "sandbox %s cannot go from %s to %s", sb.Name, old, next)
	}
	err := c.write(ctx, sb, func(row *store.Sandbox) {
		row.State = next
		if next != engine.StateError && next != engine.StateDestroying {
			row.Error, row.Recoverable = "", false
		}
		if change != nil {
			change(row)
		}
	})
	if err != nil {
		return err
	}
	if sb.Desired != wished {
		c.wished(sb, wished)
	}
	c.changed(sb, old)
	return nil
}

// write applies change to the newest version of the row and stores it. It is
// a conflict when another server has moved the sandbox to another state or
// incarnation.
func (c *Core) write(ctx context.Context, sb *store.Sandbox, change func(*store.Sandbox)) error {
	base := *sb
	for try := 0; ; try++ {
		next := base
		change(&next)
		next.UpdatedAt = c.Now().UTC()
		err := c.Store.UpdateSandbox(ctx, &next)
		if err == nil {
			*sb = next
			c.routes.forget(sb.ID)
			return nil
		}
		if !store.Conflicting(err) || try == casRetries {
			return err
		}
		fresh, ferr := c.Store.SandboxByID(ctx, sb.ID)
		if ferr != nil {
			return ferr
		}
		if fresh.State != sb.State || fresh.Incarnation != sb.Incarnation {
			return err
		}
		base = fresh
	}
}

// changed tells watchers of a new state and drops what was bound to the old.
func (c *Core) changed(sb *store.Sandbox, old engine.State) {
	if !running(sb) {
		c.pools.drop(sb.ID)
	}
	c.publish("sandbox.state.updated", sb, string(old))
	if sb.State == engine.StateDestroyed {
		c.gone(sb)
	}
}

// gone forgets all that this process knew of a sandbox that is no more.
func (c *Core) gone(sb *store.Sandbox) {
	c.pools.drop(sb.ID)
	c.routes.forget(sb.ID)
	c.activity.forget(sb.ID)
	c.denials.forget(sb.ID)
	c.publish("sandbox.removed", sb, "")
}

func (c *Core) publish(kind string, sb *store.Sandbox, old string) {
	c.lived(kind, sb)
	copied := sb.Sandbox
	c.Cluster.Publish(engine.Event{
		Type: kind, OrganizationID: sb.OrganizationID, Time: c.Now().UTC(),
		Sandbox: &copied, Old: old, New: string(sb.State),
	})
}

// wished tells watchers of a new desired state.
func (c *Core) wished(sb *store.Sandbox, old engine.DesiredState) {
	copied := sb.Sandbox
	c.Cluster.Publish(engine.Event{
		Type: "sandbox.desired-state.updated", OrganizationID: sb.OrganizationID, Time: c.Now().UTC(),
		Sandbox: &copied, Old: string(old), New: string(sb.Desired),
	})
}

// fail writes that a sandbox which existed before is now in error. The
// context may have ended, so it makes its own.
func (c *Core) fail(ctx context.Context, sb *store.Sandbox, why error, recoverable bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitInspect)
	defer cancel()
	err := c.move(ctx, sb, engine.StateError, func(row *store.Sandbox) {
		row.Error, row.Recoverable = engine.AsError(why).Message, recoverable
	})
	if err != nil {
		c.Log.Error("state not written", "sandbox", sb.ID, "state", engine.StateError, "error", err)
	}
}

// back returns a sandbox to a settled state after a step that failed or is
// over. The context may have ended, so it makes its own.
func (c *Core) back(ctx context.Context, sb *store.Sandbox, to engine.State, change func(*store.Sandbox)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitInspect)
	defer cancel()
	return c.move(ctx, sb, to, change)
}

// running tells whether the toolbox of a sandbox should answer: it is started,
// or started and having its disk saved or its limits changed.
func running(sb *store.Sandbox) bool {
	switch sb.State {
	case engine.StateStarted:
		return true
	case engine.StateResizing, engine.StateSnapshotting, engine.StateForking:
		return sb.Desired == engine.DesiredStarted
	}
	return false
}

// notStarted is the error of a call to a toolbox that cannot answer. Published
// clients that revive sandboxes by themselves know it by the question in it.
func notStarted(sb *store.Sandbox) error {
	e := engine.Errorf(engine.KindConflict, "sandbox %s is %s, not started", sb.Name, sb.State)
	switch {
	case sb.State == engine.StateStopped, sb.State == engine.StateError && sb.Recoverable:
		return e.WithHint("is the sandbox started? Start it first")
	case sb.State == engine.StateError:
		return e.WithHint("%s", sb.Error)
	}
	return e.WithHint("wait until it is started")
}
