package core

import (
	"context"
	"errors"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// This file is what package reconcile may do. Each method takes the row that
// the decision was made from and does nothing, with a conflict, when the
// sandbox has changed since or a change of it is under way.

// Row is a sandbox as reconcile sees it.
type Row struct {
	store.Sandbox
	Busy bool // a call or stream through this server is open
	Held bool // a change is under way
}

// Fact is how a sandbox was found, to be written into its row.
type Fact struct {
	State       engine.State
	Error       string
	Recoverable bool
	Resources   *engine.Resources // nil: as they are
}

// Rows returns every sandbox that is not destroyed, with its latest activity.
func (c *Core) Rows(ctx context.Context) ([]Row, error) {
	live, err := c.Store.LiveSandboxes(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]Row, len(live))
	for i, sb := range live {
		sb.LastActive = c.activity.latest(sb.ID, sb.LastActive)
		rows[i] = Row{Sandbox: sb, Busy: c.activity.busy(sb.ID), Held: c.ops.busy(sb.ID)}
	}
	return rows, nil
}

// holdRow begins a repair of the row.
func (c *Core) holdRow(ctx context.Context, row Row, limit time.Duration) (context.Context, *store.Sandbox, func(), error) {
	ctx, end, err := c.ops.begin(ctx, row.ID, opSettle, limit)
	if err != nil {
		return nil, nil, nil, err
	}
	sb, err := c.Store.SandboxByID(ctx, row.ID)
	if err == nil && sb.Version != row.Version {
		err = engine.Errorf(engine.KindConflict, "sandbox %s has changed meanwhile", sb.Name)
	}
	if err != nil {
		end()
		return nil, nil, nil, err
	}
	return ctx, &sb, end, nil
}

// Settle writes a fact that the runner told.
func (c *Core) Settle(ctx context.Context, row Row, f Fact) error {
	ctx, sb, end, err := c.holdRow(ctx, row, limitInspect)
	if err != nil {
		return err
	}
	defer end()
	err = c.move(ctx, sb, f.State, func(r *store.Sandbox) {
		r.Error, r.Recoverable = f.Error, f.Recoverable
		if f.Resources != nil {
			r.Resources = *f.Resources
		}
		switch f.State {
		case engine.StateStarted:
			r.Desired, r.StoppedAt = engine.DesiredStarted, time.Time{}
		case engine.StateStopped:
			r.Desired = engine.DesiredStopped
			if r.StoppedAt.IsZero() {
				r.StoppedAt = c.Now().UTC()
			}
		}
	})
	if err != nil || sb.ForkDisk == "" {
		return err
	}
	return c.dropForkDisk(ctx, sb)
}

// Forget removes a sandbox whose create was never answered.
func (c *Core) Forget(ctx context.Context, row Row, reason string) error {
	ctx, sb, end, err := c.holdRow(ctx, row, limitRemove)
	if err != nil {
		return err
	}
	defer end()
	c.abandon(ctx, sb, true, engine.Errorf(engine.KindUnavailable, "%s", reason))
	return nil
}

// Halt stops a started sandbox, or finishes a stop that was interrupted.
func (c *Core) Halt(ctx context.Context, row Row) error {
	ctx, sb, end, err := c.holdRow(ctx, row, defaultGrace+limitStop)
	if err != nil {
		return err
	}
	defer end()
	return c.halt(ctx, sb, engine.StopOptions{Grace: defaultGrace})
}

// StopStray stops an instance that runs though its sandbox is stopped.
func (c *Core) StopStray(ctx context.Context, row Row) error {
	ctx, sb, end, err := c.holdRow(ctx, row, defaultGrace+limitStop)
	if err != nil {
		return err
	}
	defer end()
	_, err = c.Cluster.Client(sb.Runner).Stop(ctx, sb.ID, engine.StopOptions{Grace: defaultGrace})
	return err
}

// Destroy destroys a sandbox, or finishes a deletion that was interrupted.
func (c *Core) Destroy(ctx context.Context, row Row) error {
	ctx, sb, end, err := c.holdRow(ctx, row, limitRemove)
	if err != nil {
		return err
	}
	defer end()
	return c.destroy(ctx, sb)
}

// DropForkDisk drops the disk that only a fork's first start needed.
func (c *Core) DropForkDisk(ctx context.Context, row Row) error {
	ctx, sb, end, err := c.holdRow(ctx, row, limitRemove)
	if err != nil {
		return err
	}
	defer end()
	return c.dropForkDisk(ctx, sb)
}

// ApplyNetwork makes the runner enforce the row's lists and policy, which a crash may
// have kept from it.
func (c *Core) ApplyNetwork(ctx context.Context, row Row) error {
	ctx, sb, end, err := c.holdRow(ctx, row, limitResize)
	if err != nil {
		return err
	}
	defer end()
	return c.applyPolicy(ctx, sb.ID)
}

// RemoveOrphan removes an instance that no row knows. It asks the store once
// more, and leaves alone what a change under way may be making.
func (c *Core) RemoveOrphan(ctx context.Context, runner, sandbox string) error {
	ctx, end, err := c.ops.begin(ctx, sandbox, opSettle, limitRemove)
	if err != nil {
		return err
	}
	defer end()
	sb, err := c.Store.SandboxByID(ctx, sandbox)
	switch {
	case err == nil && sb.State != engine.StateDestroyed && sb.Runner == runner:
		return engine.Errorf(engine.KindConflict, "sandbox %s has come up meanwhile", sb.Name)
	case err != nil && engine.KindOf(err) != engine.KindNotFound:
		return err
	}
	return c.Cluster.Client(runner).Remove(ctx, sandbox)
}

// FinishSnapshots ends what a crash interrupted: cuts that were not answered
// and removals are undone and done, pulls are marked as failed.
func (c *Core) FinishSnapshots(ctx context.Context) error {
	all, err := c.Store.AllSnapshots(ctx)
	if err != nil {
		return err
	}
	for _, sn := range all {
		if sn.General {
			continue // PrepareDefaults owns those
		}
		if err := c.finishSnapshot(ctx, sn); err != nil && !store.Conflicting(err) {
			c.Log.Warn("snapshot not settled", "snapshot", sn.ID, "state", sn.State, "error", err)
		}
	}
	return nil
}

func (c *Core) finishSnapshot(ctx context.Context, sn engine.Snapshot) error {
	switch sn.State {
	case engine.SnapshotSnapshotting, engine.SnapshotRemoving, engine.SnapshotPending, engine.SnapshotPulling:
	default:
		return nil
	}
	ctx, end, err := c.ops.begin(ctx, sn.ID, opSettle, limitRemove)
	if err != nil {
		return err
	}
	defer end()
	fresh, err := c.Store.Snapshot(ctx, engine.SnapshotRef{OrganizationID: sn.OrganizationID, IDOrName: sn.ID})
	if err != nil || fresh.State != sn.State {
		return err
	}
	c.Log.Info("settling a snapshot", "snapshot", sn.ID, "state", sn.State)
	if sn.State == engine.SnapshotSnapshotting || sn.State == engine.SnapshotRemoving {
		return c.removeSnapshot(ctx, sn)
	}
	return c.setSnapshot(ctx, &sn, engine.SnapshotError, func(n *engine.Snapshot) {
		n.Error = "the server ended while it pulled the image"
	})
}

// Purge forgets sandboxes that were destroyed before the given time, and
// idempotency keys and preview links that have expired, and what is old in the
// audit trail and among requests for access.
func (c *Core) Purge(ctx context.Context, before time.Time) error {
	if _, err := c.Store.PurgeSandboxes(ctx, before); err != nil {
		return err
	}
	return errors.Join(c.Store.PurgeIdempotency(ctx, c.Now()), c.Store.PurgePreviews(ctx, c.Now()),
		c.Store.PurgeAccess(ctx, c.Now(), c.Now().Add(-staleRequest)), c.purgeAudit(ctx))
}
