// Package drivertest is the suite that every driver passes. A driver's own test
// is a call of Run with a function that opens it.
package drivertest

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Fixture is a driver under test and what it works on.
type Fixture struct {
	Driver driver.Driver
	// Reopen closes Driver and opens another on the same state, as after a
	// restart of the server.
	Reopen func(t *testing.T) driver.Driver
	// Spec makes a specification with all that a runner prepares. Each call
	// makes another instance.
	Spec func(t *testing.T) driver.Spec
	// Crash ends the toolbox from outside.
	Crash func(t *testing.T, h driver.Handle)
}

// Run runs the suite. open is called once for each case.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	cases := []struct {
		name string
		test func(t *testing.T, f *Fixture)
	}{
		{"Probe", testProbe},
		{"Lifecycle", testLifecycle},
		{"CreateTwice", testCreateTwice},
		{"StartTwice", testStartTwice},
		{"StopTwice", testStopTwice},
		{"RestartAfterStop", testRestart},
		{"RemoveTwice", testRemoveTwice},
		{"RemoveRunning", testRemoveRunning},
		{"Unknown", testUnknown},
		{"BadSpec", testBadSpec},
		{"CanceledStart", testCanceledStart},
		{"Crash", testCrash},
		{"Recover", testRecover},
		{"RecoverStopped", testRecoverStopped},
		{"Dialer", testDialer},
		{"Pauser", testPauser},
		{"StopPaused", testStopPaused},
		{"Resizer", testResizer},
		{"Renamer", testRenamer},
		{"Sampler", testSampler},
		{"Watcher", testWatcher},
		{"Lister", testLister},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			c.test(t, &f)
		})
	}
}

func testProbe(t *testing.T, f *Fixture) {
	if f.Driver.Name() == "" {
		t.Error("the driver has no name")
	}
	caps, err := f.Driver.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !caps.Available {
		t.Errorf("got not available: %s, want a driver that works here", caps.Reason)
	}
}

func testLifecycle(t *testing.T, f *Fixture) {
	d, h := f.Driver, create(t, f)
	wantPhase(t, d, h, driver.PhaseCreated)
	must(t, d.Start(t.Context(), h))
	s := wantPhase(t, d, h, driver.PhaseRunning)
	if s.PID <= 0 {
		t.Errorf("got pid %d, want that of the toolbox", s.PID)
	}
	must(t, d.Stop(t.Context(), h, time.Second))
	s = wantPhase(t, d, h, driver.PhaseStopped)
	if s.PID != 0 || s.ExitedAt.IsZero() {
		t.Errorf("got pid %d and exit at %v, want 0 and a time", s.PID, s.ExitedAt)
	}
	must(t, d.Remove(t.Context(), h))
	wantPhase(t, d, h, driver.PhaseGone)
}

func testCreateTwice(t *testing.T, f *Fixture) {
	spec := f.Spec(t)
	first, err := f.Driver.Create(t.Context(), spec)
	must(t, err)
	t.Cleanup(func() { remove(t, f, first) })
	second, err := f.Driver.Create(t.Context(), spec)
	must(t, err)
	if first.ID != second.ID || first.ID != spec.ID {
		t.Errorf("got ids %s and %s, want %s twice", first.ID, second.ID, spec.ID)
	}
	must(t, f.Driver.Start(t.Context(), second))
	_, err = f.Driver.Create(t.Context(), spec)
	must(t, err)
	wantPhase(t, f.Driver, first, driver.PhaseRunning)
}

func testStartTwice(t *testing.T, f *Fixture) {
	h := started(t, f)
	before := wantPhase(t, f.Driver, h, driver.PhaseRunning)
	must(t, f.Driver.Start(t.Context(), h))
	after := wantPhase(t, f.Driver, h, driver.PhaseRunning)
	if before.PID != after.PID {
		t.Errorf("got pid %d after the second start, want %d still", after.PID, before.PID)
	}
}

func testStopTwice(t *testing.T, f *Fixture) {
	h := create(t, f)
	must(t, f.Driver.Stop(t.Context(), h, 0))
	must(t, f.Driver.Start(t.Context(), h))
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	wantPhase(t, f.Driver, h, driver.PhaseStopped)
}

func testRestart(t *testing.T, f *Fixture) {
	h := started(t, f)
	for range 2 {
		must(t, f.Driver.Stop(t.Context(), h, time.Second))
		must(t, f.Driver.Start(t.Context(), h))
		wantPhase(t, f.Driver, h, driver.PhaseRunning)
	}
}

func testRemoveTwice(t *testing.T, f *Fixture) {
	h := create(t, f)
	must(t, f.Driver.Remove(t.Context(), h))
	must(t, f.Driver.Remove(t.Context(), h))
}

func testRemoveRunning(t *testing.T, f *Fixture) {
	h := started(t, f)
	must(t, f.Driver.Remove(t.Context(), h))
	wantPhase(t, f.Driver, h, driver.PhaseGone)
	wantKind(t, f.Driver.Start(t.Context(), h), engine.KindNotFound)
}

func testUnknown(t *testing.T, f *Fixture) {
	h := create(t, f)
	must(t, f.Driver.Remove(t.Context(), h))
	wantKind(t, f.Driver.Start(t.Context(), h), engine.KindNotFound)
	wantKind(t, f.Driver.Stop(t.Context(), h, 0), engine.KindNotFound)
	wantKind(t, f.Driver.Recover(t.Context(), h), engine.KindNotFound)
	wantPhase(t, f.Driver, h, driver.PhaseGone)
	if p, ok := driver.As[driver.Pauser](f.Driver); ok {
		wantKind(t, p.Pause(t.Context(), h), engine.KindNotFound)
	}
	h.Driver = "another"
	wantKind(t, f.Driver.Start(t.Context(), h), engine.KindInvalid)
}

func testBadSpec(t *testing.T, f *Fixture) {
	spec := f.Spec(t)
	spec.ID = "../escape"
	_, err := f.Driver.Create(t.Context(), spec)
	wantKind(t, err, engine.KindInvalid)
}

// testCanceledStart checks that a start given up by its caller can be repeated.
func testCanceledStart(t *testing.T, f *Fixture) {
	h := create(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.Driver.Start(ctx, h); err != nil {
		if k := engine.KindOf(err); k != engine.KindTimeout && k != engine.KindCanceled {
			t.Errorf("got %s (%v), want timeout or canceled", k, err)
		}
	}
	must(t, f.Driver.Start(t.Context(), h))
	wantPhase(t, f.Driver, h, driver.PhaseRunning)
}

func testCrash(t *testing.T, f *Fixture) {
	h := started(t, f)
	f.Crash(t, h)
	s := awaitPhase(t, f.Driver, h, driver.PhaseStopped)
	if s.ExitCode == 0 {
		t.Errorf("got exit code 0, want that of a crash")
	}
	must(t, f.Driver.Start(t.Context(), h))
	if s := wantPhase(t, f.Driver, h, driver.PhaseRunning); s.ExitCode != 0 {
		t.Errorf("got exit code %d after the new start, want 0", s.ExitCode)
	}
}

func testRecover(t *testing.T, f *Fixture) {
	h := started(t, f)
	before := wantPhase(t, f.Driver, h, driver.PhaseRunning)
	d := reopen(t, f)
	must(t, d.Recover(t.Context(), h))
	after := wantPhase(t, d, h, driver.PhaseRunning)
	if before.PID != after.PID {
		t.Errorf("got pid %d after recovery, want %d still", after.PID, before.PID)
	}
	must(t, d.Stop(t.Context(), h, time.Second))
	must(t, d.Remove(t.Context(), h))
}

func testRecoverStopped(t *testing.T, f *Fixture) {
	h := started(t, f)
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	d := reopen(t, f)
	must(t, d.Recover(t.Context(), h))
	wantPhase(t, d, h, driver.PhaseStopped)
	must(t, d.Start(t.Context(), h))
	must(t, d.Remove(t.Context(), h))
}

func testDialer(t *testing.T, f *Fixture) {
	dialer := ability[driver.Dialer](t, f)
	h := started(t, f)
	conn, err := dialer.Dial(t.Context(), h)
	must(t, err)
	defer conn.Close()
	wantStatusAnswer(t, conn)
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	if conn, err := dialer.Dial(t.Context(), h); err == nil {
		conn.Close()
		t.Error("got a connection to a stopped instance, want an error")
	}
}

func testPauser(t *testing.T, f *Fixture) {
	p := ability[driver.Pauser](t, f)
	h := started(t, f)
	for range 2 {
		must(t, p.Pause(t.Context(), h))
		wantPhase(t, f.Driver, h, driver.PhasePaused)
	}
	for range 2 {
		must(t, p.Resume(t.Context(), h))
		wantPhase(t, f.Driver, h, driver.PhaseRunning)
	}
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	wantKind(t, p.Pause(t.Context(), h), engine.KindConflict)
}

func testStopPaused(t *testing.T, f *Fixture) {
	p := ability[driver.Pauser](t, f)
	h := started(t, f)
	must(t, p.Pause(t.Context(), h))
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	wantPhase(t, f.Driver, h, driver.PhaseStopped)
	must(t, f.Driver.Start(t.Context(), h))
	must(t, p.Pause(t.Context(), h))
	must(t, f.Driver.Remove(t.Context(), h))
}

func testResizer(t *testing.T, f *Fixture) {
	r := ability[driver.Resizer](t, f)
	h := started(t, f)
	for _, size := range []engine.Resources{
		{CPU: 2, MemoryMiB: 512, PIDs: 300}, {CPU: 0.5, MemoryMiB: 128, PIDs: 100}, {MemoryMiB: 256},
	} {
		must(t, r.Resize(t.Context(), h, size))
	}
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	must(t, r.Resize(t.Context(), h, engine.Resources{MemoryMiB: 300}))
	must(t, f.Driver.Start(t.Context(), h))
}

func testRenamer(t *testing.T, f *Fixture) {
	r := ability[driver.Renamer](t, f)
	h := started(t, f)
	must(t, r.Rename(t.Context(), h, "0b9c8a6e-0000-4000-8000-000000000001", "renamed", map[string]string{"team": "blue"}))
	wantPhase(t, f.Driver, h, driver.PhaseRunning)
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	must(t, f.Driver.Start(t.Context(), h))
}

func testSampler(t *testing.T, f *Fixture) {
	s := ability[driver.Sampler](t, f)
	h := started(t, f)
	got, err := s.Stats(t.Context(), h)
	must(t, err)
	if got.Time.IsZero() || got.PIDs == 0 || got.CPUNanos == 0 || got.MemoryBytes == 0 {
		t.Errorf("got %+v, want time, processes, cpu and memory", got)
	}
	must(t, f.Driver.Stop(t.Context(), h, time.Second))
	_, err = s.Stats(t.Context(), h)
	wantKind(t, err, engine.KindConflict)
}

func testWatcher(t *testing.T, f *Fixture) {
	w := ability[driver.Watcher](t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := w.Watch(ctx)
	must(t, err)
	asked, crashed := started(t, f), started(t, f)
	must(t, f.Driver.Stop(t.Context(), asked, time.Second))
	f.Crash(t, crashed)
	select {
	case e := <-events:
		if e.ID != crashed.ID || e.Kind != driver.EventExit || e.Exit == 0 {
			t.Errorf("got %+v, want the exit of %s and no word of %s, which was asked to stop", e, crashed.ID, asked.ID)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("got no event, want an exit")
	}
	cancel()
	for range events { //nolint:revive // until it closes
	}
}

func testLister(t *testing.T, f *Fixture) {
	ability[driver.Lister](t, f)
	h, other := started(t, f), create(t, f)
	d := reopen(t, f)
	l, _ := driver.As[driver.Lister](d)
	found, err := l.List(t.Context())
	must(t, err)
	for _, want := range []string{h.ID, other.ID} {
		i := slices.IndexFunc(found, func(h driver.Handle) bool { return h.ID == want })
		if i < 0 {
			t.Fatalf("got %v, want %s among them", found, want)
		}
		must(t, d.Remove(t.Context(), found[i]))
	}
}

// ability returns an ability of the driver. A driver without it passes: to lack
// one is allowed, to have it and not work is not.
func ability[T any](t *testing.T, f *Fixture) T {
	t.Helper()
	a, ok := driver.As[T](f.Driver)
	if !ok {
		t.SkipNow()
	}
	return a
}

// reopen replaces the driver of the fixture, so that clean-up uses the new one.
func reopen(t *testing.T, f *Fixture) driver.Driver {
	t.Helper()
	f.Driver = f.Reopen(t)
	return f.Driver
}

func create(t *testing.T, f *Fixture) driver.Handle {
	t.Helper()
	h, err := f.Driver.Create(t.Context(), f.Spec(t))
	must(t, err)
	t.Cleanup(func() { remove(t, f, h) })
	return h
}

func started(t *testing.T, f *Fixture) driver.Handle {
	t.Helper()
	h := create(t, f)
	must(t, f.Driver.Start(t.Context(), h))
	return h
}

// remove cleans up when the case's context has ended already.
func remove(t *testing.T, f *Fixture, h driver.Handle) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := f.Driver.Remove(ctx, h); err != nil {
		t.Errorf("clean up %s: %v", h.ID, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, want engine.Kind) {
	t.Helper()
	if got := engine.KindOf(err); got != want {
		t.Errorf("got error kind %q (%v), want %q", got, err, want)
	}
}

func wantPhase(t *testing.T, d driver.Driver, h driver.Handle, want driver.Phase) driver.Status {
	t.Helper()
	s, err := d.Inspect(t.Context(), h)
	must(t, err)
	if s.Phase != want {
		t.Fatalf("got phase %s (%+v), want %s", s.Phase, s, want)
	}
	return s
}

func awaitPhase(t *testing.T, d driver.Driver, h driver.Handle, want driver.Phase) driver.Status {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := d.Inspect(t.Context(), h)
		must(t, err)
		if s.Phase == want {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("got phase %s, want %s", s.Phase, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wantStatusAnswer asks the toolbox behind conn for its status.
func wantStatusAnswer(t *testing.T, conn net.Conn) {
	t.Helper()
	must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err := io.WriteString(conn, "GET /internal/status HTTP/1.1\r\nHost: toolbox\r\nConnection: close\r\n\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got status %d, want 200", resp.StatusCode)
	}
}
