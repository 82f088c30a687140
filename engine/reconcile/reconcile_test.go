package reconcile_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/reconcile"
)

func (s *server) state(t *testing.T, name string) engine.Sandbox {
	t.Helper()
	sb, err := s.Sandboxes().Sandbox(t.Context(), ref(name))
	if engine.KindOf(err) == engine.KindNotFound {
		return engine.Sandbox{State: engine.StateDestroyed}
	}
	s.must(t, err)
	return sb
}

// live is a world that is set up, and a server on it.
func live(t *testing.T) (*world, *server) {
	t.Helper()
	w := newWorld(t)
	w.setup()
	return w, w.recover()
}

func (s *server) round(t *testing.T) {
	t.Helper()
	s.must(t, s.loop.Once(t.Context()))
}

func TestAutoStopWaitsForActivity(t *testing.T) {
	w, s := live(t)
	one := s.state(t, "one")
	w.clock.Advance(14 * time.Minute)
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateStarted {
		t.Fatalf("got %s before its time", got)
	}
	w.runner.Edit(one.ID, func(in *engine.Instance) { in.Busy = true })
	w.clock.Advance(time.Hour)
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateStarted {
		t.Fatalf("got %s while a command runs", got)
	}
	w.runner.Edit(one.ID, func(in *engine.Instance) { in.Busy, in.LastActive = false, w.clock.Now() })
	w.clock.Advance(10 * time.Minute)
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateStarted {
		t.Fatalf("got %s ten minutes after a command", got)
	}
	w.clock.Advance(5 * time.Minute)
	s.round(t)
	if got := s.state(t, "one"); got.State != engine.StateStopped || got.StoppedAt.IsZero() {
		t.Errorf("got %s, stopped at %v, want stopped", got.State, got.StoppedAt)
	}
	w.sound()
}

func TestAutoDeleteAndTTL(t *testing.T) {
	w, s := live(t)
	hour, half := time.Hour, 30*time.Minute
	_, err := s.Sandboxes().Update(t.Context(), ref("two"), engine.UpdateSandbox{AutoDelete: &hour})
	s.must(t, err)
	_, err = s.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{TTL: &half})
	s.must(t, err)
	w.clock.Advance(29 * time.Minute)
	s.round(t)
	if one, two := s.state(t, "one").State, s.state(t, "two").State; one == engine.StateDestroyed || two != engine.StateStopped {
		t.Errorf("got %s and %s before their time", one, two)
	}
	w.clock.Advance(2 * time.Minute)
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateDestroyed {
		t.Errorf("got %s after its time to live", got)
	}
	w.clock.Advance(time.Hour)
	s.round(t)
	if got := s.state(t, "two").State; got != engine.StateDestroyed {
		t.Errorf("got %s an hour after its stop", got)
	}
	w.sound()
}

func TestLossOfTheToolbox(t *testing.T) {
	w, s := live(t)
	w.runner.Edit(s.state(t, "one").ID, func(in *engine.Instance) {
		in.State, in.Error, in.Recoverable = engine.StateError, "the toolbox was killed", true
	})
	s.round(t)
	got := s.state(t, "one")
	if got.State != engine.StateError || got.Error != "the toolbox was killed" || !got.Recoverable {
		t.Fatalf("got %s %q %v", got.State, got.Error, got.Recoverable)
	}
	s.round(t) // an error that stays is no news
	got, err := s.Sandboxes().Start(t.Context(), ref("one"))
	if err != nil || got.State != engine.StateStarted || got.Error != "" || got.Incarnation != 2 {
		t.Errorf("got %s %q incarnation %d, %v", got.State, got.Error, got.Incarnation, err)
	}
	w.sound()
}

func TestHostRestart(t *testing.T) {
	w, s := live(t)
	for _, name := range []string{"one", "gone"} {
		w.runner.Edit(s.state(t, name).ID, func(in *engine.Instance) { in.State = engine.StateStopped })
	}
	s.round(t)
	want := []engine.State{engine.StateStopped, engine.StateDestroyed}
	if d := cmp.Diff(want, []engine.State{s.state(t, "one").State, s.state(t, "gone").State}); d != "" {
		t.Error(d)
	}
	w.sound()
}

func TestLostInstance(t *testing.T) {
	w, s := live(t)
	w.runner.Edit(s.state(t, "one").ID, nil)
	s.round(t)
	if got := s.state(t, "one"); got.State != engine.StateError || got.Recoverable {
		t.Errorf("got %s, recoverable %v", got.State, got.Recoverable)
	}
	_, err := s.Sandboxes().Start(t.Context(), ref("one"))
	if engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("got %v, want invalid", err)
	}
	_, err = s.Sandboxes().Delete(t.Context(), ref("one"))
	s.must(t, err)
	w.sound()
}

func TestOrphansAndStrays(t *testing.T) {
	w, s := live(t)
	w.runner.Put(engine.Instance{Sandbox: "nobody", State: engine.StateStarted})
	w.runner.Edit(s.state(t, "two").ID, func(in *engine.Instance) { in.State = engine.StateStarted })
	s.round(t)
	w.sound()
}

func TestSilentRunnerLosesNothing(t *testing.T) {
	w, s := live(t)
	w.runner.Fail("Instances", engine.Errorf(engine.KindUnavailable, "busy"))
	s.round(t)
	s.bus.Leave("r1")
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateStarted {
		t.Errorf("got %s, want started", got)
	}
	s.bus.Join("r1", w.runner)
	s.round(t)
	w.sound()
}

// TestCreateDuringARound: an instance that comes up while the round looks at
// rows and instances is neither an orphan nor lost.
func TestCreateDuringARound(t *testing.T) {
	w, s := live(t)
	entered, release := w.runner.Block("Launch")
	created := make(chan error)
	go func() { created <- changes["create"](context.Background(), s) }()
	<-entered
	s.round(t)
	w.runner.Hook("Instances", func(context.Context) error {
		release()
		return <-created // comes up before the runner answers
	})
	s.round(t)
	if got := s.state(t, "new").State; got != engine.StateStarted {
		t.Errorf("got %s, want started", got)
	}
	s.round(t)
	w.sound()
}

func TestDeletionGoesOnUntilTheRunnerCan(t *testing.T) {
	w, s := live(t)
	w.runner.Fail("Remove", engine.Errorf(engine.KindInternal, "device busy"), engine.Errorf(engine.KindInternal, "device busy"))
	got, err := s.Sandboxes().Delete(t.Context(), ref("one"))
	if err != nil || got.State != engine.StateDestroying || got.Error != "device busy" {
		t.Fatalf("got %s %q, %v", got.State, got.Error, err)
	}
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateDestroying {
		t.Errorf("got %s, want destroying", got)
	}
	s.round(t)
	if got := s.state(t, "one").State; got != engine.StateDestroyed {
		t.Errorf("got %s, want destroyed", got)
	}
	w.sound()
}

func TestPurge(t *testing.T) {
	w, s := live(t)
	id := s.state(t, "one").ID
	s.must(t, changes["delete started"](t.Context(), s))
	for _, c := range []struct {
		later time.Duration
		want  engine.Kind
	}{{23 * time.Hour, ""}, {2 * time.Hour, engine.KindNotFound}} {
		w.clock.Advance(c.later)
		s.round(t)
		if _, err := w.store.SandboxByID(t.Context(), id); engine.KindOf(err) != c.want {
			t.Errorf("after %v: got %v, want %q", c.later, err, c.want)
		}
	}
}

// quiet is a core without sandboxes that counts rounds.
type quiet struct {
	reconcile.Core
	rounds   atomic.Int64
	suspects chan struct{}
}

func (q *quiet) Rows(context.Context) ([]core.Row, error) { q.rounds.Add(1); return nil, nil }
func (q *quiet) FinishSnapshots(context.Context) error    { return nil }
func (q *quiet) DropImages(context.Context)               {}
func (q *quiet) Purge(context.Context, time.Time) error   { return nil }
func (q *quiet) Suspects() <-chan struct{}                { return q.suspects }

type nobody struct{}

func (nobody) Client(string) engine.Runner { return nil }

func (nobody) Runners(context.Context) []engine.RunnerInfo { return nil }

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quiet{suspects: make(chan struct{}, 1)}
		l := reconcile.New(reconcile.Config{Core: q, Runners: nobody{}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		for _, c := range []struct {
			name string
			do   func()
			want int64
		}{
			{"at first", func() {}, 0},
			{"after its time", func() { time.Sleep(10*time.Second + 1) }, 1},
			{"poked", l.Poke, 2},
			{"suspected", func() { q.suspects <- struct{}{} }, 3},
			{"after a minute", func() { time.Sleep(time.Minute) }, 9},
		} {
			c.do()
			synctest.Wait()
			if got := q.rounds.Load(); got != c.want {
				t.Errorf("%s: got %d rounds, want %d", c.name, got, c.want)
			}
		}
		cancel()
		<-done
	})
}
