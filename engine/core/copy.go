package core

import (
	"cmp"
	"context"
	"errors"
	"maps"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// forkDisk is the disk that exists for the first start of one fork alone.
func forkDisk(sandbox string) string { return "fork-" + sandbox }

// Save makes a snapshot of a sandbox's disk. When it fails nothing is left.
func (s snapshots) Save(ctx context.Context, ref engine.SandboxRef, name string) (engine.Snapshot, error) {
	if err := checkSnapshotName(name); err != nil {
		return engine.Snapshot{}, err
	}
	ctx, sb, end, err := s.change(ctx, ref, opSave, limitSave)
	if err != nil {
		return engine.Snapshot{}, public(err)
	}
	defer end()
	if err := copyable(sb, "a snapshot"); err != nil {
		return engine.Snapshot{}, err
	}
	sn := s.snapshotOf(sb, name)
	endSnapshot, err := s.hold(ctx, sn.ID, opSave)
	if err != nil {
		return engine.Snapshot{}, err
	}
	defer endSnapshot()
	if err := s.insertSnapshot(ctx, sn); err != nil {
		return engine.Snapshot{}, public(err)
	}
	saved, err := s.saveDisk(ctx, sb, engine.StateSnapshotting, sn.Disk)
	if err == nil {
		err = s.snapshotFits(ctx, sn.OrganizationID, saved.SizeBytes)
	}
	if err == nil {
		err = s.setSnapshot(ctx, &sn, engine.SnapshotActive, func(n *engine.Snapshot) { n.SizeBytes = saved.SizeBytes })
	}
	if err != nil {
		s.unsave(ctx, sn)
		return engine.Snapshot{}, public(cause(ctx, err))
	}
	return sn, nil
}

// hold keeps reconcile away from an object that a longer change makes.
func (c *Core) hold(ctx context.Context, id, name string) (func(), error) {
	_, end, err := c.ops.begin(ctx, id, name, limitSave+limitCreate)
	return end, err
}

func copyable(sb *store.Sandbox, what string) error {
	if sb.State == engine.StateStarted || sb.State == engine.StateStopped {
		return nil
	}
	return refuse(sb, what, "started or stopped")
}

func (s snapshots) snapshotOf(sb *store.Sandbox, name string) engine.Snapshot {
	id, now := uuid.NewString(), s.Now().UTC()
	return engine.Snapshot{
		ID: id, OrganizationID: sb.OrganizationID, Name: name, State: engine.SnapshotSnapshotting,
		Image: sb.Image, ImageDigest: sb.ImageDigest, Disk: "snap-" + id, Runner: sb.Runner,
		User: sb.User, WorkDir: sb.WorkDir, Env: maps.Clone(sb.Env), Entrypoint: sb.Entrypoint,
		Resources: sb.Resources, SourceSandbox: sb.ID, Policy: sb.Policy, CreatedAt: now, UpdatedAt: now,
	}
}

// unsave removes a snapshot whose cut failed.
func (s snapshots) unsave(ctx context.Context, sn engine.Snapshot) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitRemove)
	defer cancel()
	if err := s.removeSnapshot(ctx, sn); err != nil {
		s.Log.Warn("failed snapshot not removed yet", "snapshot", sn.ID, "error", err)
	}
}

// saveDisk copies the sandbox's disk while it is in the given state, and
// returns it to where it was.
func (c *Core) saveDisk(ctx context.Context, sb *store.Sandbox, meanwhile engine.State, disk string) (engine.SavedDisk, error) {
	before, stopped := sb.State, sb.StoppedAt
	if err := c.move(ctx, sb, meanwhile, nil); err != nil {
		return engine.SavedDisk{}, err
	}
	saved, err := c.Cluster.Client(sb.Runner).SaveDisk(ctx, sb.ID, disk)
	berr := c.back(ctx, sb, before, func(row *store.Sandbox) { row.StoppedAt = stopped })
	return saved, errors.Join(err, berr)
}

// Fork makes a new running sandbox with a copy of another's disk, and its
// environment, labels, limits, timers, network lists and policy. Previews of the
// fork are private. The parent is held up for the cut only.
func (s snapshots) Fork(ctx context.Context, ref engine.SandboxRef, name string) (engine.Sandbox, error) {
	watch := newStopwatch(s.Now)
	if err := checkName("name", name); err != nil {
		return engine.Sandbox{}, err
	}
	ctx, parent, end, err := s.change(ctx, ref, opFork, limitSave)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer end()
	if err := copyable(parent, "a fork"); err != nil {
		return engine.Sandbox{}, err
	}
	b := s.child(parent, name)
	b.watch = watch
	cctx, endChild, err := s.ops.begin(ctx, b.row.ID, opFork, limitSave+limitCreate)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer endChild()
	all := sandboxes(s)
	if err := s.cut(cctx, parent, b); err != nil {
		err = cause(cctx, err)
		s.abandon(cctx, &b.row, b.inserted, err)
		return engine.Sandbox{}, public(err)
	}
	end() // the parent is free again
	sb, err := all.bring(cctx, b)
	return sb, public(err)
}

// cut writes the child's row first, so that a crash leaves no disk that no
// row knows.
func (s snapshots) cut(ctx context.Context, parent *store.Sandbox, b *birth) error {
	if _, err := s.Scheduler.Place(ctx, b.request(), s.Cluster.Runners(ctx)); err != nil {
		return err
	}
	if err := sandboxes(s).record(ctx, b, parent.Runner); err != nil {
		return err
	}
	b.watch.stage("place")
	_, err := s.saveDisk(ctx, parent, engine.StateForking, b.disk)
	b.watch.stage("cut")
	return err
}

func (s snapshots) child(parent *store.Sandbox, name string) *birth {
	id, now := uuid.NewString(), s.Now().UTC()
	row := *parent
	row.Sandbox = engine.Sandbox{
		ID: id, OrganizationID: parent.OrganizationID, Name: cmp.Or(name, id), Class: parent.Class,
		State: engine.StateCreating, Desired: engine.DesiredStarted, Incarnation: 1,
		Target: parent.Target, Snapshot: parent.Snapshot, ImageDigest: parent.ImageDigest, User: parent.User,
		Env: maps.Clone(parent.Env), Secrets: maps.Clone(parent.Secrets), Labels: maps.Clone(parent.Labels), Resources: parent.Resources,
		Lifecycle: parent.Lifecycle, Network: parent.Network.Settings(), Policy: parent.Policy, Parent: parent.ID,
		CreatedAt: now, UpdatedAt: now, LastActive: now,
	}
	row.Version, row.ForkDisk = 0, forkDisk(id)
	return &birth{row: row, disk: forkDisk(id), only: parent.Runner}
}
