package core

import (
	"context"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

const (
	// buildWait is how long a create waits for an image that is built on
	// demand: less than the minute after which published clients give up.
	buildWait = 50 * time.Second
	// buildLook is how often it looks.
	buildLook = 250 * time.Millisecond
)

// onDemand tells whether a snapshot's image is built when it is first needed.
func (c *Core) onDemand(sn engine.Snapshot) bool {
	return sn.General && slices.Contains(c.OnDemand, sn.Image)
}

// mend says how a snapshot in error becomes usable.
func (c *Core) mend(sn engine.Snapshot) string {
	if sn.General {
		return "mend that, then run \"atoll snapshot prepare " + sn.Name + "\""
	}
	return "use another snapshot, or delete this one and create it again"
}

// awaitBuild has a snapshot's image built, or goes on waiting for that, and
// returns the snapshot once it is active. The build goes on when the caller's
// time is over, so that a later call finds it done.
func (c *Core) awaitBuild(ctx context.Context, ref engine.SnapshotRef, sn engine.Snapshot) (engine.Snapshot, error) {
	if err := c.build(ctx, sn); err != nil {
		return sn, err
	}
	end := time.NewTimer(buildWait)
	defer end.Stop()
	tick := time.NewTicker(buildLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sn, ctx.Err()
		case <-end.C:
			return sn, c.notReady(sn)
		case <-tick.C:
		}
		fresh, err := c.Store.Snapshot(ctx, ref)
		switch {
		case err != nil:
			return sn, err
		case fresh.State == engine.SnapshotActive:
			return fresh, nil
		case fresh.State == engine.SnapshotError:
			return fresh, engine.Errorf(engine.KindUnavailable, "snapshot %q cannot be built: %s", fresh.Name, fresh.Error).
				WithHint("%s", c.mend(fresh))
		}
	}
}

// buildOf is the key of an image's build among the changes under way. No id
// looks like it.
func buildOf(image string) string { return "image " + image }

// build begins to have the image ready of a snapshot of the server's own, with
// that of all others of the same image. It does nothing while that is under way.
func (c *Core) build(ctx context.Context, sn engine.Snapshot) error {
	ctx, end, err := c.ops.begin(ctx, buildOf(sn.Image), opPrepare, limitPull)
	if engine.KindOf(err) == engine.KindConflict {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := c.Store.AllSnapshots(ctx)
	if err != nil {
		end()
		return err
	}
	all = slices.DeleteFunc(all, func(s engine.Snapshot) bool { return !s.General || s.Disk != "" || s.Image != sn.Image })
	c.wg.Go(func() {
		defer end()
		if err := c.prepare(ctx, sn.Image, all); err != nil {
			c.Log.Warn("image not ready", "image", sn.Image, "error", err)
		}
	})
	return nil
}

// Prepare begins to build, or to renew, the image of a snapshot of the
// server's own. One that is active stays so meanwhile.
func (s snapshots) Prepare(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	sn, err := s.Snapshot(ctx, ref)
	if err != nil {
		return sn, err
	}
	if !sn.General {
		return sn, invalid("snapshot %q is not one of the server's own, so there is nothing to build", sn.Name)
	}
	if err := s.build(ctx, sn); err != nil {
		return sn, public(err)
	}
	return sn, nil
}
