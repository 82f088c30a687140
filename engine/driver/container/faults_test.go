package container

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// ownDaemon gives a rig a containerd of its own, which the test may kill.
func ownDaemon(t *testing.T) (*rig, *Supervisor) {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "own")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s := &Supervisor{
		Home: filepath.Join(dir, "home"), RunDir: filepath.Join(dir, "run"), ServerID: filepath.Base(dir),
		Binary: shared.supervisor.Binary, ShimDir: shared.supervisor.ShimDir,
	}
	address, err := s.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return newRig(t, func(c *Config) { c.Address = address }), s
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// shimPID finds the shim of an instance: the parent of its toolbox.
func shimPID(t *testing.T, d *Driver, h driver.Handle) int {
	t.Helper()
	s, err := d.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.PID), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no parent")
	return 0
}

// TestDaemonKilled kills containerd under a running instance: the instance is
// reachable all the time and manageable as soon as containerd is back.
func TestDaemonKilled(t *testing.T) {
	r, s := ownDaemon(t)
	h := r.start(t, nil)
	p := s.recorded()
	if p == nil {
		t.Fatal("no containerd recorded")
	}
	p.close()
	kill(t, p.pid)

	if _, out := r.exec(t, h, "/bin/echo", "still", "here"); out != "still here" {
		t.Errorf("got %q without containerd, want an answer", out)
	}
	if err := r.driver.Pause(t.Context(), h); err != nil {
		t.Errorf("pause without containerd: %v", err)
	}
	if err := r.driver.Resume(t.Context(), h); err != nil {
		t.Errorf("resume without containerd: %v", err)
	}
	d := r.reopen(t)
	if err := d.Recover(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if st, err := d.Inspect(t.Context(), h); err != nil || st.Phase != driver.PhaseRunning {
		t.Errorf("got %+v (%v), want running", st, err)
	}
	if err := d.Stop(t.Context(), h, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if p := s.recorded(); p == nil {
		t.Error("no containerd is recorded after its restart")
	} else {
		p.close()
	}
}

// TestDaemonAdopted lets a second server take over the first one's containerd.
func TestDaemonAdopted(t *testing.T) {
	r, s := ownDaemon(t)
	h := r.start(t, nil)
	before := s.recorded()
	before.close()
	s.Close()
	second := &Supervisor{Home: s.Home, RunDir: s.RunDir, ServerID: s.ServerID, Binary: s.Binary, ShimDir: s.ShimDir}
	if _, err := second.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	after := second.recorded()
	after.close()
	if before.pid != after.pid {
		t.Errorf("got containerd %d, want %d still", after.pid, before.pid)
	}
	if st, err := r.driver.Inspect(t.Context(), h); err != nil || st.Phase != driver.PhaseRunning {
		t.Errorf("got %+v (%v), want running", st, err)
	}
}

// TestExternalDaemon uses a containerd that somebody else runs.
func TestExternalDaemon(t *testing.T) {
	s := &Supervisor{External: shared.address}
	address, err := s.Start(t.Context())
	if err != nil || address != shared.address {
		t.Errorf("got %q (%v), want %q", address, err, shared.address)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s = &Supervisor{External: filepath.Join(shared.dir, "nobody.sock")}
	if _, err := s.Start(ctx); engine.KindOf(err) != engine.KindUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

// TestShimKilled kills the shim of a running instance.
func TestShimKilled(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	events, err := r.driver.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kill(t, shimPID(t, r.driver, h))
	select {
	case e := <-events:
		if e.Kind != driver.EventExit || e.ID != h.ID {
			t.Errorf("got %+v, want the exit of %s", e, h.ID)
		}
	case <-time.After(time.Minute):
		t.Fatal("got no event, want an exit")
	}
	s, err := r.driver.Inspect(t.Context(), h)
	if err != nil || s.Phase != driver.PhaseStopped || s.ExitCode != 137 {
		t.Errorf("got %+v (%v), want stopped with 137", s, err)
	}
	if err := r.driver.Start(t.Context(), h); err != nil {
		t.Errorf("start after the loss of the shim: %v", err)
	}
	kill(t, shimPID(t, r.driver, h))
	if err := r.driver.Remove(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if r.driver.cgroups.exists(r.driver.template.cgroupPath(h.ID)) {
		t.Error("the control group is left")
	}
}

// TestShimAndDaemonKilled loses both at once; nobody cleans up but us.
func TestShimAndDaemonKilled(t *testing.T) {
	r, s := ownDaemon(t)
	h := r.start(t, nil)
	p := s.recorded()
	p.close()
	shim := shimPID(t, r.driver, h)
	kill(t, p.pid)
	kill(t, shim)
	d := r.reopen(t)
	if err := d.Recover(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if st, err := d.Inspect(t.Context(), h); err != nil || st.Phase != driver.PhaseGone {
		t.Errorf("got %+v (%v), want gone", st, err)
	}
	if d.cgroups.exists(d.template.cgroupPath(h.ID)) {
		t.Error("the control group is left")
	}
}

// TestToolboxEnds checks what a start says when the toolbox does not stay.
func TestToolboxEnds(t *testing.T) {
	r := newRig(t, nil)
	h := r.create(t, func(s *driver.Spec) { s.Env = append(s.Env, "TEST_DIE=no room for the socket") })
	err := r.driver.Start(t.Context(), h)
	if engine.KindOf(err) != engine.KindUnavailable || !strings.Contains(err.Error(), "code 7") || !strings.Contains(err.Error(), "no room for the socket") {
		t.Errorf("got %v, want the exit code and the last words", err)
	}
	if s, _ := r.driver.Inspect(t.Context(), h); s.Phase != driver.PhaseStopped || s.ExitCode != 7 {
		t.Errorf("got %+v, want stopped with 7", s)
	}
	if task, err := r.driver.getTask(t.Context(), h.ID); task != nil || err != nil {
		t.Errorf("got task %v (%v), want none", task, err)
	}
}

// TestMissing names what a specification lacks.
func TestMissing(t *testing.T) {
	r := newRig(t, nil)
	for want, spoil := range map[string]func(*driver.Spec){
		"Toolbox":      func(s *driver.Spec) { s.Toolbox = filepath.Join(shared.dir, "no-such-file") },
		"RootFS":       func(s *driver.Spec) { s.RootFS = "relative" },
		"NetNS":        func(s *driver.Spec) { s.NetNS = "" },
		"Mounts /data": func(s *driver.Spec) { s.Mounts = []driver.Mount{{Source: "/no/such", Target: "/data"}} },
		"UIDBase":      func(s *driver.Spec) { s.UIDBase = 0 },
	} {
		spec := r.spec(t)
		spoil(&spec)
		_, err := r.driver.Create(t.Context(), spec)
		if engine.KindOf(err) != engine.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want invalid naming %s", err, want)
		}
		if exists(r.driver.dir(spec.ID)) {
			t.Errorf("%s: state is left behind", want)
		}
	}
}

// TestToolboxDeaf gives up a start whose toolbox never answers.
func TestToolboxDeaf(t *testing.T) {
	r := newRig(t, nil)
	h := r.create(t, func(s *driver.Spec) { s.Env = append(s.Env, "TEST_DEAF=1") })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := r.driver.Start(ctx, h); engine.KindOf(err) != engine.KindTimeout {
		t.Errorf("got %v, want a timeout", err)
	}
	if s, _ := r.driver.Inspect(t.Context(), h); s.Phase == driver.PhaseRunning {
		t.Errorf("got %+v, want an instance that does not run", s)
	}
}

// TestStubborn kills a toolbox that ignores the polite signal.
func TestStubborn(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, func(s *driver.Spec) { s.Env = append(s.Env, "TEST_STUBBORN=1") })
	since := time.Now()
	if err := r.driver.Stop(t.Context(), h, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(since); d < 100*time.Millisecond {
		t.Errorf("got a stop after %s, want the grace of 100ms to be kept", d)
	}
	if s, _ := r.driver.Inspect(t.Context(), h); s.ExitCode != 137 {
		t.Errorf("got %+v, want exit code 137", s)
	}
}

// TestExitCode passes the toolbox's own exit code on.
func TestExitCode(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	events, err := r.driver.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = r.post(t, h, "/exit?code=42", nil)
	if e := <-events; e.Exit != 42 || e.Kind != driver.EventExit {
		t.Errorf("got %+v, want exit code 42", e)
	}
	if s, _ := r.driver.Inspect(t.Context(), h); s.Phase != driver.PhaseStopped || s.ExitCode != 42 {
		t.Errorf("got %+v, want stopped with 42", s)
	}
}

// TestBurst starts many at once.
func TestBurst(t *testing.T) {
	r := newRig(t, nil)
	var wg sync.WaitGroup
	for range 12 {
		h := r.create(t, nil)
		wg.Go(func() {
			if err := r.driver.Start(t.Context(), h); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestForeignContainer leaves alone what another server made.
func TestForeignContainer(t *testing.T) {
	a, b := newRig(t, nil), newRig(t, nil)
	h := a.start(t, nil)
	if err := b.driver.Remove(t.Context(), h); engine.KindOf(err) != engine.KindDenied {
		t.Errorf("got %v, want denied", err)
	}
	if err := b.driver.Start(t.Context(), h); engine.KindOf(err) != engine.KindDenied {
		t.Errorf("got %v of another server's container, want denied", err)
	}
	if s, _ := a.driver.Inspect(t.Context(), h); s.Phase != driver.PhaseRunning {
		t.Errorf("got %+v, want running still", s)
	}
	if list, err := b.driver.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %v (%v), want an empty list", list, err)
	}
}
