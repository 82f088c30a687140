package core

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

type snapshots struct{ *Core }

// progress is what this process knows of snapshots beside their rows.
type progress struct {
	mu     sync.Mutex
	text   map[string]string    // by image, how far its build is
	used   map[string]time.Time // by id, last noted use
	recent map[engine.SnapshotRef]recentSnapshot
	// defaults are the snapshots that the server makes at its start.
	defaults map[engine.SnapshotRef]bool
}

type recentSnapshot struct {
	sn engine.Snapshot
	at time.Time
}

// ReportProgress tells how far the build of an image is, as "42 %". It is
// shown to those who ask for a snapshot of it too early.
func (c *Core) ReportProgress(image, text string) {
	c.progress.mu.Lock()
	defer c.progress.mu.Unlock()
	if c.progress.text == nil {
		c.progress.text = map[string]string{}
	}
	c.progress.text[image] = text
}

func (p *progress) of(image string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text[image]
}

// firstUse tells, at most every ten seconds, that a use is worth a write.
func (p *progress) firstUse(id string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.used[id]) < 10*time.Second {
		return false
	}
	if p.used == nil {
		p.used = map[string]time.Time{}
	}
	p.used[id] = now
	return true
}

func (p *progress) recall(ref engine.SnapshotRef, now time.Time) (engine.Snapshot, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.recent[ref]
	return r.sn, ok && now.Sub(r.at) < routeTTL
}

func (p *progress) remember(ref engine.SnapshotRef, sn engine.Snapshot, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recent == nil || len(p.recent) > 1000 {
		p.recent = map[engine.SnapshotRef]recentSnapshot{}
	}
	p.recent[ref] = recentSnapshot{sn, now}
}

func (p *progress) own(d engine.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.defaults == nil {
		p.defaults = map[engine.SnapshotRef]bool{}
	}
	p.defaults[engine.SnapshotRef{OrganizationID: d.OrganizationID, IDOrName: d.Name}] = true
}

func (p *progress) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent = nil
}

// usable returns a snapshot that sandboxes can be made from, or says why it
// is not.
func (c *Core) usable(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	if sn, ok := c.progress.recall(ref, c.Now()); ok {
		return sn, nil
	}
	sn, err := c.Store.Snapshot(ctx, ref)
	if err != nil {
		return sn, err
	}
	switch sn.State {
	case engine.SnapshotActive:
		c.progress.remember(ref, sn, c.Now())
		return sn, nil
	case engine.SnapshotError, engine.SnapshotBuildFailed:
		return sn, engine.Errorf(engine.KindUnavailable, "snapshot %q is in error: %s", sn.Name, sn.Error).
			WithHint("%s", c.mend(sn))
	case engine.SnapshotInactive:
		return sn, invalid("snapshot %q is inactive", sn.Name).WithHint("activate it, or use another snapshot")
	case engine.SnapshotRemoving:
		return sn, engine.Errorf(engine.KindConflict, "snapshot %q is %s", sn.Name, sn.State).WithHint("use another snapshot")
	}
	if c.onDemand(sn) {
		return c.awaitBuild(ctx, ref, sn)
	}
	return sn, c.notReady(sn)
}

func (c *Core) notReady(sn engine.Snapshot) error {
	what := "snapshot"
	if sn.General {
		what = "default snapshot"
	}
	far := ""
	if text := c.progress.of(sn.Image); text != "" {
		far = " (" + text + ")"
	}
	return engine.Errorf(engine.KindUnavailable, "%s %q is being built%s", what, sn.Name, far).
		WithHint("try again when it is active")
}

// Snapshot returns one snapshot.
func (s snapshots) Snapshot(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	if ref.IDOrName == "" {
		return engine.Snapshot{}, invalid("snapshot id or name is empty")
	}
	sn, err := s.Store.Snapshot(ctx, ref)
	if sn.State == engine.SnapshotBuilding || s.ops.busy(buildOf(sn.Image)) {
		sn.Progress = cmp.Or(s.progress.of(sn.Image), "building "+sn.Image)
	}
	return sn, public(err)
}

// List returns one page of the organization's and the general snapshots.
func (s snapshots) List(ctx context.Context, q engine.SnapshotQuery) (engine.SnapshotPage, error) {
	page, err := s.Store.ListSnapshots(ctx, q)
	return page, public(err)
}

// Create makes a snapshot of an image. When the pull fails, the error is
// returned and also kept in the snapshot, whose name may be used again.
func (s snapshots) Create(ctx context.Context, req engine.CreateSnapshot) (engine.Snapshot, error) {
	err := firstError(ctx.Err(), checkOrganization(req.OrganizationID), checkSnapshotName(req.Name),
		checkImage(req.Image, false), checkResources(req.Resources))
	if err != nil {
		return engine.Snapshot{}, public(err)
	}
	now := s.Now().UTC()
	sn := engine.Snapshot{
		ID: uuid.NewString(), OrganizationID: req.OrganizationID, Name: req.Name, State: engine.SnapshotPending,
		Image: req.Image, Entrypoint: req.Entrypoint, Resources: merge(req.Resources, defaultResources),
		CreatedAt: now, UpdatedAt: now,
	}
	ctx, end, err := s.ops.begin(ctx, sn.ID, opCreate, limitPull)
	if err != nil {
		return engine.Snapshot{}, err
	}
	defer end()
	if err := s.insertSnapshot(ctx, sn); err != nil {
		return engine.Snapshot{}, public(err)
	}
	ensure := engine.EnsureImage{Ref: req.Image, Username: req.Username, Password: req.Password}
	return sn, public(s.ready(ctx, &sn, engine.SnapshotPulling, ensure))
}

// insertSnapshot stores a new snapshot, in place of one of the same name
// whose pull failed.
func (s snapshots) insertSnapshot(ctx context.Context, sn engine.Snapshot) error {
	free, err := s.withinSnapshots(ctx, sn.OrganizationID)
	if err != nil {
		return err
	}
	defer free()
	old, err := s.Store.Snapshot(ctx, engine.SnapshotRef{OrganizationID: sn.OrganizationID, IDOrName: sn.Name})
	if err == nil && !old.General && old.State == engine.SnapshotError && old.Disk == "" {
		if err := s.Store.DeleteSnapshot(ctx, old.ID); err != nil {
			return err
		}
		s.publishSnapshot("snapshot.removed", old, string(old.State))
	}
	if err := s.Store.InsertSnapshot(ctx, sn); err != nil {
		return err
	}
	s.progress.forget()
	s.publishSnapshot("snapshot.created", sn, "")
	return nil
}

// setSnapshot writes a new state. The context may have ended, since the
// result of a long pull must not be lost.
func (c *Core) setSnapshot(ctx context.Context, sn *engine.Snapshot, state engine.SnapshotState, change func(*engine.Snapshot)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitInspect)
	defer cancel()
	old := sn.State
	next := *sn
	next.State, next.UpdatedAt, next.Error = state, c.Now().UTC(), ""
	if change != nil {
		change(&next)
	}
	defer c.progress.forget()
	if err := c.Store.UpdateSnapshot(ctx, next); err != nil {
		return err
	}
	*sn = next
	c.publishSnapshot("snapshot.state.updated", next, string(old))
	return nil
}

func (c *Core) publishSnapshot(kind string, sn engine.Snapshot, old string) {
	c.Cluster.Publish(engine.Event{
		Type: kind, OrganizationID: sn.OrganizationID, Time: c.Now().UTC(), Snapshot: &sn, Old: old, New: string(sn.State),
	})
}

// ready has the snapshot's image ready on every runner and makes the snapshot
// active, or writes the error. Meanwhile it is in the given state.
func (c *Core) ready(ctx context.Context, sn *engine.Snapshot, meanwhile engine.SnapshotState, req engine.EnsureImage) error {
	if err := c.setSnapshot(ctx, sn, meanwhile, nil); err != nil {
		return err
	}
	img, err := c.ensure(ctx, sn.OrganizationID, req)
	if err == nil {
		err = c.snapshotFits(ctx, sn.OrganizationID, img.SizeBytes)
	}
	if err != nil {
		werr := c.setSnapshot(ctx, sn, engine.SnapshotError, func(n *engine.Snapshot) { n.Error = engine.AsError(err).Message })
		return errors.Join(err, werr)
	}
	return c.setSnapshot(ctx, sn, engine.SnapshotActive, func(n *engine.Snapshot) { fromImage(n, img) })
}

func fromImage(sn *engine.Snapshot, img engine.Image) {
	sn.Image, sn.ImageDigest, sn.SizeBytes = cmp.Or(img.Ref, sn.Image), img.Digest, img.SizeBytes
	sn.User, sn.WorkDir = cmp.Or(sn.User, img.User, "root"), cmp.Or(sn.WorkDir, img.WorkDir)
}

// ensure has an image ready on every runner, with the organization's account
// at its registry. One runner is enough to go on with.
func (c *Core) ensure(ctx context.Context, organizationID string, req engine.EnsureImage) (engine.Image, error) {
	c.images.RLock()
	defer c.images.RUnlock()
	req, err := c.withAccount(ctx, organizationID, req)
	if err != nil {
		return engine.Image{}, err
	}
	runners := c.Cluster.Runners(ctx)
	if len(runners) == 0 {
		return engine.Image{}, engine.Errorf(engine.KindUnavailable, "no runner is connected").WithHint("wait until the server is ready")
	}
	var img engine.Image
	var failed []error
	for _, r := range runners {
		got, err := c.Cluster.Client(r.ID).EnsureImage(ctx, req)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		img = got
	}
	if len(failed) == len(runners) {
		return img, failed[0]
	}
	for _, err := range failed {
		c.Log.Warn("image not ready on every runner", "image", req.Ref, "error", err)
	}
	return img, nil
}

// Delete removes a snapshot. Sandboxes that were made from it go on, since
// their disks are independent copies.
func (s snapshots) Delete(ctx context.Context, ref engine.SnapshotRef) error {
	sn, err := s.Snapshot(ctx, ref)
	if err != nil {
		return err
	}
	if sn.General {
		return engine.Errorf(engine.KindDenied, "snapshot %q belongs to the server and cannot be deleted", sn.Name)
	}
	if _, err := s.ops.preempt(ctx, sn.ID); err != nil {
		return public(err)
	}
	ctx, end, err := s.ops.begin(ctx, sn.ID, opDelete, limitRemove)
	if err != nil {
		return err
	}
	defer end()
	return public(s.removeSnapshot(ctx, sn))
}

func (c *Core) removeSnapshot(ctx context.Context, sn engine.Snapshot) error {
	if err := c.setSnapshot(ctx, &sn, engine.SnapshotRemoving, nil); err != nil {
		if engine.KindOf(err) == engine.KindNotFound {
			return nil // somebody else removed it
		}
		return err
	}
	if sn.Disk != "" {
		if err := c.Cluster.Client(sn.Runner).DropDisk(ctx, sn.Disk); err != nil {
			return err // reconcile tries again
		}
	}
	if err := c.Store.DeleteSnapshot(ctx, sn.ID); err != nil {
		return err
	}
	c.progress.forget()
	c.publishSnapshot("snapshot.removed", sn, string(sn.State))
	c.warm.nudge()
	c.dropImage(ctx, sn.Image, sn.ImageDigest)
	return nil
}

// EnsureDefaults registers the server's own snapshots, usable by every
// organization. Those that exist keep their id and state unless their image
// changed. PrepareDefaults then has their images ready.
func (c *Core) EnsureDefaults(ctx context.Context, defaults []engine.Snapshot) error {
	for _, d := range defaults {
		d.General, d.OrganizationID = true, cmp.Or(d.OrganizationID, engine.DefaultOrganization)
		if err := c.ensureDefault(ctx, d); err != nil {
			return public(err)
		}
	}
	return nil
}

func (c *Core) ensureDefault(ctx context.Context, d engine.Snapshot) error {
	c.progress.own(d)
	now := c.Now().UTC()
	old, err := c.Store.Snapshot(ctx, engine.SnapshotRef{OrganizationID: d.OrganizationID, IDOrName: d.Name})
	switch {
	case engine.KindOf(err) == engine.KindNotFound:
		d.ID, d.State = cmp.Or(d.ID, uuid.NewString()), engine.SnapshotPending
		d.CreatedAt, d.UpdatedAt = now, now
		return c.Store.InsertSnapshot(ctx, d)
	case err != nil:
		return err
	case !old.General:
		return engine.Errorf(engine.KindConflict, "snapshot name %q, which the server needs, is taken", d.Name).
			WithHint("delete that snapshot")
	}
	state := old.State
	if old.Image != d.Image || state != engine.SnapshotActive {
		state = engine.SnapshotPending
	}
	return c.setSnapshot(ctx, &old, state, func(n *engine.Snapshot) {
		n.Image, n.Resources, n.Entrypoint = d.Image, d.Resources, d.Entrypoint
		n.User, n.WorkDir, n.Env = cmp.Or(d.User, n.User), cmp.Or(d.WorkDir, n.WorkDir), maps.Clone(d.Env)
	})
}

// PrepareDefaults builds or pulls the images of the server's own snapshots
// and makes them active, except those that are built on demand. It takes
// minutes the first time, so the server calls it beside its work;
// ReportProgress says how far it is.
func (c *Core) PrepareDefaults(ctx context.Context) error {
	all, err := c.Store.AllSnapshots(ctx)
	if err != nil {
		return public(err)
	}
	images := map[string][]engine.Snapshot{}
	for _, sn := range all {
		if sn.General && sn.Disk == "" && !slices.Contains(c.OnDemand, sn.Image) {
			images[sn.Image] = append(images[sn.Image], sn)
		}
	}
	var failed error
	for _, ref := range slices.Sorted(maps.Keys(images)) {
		failed = errors.Join(failed, c.prepare(ctx, ref, images[ref]))
	}
	return public(failed)
}

// prepare checks an image once for all its snapshots. Those that are active
// stay so meanwhile, because a restart finds the image where it was.
func (c *Core) prepare(ctx context.Context, ref string, of []engine.Snapshot) error {
	for i := range of {
		if of[i].State != engine.SnapshotActive {
			if err := c.setSnapshot(ctx, &of[i], engine.SnapshotBuilding, nil); err != nil {
				return err
			}
		}
	}
	img, err := c.ensure(ctx, of[0].OrganizationID, engine.EnsureImage{Ref: ref})
	for i := range of {
		var werr error
		switch {
		case err == nil:
			werr = c.setSnapshot(ctx, &of[i], engine.SnapshotActive, func(n *engine.Snapshot) { fromImage(n, img) })
		case ctx.Err() == nil:
			werr = c.setSnapshot(ctx, &of[i], engine.SnapshotError, func(n *engine.Snapshot) { n.Error = engine.AsError(err).Message })
		}
		if werr != nil {
			return werr
		}
	}
	return err
}
