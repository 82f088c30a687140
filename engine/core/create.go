package core

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/scheduler"
	"github.com/atoll-sh/atoll/engine/store"
)

// Names of the changes that ops keeps apart.
const (
	opCreate  = "create"
	opStart   = "start"
	opStop    = "stop"
	opDelete  = "delete"
	opResize  = "resize"
	opUpdate  = "update"
	opSave    = "snapshot"
	opPrepare = "build"
	opFork    = "fork"
	opSettle  = "repair"
)

// keyLife is for how long an idempotency key gives the first answer.
const keyLife = 24 * time.Hour

type sandboxes struct{ *Core }

// Create makes a sandbox and answers when it is started. When it fails,
// nothing is left: no row, no instance, no name taken.
func (s sandboxes) Create(ctx context.Context, req engine.CreateSandbox) (engine.Sandbox, error) {
	watch := newStopwatch(s.Now)
	labels, err := labelled(engine.ScopeOf(ctx), req.Labels)
	req.Labels = labels
	if err := firstError(ctx.Err(), err, checkCreate(req), checkProxy(req.Network, s.OutboundProxies)); err != nil {
		return engine.Sandbox{}, public(err)
	}
	if req.IdempotencyKey == "" {
		sb, err := s.create(ctx, req, nil, watch)
		return sb, public(err)
	}
	sb, err := s.createOnce(ctx, req, watch)
	return sb, public(err)
}

// createOnce answers with the sandbox of the first call under the same key. A
// call that comes while the first is at work waits for it.
func (s sandboxes) createOnce(ctx context.Context, req engine.CreateSandbox, watch *stopwatch) (engine.Sandbox, error) {
	unlock, err := s.ops.keys.lock(ctx, req.OrganizationID+"\x00"+req.IdempotencyKey)
	if err != nil {
		return engine.Sandbox{}, err
	}
	defer unlock()
	print := fingerprint(req)
	known, err := s.Store.Idempotency(ctx, req.OrganizationID, req.IdempotencyKey, s.Now())
	switch engine.KindOf(err) {
	case "":
		return s.repeated(ctx, known, print)
	case engine.KindNotFound:
	default:
		return engine.Sandbox{}, err
	}
	key := &store.Idempotency{
		OrganizationID: req.OrganizationID, Key: req.IdempotencyKey,
		Fingerprint: print, ExpiresAt: s.Now().Add(keyLife),
	}
	return s.create(ctx, req, key, watch)
}

func (s sandboxes) repeated(ctx context.Context, known store.Idempotency, print string) (engine.Sandbox, error) {
	if known.Fingerprint != print {
		return engine.Sandbox{}, engine.Errorf(engine.KindConflict, "the idempotency key was used for another request").
			WithHint("use a new key for a new sandbox")
	}
	sb, err := s.Store.SandboxByID(ctx, known.Object)
	if err == nil {
		err = s.visible(ctx, &sb, engine.SandboxRef{IDOrName: known.Object})
	}
	if err != nil {
		return engine.Sandbox{}, err
	}
	return s.view(&sb), reachable(ctx, &sb)
}

func fingerprint(req engine.CreateSandbox) string {
	req.IdempotencyKey = ""
	b, err := json.Marshal(req) // maps are written in order
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// birth is a sandbox on its way to its first start.
type birth struct {
	row      store.Sandbox
	key      *store.Idempotency
	pull     string // image to have ready first
	disk     string // saved disk to clone
	only     string // the runner that has that disk
	snapshot string // id, to note its use
	cold     bool
	inserted bool
	tried    bool // a runner has been asked to launch it
	warm     bool
	watch    *stopwatch
}

func (s sandboxes) create(ctx context.Context, req engine.CreateSandbox, key *store.Idempotency, watch *stopwatch) (engine.Sandbox, error) {
	if err := s.active(ctx, req.OrganizationID); err != nil {
		return engine.Sandbox{}, err
	}
	b, err := s.conceive(ctx, req)
	if err != nil {
		return engine.Sandbox{}, err
	}
	b.key, b.watch = key, watch
	if key != nil {
		key.Object = b.row.ID
	}
	watch.stage("resolve")
	limit := limitCreate
	if b.pull != "" {
		limit += limitPull
	}
	ctx, end, err := s.ops.begin(ctx, b.row.ID, opCreate, limit)
	if err != nil {
		return engine.Sandbox{}, err
	}
	defer end()
	return s.bring(ctx, b)
}

// conceive fills a request from the snapshot or image and the defaults.
func (s sandboxes) conceive(ctx context.Context, req engine.CreateSandbox) (*birth, error) {
	b := &birth{cold: req.Cold}
	id, now := uuid.NewString(), s.Now().UTC()
	b.row = store.Sandbox{Sandbox: engine.Sandbox{
		ID: id, OrganizationID: req.OrganizationID, Name: cmp.Or(req.Name, id),
		Class: cmp.Or(req.Class, engine.ClassContainer), State: engine.StateCreating,
		Desired: engine.DesiredStarted, Incarnation: 1, Target: cmp.Or(req.Target, s.Target),
		User: req.User, Env: req.Env, Labels: req.Labels, Public: req.Public,
		Resources: req.Resources, Lifecycle: *s.Lifecycle, Network: req.Network.Settings(),
		CreatedAt: now, UpdatedAt: now, LastActive: now,
	}}
	if req.Lifecycle != nil {
		b.row.Lifecycle = *req.Lifecycle
	}
	ids, err := s.secretIDs(ctx, req.OrganizationID, req.Secrets)
	if err != nil {
		return nil, err
	}
	b.row.Secrets = ids
	if req.Image != "" {
		b.pull, b.row.Image = req.Image, req.Image
		b.row.Resources = merge(req.Resources, defaultResources)
		return b, s.govern(ctx, b, req, "")
	}
	sn, err := s.usable(ctx, engine.SnapshotRef{OrganizationID: req.OrganizationID, IDOrName: cmp.Or(req.Snapshot, s.DefaultSnapshot)})
	if err != nil {
		return nil, err
	}
	if err := b.from(sn); err != nil {
		return nil, err
	}
	return b, s.govern(ctx, b, req, inheritable(sn, req.OrganizationID))
}

// defaultResources are those of a sandbox or snapshot that is made from an
// image and says nothing else.
var defaultResources = engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}

// from fills what the request left open from the snapshot.
func (b *birth) from(sn engine.Snapshot) error {
	b.snapshot, b.disk, b.only = sn.ID, sn.Disk, sn.Runner
	row := &b.row
	row.Snapshot, row.Image, row.ImageDigest = sn.Name, sn.Image, sn.ImageDigest
	row.WorkDir, row.Entrypoint = sn.WorkDir, sn.Entrypoint
	row.User = cmp.Or(row.User, sn.User, defaultUser)
	row.Resources = merge(row.Resources, merge(sn.Resources, defaultResources))
	if len(sn.Env) > 0 {
		env := maps.Clone(sn.Env)
		maps.Copy(env, row.Env)
		row.Env = env
	}
	if sn.Disk != "" && row.Resources.DiskMiB < sn.Resources.DiskMiB {
		return invalid("disk %d MiB is less than the %d MiB of snapshot %q", row.Resources.DiskMiB, sn.Resources.DiskMiB, sn.Name).
			WithHint("leave disk out, or ask for at least as much")
	}
	return nil
}

const defaultUser = "daytona"

// merge takes r's fields and those of base where r says nothing.
func merge(r, base engine.Resources) engine.Resources {
	return engine.Resources{
		CPU: cmp.Or(r.CPU, base.CPU), MemoryMiB: cmp.Or(r.MemoryMiB, base.MemoryMiB),
		DiskMiB: cmp.Or(r.DiskMiB, base.DiskMiB), GPU: cmp.Or(r.GPU, base.GPU), PIDs: cmp.Or(r.PIDs, base.PIDs),
	}
}

// bring takes a sandbox from nothing to started, or back to nothing.
func (s sandboxes) bring(ctx context.Context, b *birth) (engine.Sandbox, error) {
	_, err := s.Scheduler.Try(ctx, b.request(), s.Cluster.Runners(ctx), func(ctx context.Context, runner string) error {
		return s.launchOn(ctx, b, runner)
	})
	if err == nil {
		err = s.move(ctx, &b.row, engine.StateStarted, func(row *store.Sandbox) { row.LastActive = s.Now().UTC() })
		b.watch.stage("record")
	}
	if err != nil {
		err = cause(ctx, err)
		s.abandon(ctx, &b.row, b.inserted, err)
		return engine.Sandbox{}, err
	}
	s.afterCreate(ctx, b)
	answer := s.view(&b.row)
	answer.Timing, answer.Warm = b.watch.stages, b.warm
	return answer, nil
}

func (b *birth) request() scheduler.Request {
	return scheduler.Request{Class: b.row.Class, Resources: b.row.Resources, Runner: b.only}
}

// launchOn tries one runner. What a runner that refused may have begun is
// removed before the next is tried.
func (s sandboxes) launchOn(ctx context.Context, b *birth, runner string) error {
	if b.tried {
		if err := s.Cluster.Client(b.row.Runner).Remove(ctx, b.row.ID); err != nil {
			s.Log.Warn("refused sandbox not removed", "sandbox", b.row.ID, "runner", b.row.Runner, "error", err)
		}
	}
	if err := s.record(ctx, b, runner); err != nil {
		return err
	}
	b.watch.stage("place")
	r := s.Cluster.Client(runner)
	if b.pull != "" {
		if err := s.pullFor(ctx, b, r); err != nil {
			return err
		}
		b.watch.stage("pull")
	}
	b.tried = true
	l, err := s.launch(ctx, &b.row)
	if err != nil {
		return err
	}
	l.Disk, l.Cold = b.disk, b.cold
	got, err := r.Launch(ctx, l)
	if err != nil {
		return err
	}
	b.warm = got.Warm
	b.watch.nested("launch", got.Timing)
	return nil
}

// record writes the row before anything exists on the runner.
func (s sandboxes) record(ctx context.Context, b *birth, runner string) error {
	if b.inserted && b.row.Runner == runner {
		return nil
	}
	if b.inserted {
		return s.write(ctx, &b.row, func(row *store.Sandbox) { row.Runner = runner })
	}
	b.row.Runner = runner
	end, err := s.withinPolicy(ctx, &b.row)
	if err != nil {
		return err
	}
	defer end()
	free, err := s.within(ctx, &b.row, b.row.Resources, true)
	if err != nil {
		return err
	}
	defer free()
	if err := s.Store.InsertSandbox(ctx, &b.row, b.key); err != nil {
		return err
	}
	b.inserted = true
	s.publish("sandbox.created", &b.row, "")
	return nil
}

// pullFor has the image ready of a sandbox that is made from an image.
func (s sandboxes) pullFor(ctx context.Context, b *birth, r engine.Runner) error {
	if err := s.move(ctx, &b.row, engine.StatePullingSnapshot, nil); err != nil {
		return err
	}
	s.images.RLock()
	defer s.images.RUnlock()
	req, err := s.withAccount(ctx, b.row.OrganizationID, engine.EnsureImage{Ref: b.pull})
	if err != nil {
		return err
	}
	img, err := r.EnsureImage(ctx, req)
	if err != nil {
		return err
	}
	return s.move(ctx, &b.row, engine.StateCreating, func(row *store.Sandbox) {
		row.Image, row.ImageDigest = cmp.Or(img.Ref, b.pull), img.Digest
		row.User, row.WorkDir = cmp.Or(row.User, img.User, "root"), cmp.Or(row.WorkDir, img.WorkDir)
	})
}

// launch is all that a runner needs of the row.
func (c *Core) launch(ctx context.Context, sb *store.Sandbox) (engine.Launch, error) {
	travels, err := c.travels(ctx, sb)
	if err != nil {
		return engine.Launch{}, err
	}
	f, err := c.forceOf(ctx, sb)
	if err != nil {
		return engine.Launch{}, err
	}
	return engine.Launch{
		Sandbox: sb.ID, Incarnation: sb.Incarnation, Name: sb.Name, Class: sb.Class,
		Snapshot: sb.Snapshot, Image: sb.Image, ImageDigest: sb.ImageDigest, User: sb.User, WorkDir: sb.WorkDir, Env: environment(sb),
		Entrypoint: sb.Entrypoint, Labels: sb.Labels, Resources: sb.Resources, Network: f.network, Rules: f.rules, Secrets: travels,
	}, nil
}

// abandon removes every trace of a sandbox whose create failed. What cannot
// be removed now stays as destroying, for reconcile to finish.
func (c *Core) abandon(ctx context.Context, sb *store.Sandbox, inserted bool, why error) {
	if !inserted {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitRemove)
	defer cancel()
	err := c.removeAll(ctx, sb)
	if err == nil {
		err = c.Store.DeleteSandbox(ctx, sb.ID)
	}
	if err == nil {
		sb.State = engine.StateDestroyed
		c.gone(sb)
		return
	}
	c.Log.Warn("failed create not removed yet", "sandbox", sb.ID, "cause", why, "error", err)
	err = c.move(ctx, sb, engine.StateDestroying, func(row *store.Sandbox) {
		row.Desired, row.Error = engine.DesiredDestroyed, engine.AsError(why).Message
	})
	if err != nil {
		c.Log.Error("state not written", "sandbox", sb.ID, "state", engine.StateDestroying, "error", err)
	}
}

// removeAll removes what the runner holds of the sandbox.
func (c *Core) removeAll(ctx context.Context, sb *store.Sandbox) error {
	if sb.Runner == "" {
		return nil
	}
	r := c.Cluster.Client(sb.Runner)
	if err := r.Remove(ctx, sb.ID); err != nil {
		return err
	}
	if sb.ForkDisk == "" {
		return nil
	}
	return r.DropDisk(ctx, sb.ForkDisk)
}

// afterCreate does what the caller need not wait for.
func (s sandboxes) afterCreate(ctx context.Context, b *birth) {
	if b.row.ForkDisk != "" {
		row := b.row
		s.later(ctx, "drop the disk of fork "+row.ID, limitRemove, func(ctx context.Context) error {
			return s.dropForkDisk(ctx, &row)
		})
	}
	if b.snapshot != "" && s.progress.firstUse(b.snapshot, s.Now()) {
		s.later(ctx, "note the use of snapshot "+b.snapshot, limitInspect, func(ctx context.Context) error {
			return s.Store.UseSnapshot(ctx, b.snapshot, s.Now())
		})
	}
}

func (c *Core) dropForkDisk(ctx context.Context, sb *store.Sandbox) error {
	if err := c.Cluster.Client(sb.Runner).DropDisk(ctx, sb.ForkDisk); err != nil {
		return err
	}
	return c.write(ctx, sb, func(row *store.Sandbox) { row.ForkDisk = "" })
}

// stopwatch measures the stages of a create or start.
type stopwatch struct {
	now         func() time.Time
	start, last time.Time
	stages      []engine.Stage
}

func newStopwatch(now func() time.Time) *stopwatch {
	t := now()
	return &stopwatch{now: now, start: t, last: t}
}

// stage ends a stage that began where the one before ended.
func (w *stopwatch) stage(name string) {
	t := w.now()
	w.stages = append(w.stages, engine.Stage{Name: name, Start: w.last.Sub(w.start), Took: t.Sub(w.last)})
	w.last = t
}

// nested ends a stage and puts the runner's own stages behind it, as name/x.
func (w *stopwatch) nested(name string, inner []engine.Stage) {
	began := w.last.Sub(w.start)
	w.stage(name)
	for _, st := range inner {
		w.stages = append(w.stages, engine.Stage{Name: name + "/" + st.Name, Start: began + st.Start, Took: st.Took})
	}
}
