package runner

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/toolbox/client"
)

// instance is one runtime instance on this host: a sandbox, or a member of the
// warm pool while rec.Sandbox is empty. Changes are serialised by the runner's
// lock of its sandbox; mu guards what readers may see meanwhile.
type instance struct {
	r  *Runner
	tb *client.Client
	tr *http.Transport

	mu         sync.Mutex
	rec        record
	failure    string // why, when the toolbox is lost
	busy       bool
	lastActive time.Time
	ooms       uint64
	lastOOM    time.Time
	evicting   bool // being stopped because the pool is full
}

func (r *Runner) newInstance(rec record) *instance {
	in := &instance{r: r, rec: rec, lastActive: time.Now()}
	in.tr = r.transport(in)
	in.tb = client.New(in.tr)
	return in
}

// recordPath is where the instance's record lives.
func (r *Runner) recordPath(id string) string {
	return filepath.Join(r.cfg.Home, "instances", id+".json")
}

// shareDir holds the instance's volatile directories. It is a file system of
// its own, because root inside may write to some of them.
func (r *Runner) shareDir(id string) string { return filepath.Join(r.cfg.RunDir, "i", id) }

// rootDir is where the instance's root file system is mounted.
func (r *Runner) rootDir(id string) string { return filepath.Join(r.shareDir(id), "root") }

// controlDir holds the toolbox's socket.
func (r *Runner) controlDir(id string) string { return filepath.Join(r.shareDir(id), "ctl") }

// etcDir holds the files that are mounted over the image's /etc.
func (r *Runner) etcDir(id string) string { return filepath.Join(r.shareDir(id), "etc") }

func (in *instance) save(sync bool) error {
	in.mu.Lock()
	rec := in.rec
	in.mu.Unlock()
	return rec.write(in.r.recordPath(rec.ID), sync)
}

func (in *instance) setPhase(p phase, sync bool) error {
	in.mu.Lock()
	in.rec.Phase = p
	in.mu.Unlock()
	return in.save(sync)
}

// ready marks the instance as whole. The record need not reach the disk at
// once: after a crash of the host nothing runs anyway.
func (in *instance) ready(recorded bool) error {
	if recorded {
		return in.setPhase(phaseStarted, false)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.rec.Phase = phaseStarted
	return nil
}

func (in *instance) handle() driver.Handle {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.rec.Handle
}

func (in *instance) state() engine.State {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stateLocked()
}

func (in *instance) stateLocked() engine.State {
	if in.failure != "" {
		return engine.StateError
	}
	switch in.rec.Phase {
	case phaseStarted:
		return engine.StateStarted
	case phaseStarting:
		return engine.StateStarting
	case phaseStopping:
		return engine.StateStopping
	case phaseRemoving:
		return engine.StateDestroying
	}
	return engine.StateStopped
}

// snapshot is the instance as the core may know it.
func (in *instance) snapshot() engine.Instance {
	in.mu.Lock()
	defer in.mu.Unlock()
	return engine.Instance{
		Sandbox: in.rec.Sandbox, Incarnation: in.rec.Launch.Incarnation,
		State: in.stateLocked(), Error: in.failure, Recoverable: in.failure != "",
		Resources: in.rec.Launch.Resources, LastActive: in.lastActive, Busy: in.busy,
	}
}

// refresh asks a running toolbox for its activity. An answer that does not
// come leaves what was known; the runtime tells us when a toolbox is lost.
func (in *instance) refresh(ctx context.Context) {
	if in.state() != engine.StateStarted {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := in.tb.Status(ctx)
	if err != nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.busy = st.Busy > 0
	// The toolbox is not trusted: a time in the future would stop the timers.
	if now := time.Now(); st.LastActivity.After(in.lastActive) {
		in.lastActive = st.LastActivity
		if in.lastActive.After(now) {
			in.lastActive = now
		}
	}
}

// dial connects to the instance's toolbox.
func (in *instance) dial(ctx context.Context) (net.Conn, error) {
	if s := in.state(); s != engine.StateStarted && s != engine.StateStarting {
		return nil, engine.Errorf(engine.KindConflict, "sandbox is %s, not started", s).WithHint("start it first")
	}
	d, ok := driver.As[driver.Dialer](in.r.cfg.Driver)
	if !ok {
		return nil, engine.Errorf(engine.KindUnsupported, "driver %s has no toolbox connection", in.r.cfg.Driver.Name())
	}
	conn, err := d.Dial(ctx, in.handle())
	if engine.KindOf(err) == engine.KindUnavailable {
		// The driver's words name the instance, which no caller knows.
		return nil, engine.Errorf(engine.KindUnavailable, "the toolbox of sandbox %s cannot be reached", in.name()).
			WithHint("try again; if it stays so, stop and start the sandbox").Wrap(err)
	}
	return conn, err
}

// name is what the sandbox's owner calls it.
func (in *instance) name() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return cmp.Or(in.rec.Launch.Name, in.rec.Sandbox, in.rec.ID)
}

// writeEtc writes the files that are mounted over the image's own. They lie in
// a directory of the host's, so nothing inside can turn them into links.
func (in *instance) writeEtc(name string) error {
	dir := in.r.etcDir(in.rec.ID)
	files := map[string]string{
		"hostname":    name + "\n",
		"hosts":       hostsFile(name, in.rec.Slot.Addr4),
		"resolv.conf": network.ResolvConf(in.rec.Slot),
	}
	for f, text := range files {
		path := filepath.Join(dir, f)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chown(path, int(in.rec.Slot.UIDBase), int(in.rec.Slot.UIDBase)); err != nil {
			return err
		}
	}
	return nil
}
