package core

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// CatalogStore is what the catalog needs beside snapshots.
type CatalogStore interface {
	SnapshotByID(ctx context.Context, id string) (engine.Snapshot, error)
	ImageUses(ctx context.Context, image, digest string) (int, error)
}

type catalog struct{ *Core }

// Catalog is what may be made of snapshots.
func (c *Core) Catalog() engine.Catalog { return catalog{c} }

const (
	opActivate   = "activate"
	opDeactivate = "deactivate"
)

// own returns a snapshot that the organization may change, and holds it.
func (c catalog) own(ctx context.Context, ref engine.SnapshotRef, op string) (context.Context, engine.Snapshot, func(), error) {
	sn, err := snapshots(c).Snapshot(ctx, ref)
	if err != nil {
		return nil, sn, nil, err
	}
	if sn.General {
		return nil, sn, nil, engine.Errorf(engine.KindDenied, "snapshot %q belongs to the server", sn.Name)
	}
	ctx, end, err := c.ops.begin(ctx, sn.ID, op, limitPull)
	if err != nil {
		return nil, sn, nil, err
	}
	if sn, err = c.Store.SnapshotByID(ctx, sn.ID); err != nil { // it may have changed meanwhile
		end()
		return nil, sn, nil, err
	}
	return ctx, sn, end, nil
}

// Activate has the image ready again and the snapshot usable. The reference is
// asked for anew, so a tag that has moved on gives what it names now. When the
// pull fails the snapshot stays as it was.
func (c catalog) Activate(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	ctx, sn, end, err := c.own(ctx, ref, opActivate)
	if err != nil {
		return engine.Snapshot{}, public(err)
	}
	defer end()
	switch sn.State {
	case engine.SnapshotActive:
		return sn, nil
	case engine.SnapshotInactive, engine.SnapshotError:
	default:
		return engine.Snapshot{}, invalid("snapshot %q is %s; activate needs it inactive", sn.Name, sn.State)
	}
	if sn.Disk != "" { // its image has stayed
		err = c.setSnapshot(ctx, &sn, engine.SnapshotActive, nil)
		return sn, public(err)
	}
	before := sn
	if err := c.setSnapshot(ctx, &sn, engine.SnapshotPulling, nil); err != nil {
		return engine.Snapshot{}, public(err)
	}
	img, err := c.ensure(ctx, sn.OrganizationID, engine.EnsureImage{Ref: sn.Image})
	if err != nil {
		werr := c.setSnapshot(ctx, &sn, before.State, func(n *engine.Snapshot) { n.Error = before.Error })
		if werr != nil {
			c.Log.Error("state not written", "snapshot", sn.ID, "state", before.State, "error", werr)
		}
		return engine.Snapshot{}, public(err)
	}
	err = c.setSnapshot(ctx, &sn, engine.SnapshotActive, func(n *engine.Snapshot) { fromImage(n, img) })
	return sn, public(err)
}

// Deactivate refuses creates from the snapshot. Sandboxes that were made from
// it go on.
func (c catalog) Deactivate(ctx context.Context, ref engine.SnapshotRef) error {
	ctx, sn, end, err := c.own(ctx, ref, opDeactivate)
	if err != nil {
		return public(err)
	}
	defer end()
	switch sn.State {
	case engine.SnapshotInactive:
		return nil
	case engine.SnapshotActive:
	default:
		return invalid("snapshot %q is %s; deactivate needs it active", sn.Name, sn.State)
	}
	if err := c.setSnapshot(ctx, &sn, engine.SnapshotInactive, nil); err != nil {
		return public(err)
	}
	c.warm.nudge()
	if sn.Disk == "" {
		c.dropImage(ctx, sn.Image, sn.ImageDigest)
	}
	return nil
}

// SetGeneral shares a snapshot with every organization, or takes it back.
func (c catalog) SetGeneral(ctx context.Context, ref engine.SnapshotRef, general bool) (engine.Snapshot, error) {
	sn, err := c.Store.SnapshotByID(ctx, ref.IDOrName)
	if engine.KindOf(err) == engine.KindNotFound {
		sn, err = c.Store.Snapshot(ctx, ref)
	}
	if err != nil {
		return engine.Snapshot{}, public(err)
	}
	if sn.General == general {
		return sn, nil
	}
	if !general && c.isDefault(sn) {
		return engine.Snapshot{}, engine.Errorf(engine.KindDenied, "snapshot %q is one of the server's own", sn.Name)
	}
	ctx, end, err := c.ops.begin(ctx, sn.ID, opUpdate, limitInspect)
	if err != nil {
		return engine.Snapshot{}, err
	}
	defer end()
	err = c.setSnapshot(ctx, &sn, sn.State, func(n *engine.Snapshot) { n.General, n.Error = general, sn.Error })
	return sn, public(err)
}

// isDefault tells whether the server makes the snapshot at its start.
func (c *Core) isDefault(sn engine.Snapshot) bool {
	c.progress.mu.Lock()
	defer c.progress.mu.Unlock()
	return c.progress.defaults[engine.SnapshotRef{OrganizationID: sn.OrganizationID, IDOrName: sn.Name}]
}

// ImageUnused tells whether no snapshot and no sandbox needs an image.
func (c catalog) ImageUnused(ctx context.Context, image string) (bool, error) {
	if err := checkImage(image, false); err != nil {
		return false, err
	}
	n, err := c.Store.ImageUses(ctx, image, "")
	return n == 0, public(err)
}

// dropImage takes an image off every runner when nothing needs it any more. It
// is housekeeping: what does not work now is tried again by DropImages. No
// image is being made ready meanwhile, since one may share its content.
func (c *Core) dropImage(ctx context.Context, ref, digest string) {
	if ref == "" || strings.HasPrefix(ref, "atoll:") {
		return
	}
	img := pinned{ref, digest}
	if !c.images.TryLock() {
		c.unneeded.add(img)
		return
	}
	defer c.images.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitRemove)
	defer cancel()
	n, err := c.Store.ImageUses(ctx, ref, digest)
	if err != nil {
		c.Log.Warn("uses of an image not counted", "image", ref, "error", err)
		c.unneeded.add(img)
		return
	}
	if n > 0 {
		return
	}
	c.applyPools(ctx) // members of the pool stand on it too
	for _, r := range c.Cluster.Runners(ctx) {
		if err := c.Cluster.Client(r.ID).DropImage(ctx, engine.Image{Ref: ref, Digest: digest}); err != nil {
			c.Log.Warn("unused image not dropped", "image", ref, "runner", r.ID, "error", err)
			c.unneeded.add(img)
		}
	}
}

// DropImages tries again to drop the images that could not be dropped before,
// because another one was being made ready or a runner did not answer.
func (c *Core) DropImages(ctx context.Context) {
	for _, img := range c.unneeded.take() {
		c.dropImage(ctx, img.ref, img.digest)
	}
}

// pinned names an image; without a digest, whatever the reference leads to.
type pinned struct{ ref, digest string }

// unneeded is the images that are still to be dropped. A restart forgets them,
// which leaves an image behind, no more.
type unneeded struct {
	mu  sync.Mutex
	all map[pinned]bool
}

func (u *unneeded) add(img pinned) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[pinned]bool{}
	}
	u.all[img] = true
}

func (u *unneeded) take() []pinned {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := slices.Collect(maps.Keys(u.all))
	u.all = nil
	return all
}

// dropImageOf does so for a sandbox that is gone and whose snapshot is too.
func (c *Core) dropImageOf(ctx context.Context, sb *store.Sandbox) {
	if sb.Snapshot == "" {
		return // made from an image, which stays for the next
	}
	row := *sb
	c.later(ctx, "drop the image of sandbox "+row.ID, limitRemove, func(ctx context.Context) error {
		sn, err := c.Store.Snapshot(ctx, engine.SnapshotRef{OrganizationID: row.OrganizationID, IDOrName: row.Snapshot})
		switch {
		case engine.KindOf(err) == engine.KindNotFound, err == nil && sn.State == engine.SnapshotInactive:
			c.dropImage(ctx, row.Image, row.ImageDigest)
			return nil
		}
		return err
	})
}
