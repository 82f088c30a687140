package runner

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/image"
	"github.com/atoll-sh/atoll/engine/storage"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// makeTimeout bounds the making of one instance, and undoTimeout its undoing,
// whatever the caller does meanwhile.
const (
	makeTimeout = 60 * time.Second
	undoTimeout = 60 * time.Second
)

// Launch implements engine.Runner. It claims a warm member when one fits, and
// makes an instance otherwise. On error nothing is left behind.
func (r *Runner) Launch(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	defer r.lock(l.Sandbox)()
	if in, err := r.find(l.Sandbox); err == nil {
		return r.known(in, l.Incarnation)
	}
	sw := newStopwatch()
	if !l.Cold {
		if in := r.pool.take(l); in != nil {
			sw.mark("pool")
			if err := r.claim(ctx, in, l, sw); err == nil {
				return engine.Launched{Instance: in.snapshot(), Warm: true, Timing: sw.stages}, nil
			} else if ctx.Err() != nil {
				return engine.Launched{}, err
			} else {
				r.log.Warn("claim of a warm member", "sandbox", l.Sandbox, "instance", in.rec.ID, "err", err)
			}
		}
	}
	r.pool.missed(keyOf(l))
	in, err := r.make(ctx, l, sw)
	if err != nil {
		return engine.Launched{}, err
	}
	return engine.Launched{Instance: in.snapshot(), Timing: sw.stages}, nil
}

// known answers a repeated Launch or Start.
func (r *Runner) known(in *instance, incarnation uint64) (engine.Launched, error) {
	have := in.snapshot()
	switch {
	case have.Incarnation > incarnation:
		return engine.Launched{}, engine.Errorf(engine.KindConflict, "sandbox %s is at incarnation %d, the call is for %d", have.Sandbox, have.Incarnation, incarnation)
	case have.State != engine.StateStarted:
		return engine.Launched{}, engine.Errorf(engine.KindConflict, "sandbox %s exists and is %s", have.Sandbox, have.State)
	}
	return engine.Launched{Instance: have}, nil
}

// make creates and starts an instance for l from nothing.
func (r *Runner) make(ctx context.Context, l engine.Launch, sw *stopwatch) (*instance, error) {
	select {
	case r.cold <- struct{}{}:
		defer func() { <-r.cold }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	sw.mark("queue")
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	in := r.newInstance(record{Version: recordVersion, ID: newID(), Sandbox: l.Sandbox, Phase: phaseStarting, Boot: bootID(), Launch: l})
	defer r.startMaking(in.rec.ID)()
	done, err := r.useImage(l.Image)
	if err != nil {
		return nil, err
	}
	defer done()
	err = r.makeDisk(ctx, in, sw)
	if err == nil {
		err = r.bringUp(ctx, in, sw)
	}
	if err == nil {
		err = in.ready(l.Sandbox != "")
	}
	if err != nil {
		r.undo(ctx, in)
		return nil, err
	}
	r.add(in)
	return in, nil
}

// startMaking keeps the sweep for orphans away from an instance until the
// returned function is called.
func (r *Runner) startMaking(id string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.making[id] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.making, id)
	}
}

func (r *Runner) makeDisk(ctx context.Context, in *instance, sw *stopwatch) error {
	l, err := in.rec.Launch, error(nil)
	if size := l.Resources.DiskMiB << 20; l.Disk != "" {
		_, err = r.cfg.Disks.Clone(ctx, in.rec.ID, l.Disk, size)
	} else {
		_, err = r.cfg.Disks.Create(ctx, in.rec.ID, size)
	}
	sw.mark("disk")
	r.cfg.Checkpoint("disk")
	return err
}

// bringUp starts an instance whose disk exists: network, root file system,
// runtime, toolbox.
func (r *Runner) bringUp(ctx context.Context, in *instance, sw *stopwatch) error {
	l := in.rec.Launch
	img, err := r.image(ctx, in)
	if err != nil {
		return err
	}
	sw.mark("image")
	slot, err := r.cfg.Networks.Acquire(ctx)
	if err != nil {
		return err
	}
	in.mu.Lock()
	in.rec.Slot = slot
	in.mu.Unlock()
	sw.mark("network")
	r.cfg.Checkpoint("network")
	if err := r.prepare(ctx, in, img); err != nil {
		return err
	}
	sw.mark("create")
	r.cfg.Checkpoint("create")
	// The policy stands before the first process. The record is on disk before
	// anybody is answered; an instance that a crash leaves without one is an
	// orphan, which the next start removes.
	saved := make(chan error, 1)
	trust, err := r.seal(in, l)
	if err != nil {
		return err
	}
	if l.Sandbox == "" {
		saved <- nil
	} else {
		if err := r.cfg.Networks.Apply(ctx, slot, l.Network); err != nil {
			return err
		}
		go func() { saved <- in.save(true) }()
	}
	r.traceBegin(ctx, in)
	err = r.cfg.Driver.Start(ctx, in.handle())
	if serr := <-saved; err == nil {
		err = serr
	}
	if err != nil {
		return err
	}
	r.traceStarted(ctx, in)
	sw.mark("start")
	r.cfg.Checkpoint("start")
	if l.Sandbox != "" {
		// Nothing of the sandbox's ran yet, and what the runtime did to set it up
		// is not what rules are about.
		if err := r.confine(ctx, in, l.Rules); err != nil {
			return err
		}
		err = in.tb.SetIdentity(ctx, identity(l, trust))
		sw.mark("identity")
		r.cfg.Checkpoint("identity")
	}
	return err
}

// image finds the layers that the instance was made with. A tag may move on;
// the layers below an existing disk may not.
func (r *Runner) image(ctx context.Context, in *instance) (image.Unpacked, error) {
	ref := in.rec.Image
	if ref == "" {
		ref = image.Pin(engine.Image{Ref: in.rec.Launch.Image, Digest: in.rec.Launch.ImageDigest})
	}
	img, err := r.cfg.Images.Image(ctx, ref)
	if err == nil {
		in.rec.Image = image.Pin(img.Image)
	}
	return img, err
}

// prepare mounts the root and makes the instance, side by side: the runtime
// looks at the root only when it starts.
func (r *Runner) prepare(ctx context.Context, in *instance, img image.Unpacked) error {
	if err := r.makeDirs(ctx, in); err != nil {
		return err
	}
	mounted := make(chan error, 1)
	go func() { mounted <- r.mountRoot(ctx, in, img.Lowers) }()
	h, err := r.cfg.Driver.Create(ctx, r.spec(in, img.Env))
	if merr := <-mounted; merr != nil {
		err = errors.Join(merr, err)
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	in.rec.Handle = h
	in.mu.Unlock()
	return nil
}

// makeDirs makes the instance's volatile directories and the small files that
// are mounted over the image's own.
func (r *Runner) makeDirs(ctx context.Context, in *instance) error {
	id := in.rec.ID
	if err := r.cfg.Roots.Share(ctx, r.shareDir(id)); err != nil {
		return err
	}
	for _, dir := range []string{r.rootDir(id), r.etcDir(id), r.controlDir(id)} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	share, ctl, base := r.shareDir(id), r.controlDir(id), int(in.rec.Slot.UIDBase)
	return errors.Join(
		// Root inside has to get through to its root file system; the host's
		// other users must not.
		os.Chown(share, 0, base), os.Chmod(share, 0o710),
		os.Chmod(ctl, 0o700), os.Chown(ctl, base, base), in.writeEtc(hostname(in.rec.Launch)))
}

func (r *Runner) mountRoot(ctx context.Context, in *instance, lowers []string) error {
	id := in.rec.ID
	disk, err := r.cfg.Disks.Mount(ctx, id)
	if err != nil {
		return err
	}
	return r.cfg.Roots.Mount(ctx, storage.Root{
		ID: id, Target: r.rootDir(id), Lowers: lowers, Disk: disk, UIDBase: in.rec.Slot.UIDBase,
	})
}

func (r *Runner) spec(in *instance, env []string) driver.Spec {
	l, id := in.rec.Launch, in.rec.ID
	etc := r.etcDir(id)
	return driver.Spec{
		ID: id, Sandbox: l.Sandbox, Hostname: hostname(l), RootFS: r.rootDir(id), Image: l.Image,
		NetNS: in.rec.Slot.NetNS, UIDBase: in.rec.Slot.UIDBase, Toolbox: r.cfg.Toolbox,
		ControlDir: r.controlDir(id), Env: env, User: l.User, WorkDir: l.WorkDir,
		Resources: l.Resources, Labels: l.Labels,
		Mounts: []driver.Mount{
			{Source: filepath.Join(etc, "resolv.conf"), Target: "/etc/resolv.conf"},
			{Source: filepath.Join(etc, "hosts"), Target: "/etc/hosts"},
			{Source: filepath.Join(etc, "hostname"), Target: "/etc/hostname"},
		},
	}
}

// identity is what a toolbox learns when its sandbox gets a name.
func identity(l engine.Launch, t wire.Trust) wire.Identity {
	return wire.Identity{
		SandboxID: l.Sandbox, Hostname: hostname(l), Env: l.Env,
		User: l.User, WorkDir: l.WorkDir, Entrypoint: l.Entrypoint, Trust: t,
	}
}

// hostname is the sandbox's name cut to what the kernel takes.
func hostname(l engine.Launch) string {
	name := l.Name
	if name == "" {
		name = "sandbox"
	}
	return name[:min(len(name), 63)]
}

// undo removes every trace of an instance that did not come to be.
func (r *Runner) undo(ctx context.Context, in *instance) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := r.erase(ctx, in); err != nil {
		r.log.Error("undo of a create; the next start of the server tries again", "instance", in.rec.ID, "err", err)
	}
}

// unmake takes everything away but the disk and the record.
func (r *Runner) unmake(ctx context.Context, in *instance) error {
	in.tr.CloseIdleConnections()
	id := in.rec.ID
	h := in.handle()
	if h.ID == "" { // nothing was recorded; the id alone finds what is there
		h = driver.Handle{Version: 1, Driver: r.cfg.Driver.Name(), ID: id, Data: json.RawMessage("{}")}
	}
	err := r.cfg.Driver.Remove(ctx, h)
	if err != nil {
		return err // the mounts below are in use
	}
	r.traceEnd(in)
	if err := r.release(ctx, h); err != nil {
		return err
	}
	if err := r.cfg.Roots.Unmount(ctx, r.rootDir(id)); err != nil {
		return err
	}
	if err := r.cfg.Disks.Unmount(ctx, id); err != nil {
		return err
	}
	if err := r.cfg.Roots.Unshare(ctx, r.shareDir(id)); err != nil {
		return err
	}
	if in.rec.Slot.NetNS != "" {
		err = r.cfg.Networks.Release(ctx, in.rec.Slot)
		in.mu.Lock()
		in.rec.Slot.NetNS = ""
		in.mu.Unlock()
	}
	return errors.Join(err, os.RemoveAll(r.shareDir(id)))
}

// erase takes everything away, the record last.
func (r *Runner) erase(ctx context.Context, in *instance) error {
	if err := r.unmake(ctx, in); err != nil {
		return err
	}
	r.cfg.Checkpoint("unmade")
	if err := r.cfg.Disks.Remove(ctx, in.rec.ID); err != nil {
		return err
	}
	r.cfg.Checkpoint("disk-removed")
	if err := os.Remove(r.recordPath(in.rec.ID)); err != nil && !os.IsNotExist(err) {
		return err
	}
	r.forget(in)
	return nil
}

// newID makes an instance id, which is also the container's id.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "a-" + hex.EncodeToString(b[:])
}

// stopwatch collects the waterfall of one launch.
type stopwatch struct {
	begin, last time.Time
	stages      []engine.Stage
}

func newStopwatch() *stopwatch { now := time.Now(); return &stopwatch{begin: now, last: now} }

func (s *stopwatch) mark(name string) {
	now := time.Now()
	s.stages = append(s.stages, engine.Stage{Name: name, Start: s.last.Sub(s.begin), Took: now.Sub(s.last)})
	s.last = now
}
