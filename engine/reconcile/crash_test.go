package reconcile_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/reconcile"
	"github.com/atoll-sh/atoll/engine/store"
)

const org = "org"

// world is what outlives a server: its database and its runner.
type world struct {
	t      *testing.T
	store  *store.Store
	runner *enginetest.Runner
	clock  *enginetest.Clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "atoll.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &world{t: t, store: s, runner: enginetest.NewRunner("r1"), clock: enginetest.NewClock()}
}

// server is one process: a core and its loop.
type server struct {
	*core.Core
	loop *reconcile.Loop
	bus  *enginetest.Bus
}

// start starts a server that dies at the given death; nil never.
func (w *world) start(d *enginetest.Death) *server {
	w.t.Helper()
	bus := enginetest.NewBus(w.runner)
	var st core.Store = w.store
	if d != nil {
		st = enginetest.MortalStore{Store: w.store, Death: d}
		bus.Join("r1", enginetest.MortalRunner{Runner: w.runner, Death: d})
	}
	c, err := core.New(core.Config{Store: st, Cluster: bus, Now: w.clock.Now, Ledger: noLedger{}})
	if err != nil {
		w.t.Fatal(err)
	}
	s := &server{Core: c, bus: bus, loop: reconcile.New(reconcile.Config{Core: c, Runners: bus, Now: w.clock.Now})}
	w.t.Cleanup(s.end)
	return s
}

func (s *server) end() { _ = s.Close(context.Background()) }

// recover is a fresh server's first round.
func (w *world) recover() *server {
	w.t.Helper()
	s := w.start(nil)
	if err := s.loop.Once(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (s *server) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ref(name string) engine.SandboxRef {
	return engine.SandboxRef{OrganizationID: org, IDOrName: name}
}

// setup makes an active default snapshot, sandbox one (started), two
// (stopped), gone (ephemeral, started) and snapshot saved of one.
func (w *world) setup() {
	w.t.Helper()
	s := w.start(nil)
	ctx := w.t.Context()
	s.must(w.t, s.EnsureDefaults(ctx, []engine.Snapshot{{Name: "atoll-small", Image: "atoll:default", User: "daytona", Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}}}))
	s.must(w.t, s.PrepareDefaults(ctx))
	for _, name := range []string{"one", "two", "gone"} {
		req := engine.CreateSandbox{OrganizationID: org, Name: name}
		if name == "gone" {
			req.Lifecycle = &engine.Lifecycle{}
		}
		_, err := s.Sandboxes().Create(ctx, req)
		s.must(w.t, err)
	}
	_, err := s.Sandboxes().Stop(ctx, ref("two"), engine.StopOptions{})
	s.must(w.t, err)
	_, err = s.Snapshots().Save(ctx, ref("one"), "saved")
	s.must(w.t, err)
	s.end()
}

// sound checks that every sandbox is whole or gone and nothing is leaked.
func (w *world) sound() {
	w.t.Helper()
	ctx := w.t.Context()
	rows, err := w.store.LiveSandboxes(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	instances, disks := w.runner.Held()
	for _, row := range rows {
		in, ok := instances[row.ID]
		delete(instances, row.ID)
		switch {
		case !row.State.Settled():
			w.t.Errorf("%s is left %s", row.Name, row.State)
		case !ok:
			w.t.Errorf("%s is %s without an instance", row.Name, row.State)
		case row.State == engine.StateError && !row.Recoverable:
			w.t.Errorf("%s is lost: %s", row.Name, row.Error)
		case row.State != engine.StateError && row.State != in.State:
			w.t.Errorf("%s is %s, its instance %s", row.Name, row.State, in.State)
		case row.State == engine.StateStarted && row.Incarnation != in.Incarnation:
			w.t.Errorf("%s is incarnation %d, its instance %d", row.Name, row.Incarnation, in.Incarnation)
		case row.Resources != in.Resources:
			w.t.Errorf("%s has %+v, its instance %+v", row.Name, row.Resources, in.Resources)
		case row.State == engine.StateStarted && !cmp.Equal(row.EnforcedNetwork(w.clock.Now()), w.runner.Policy(row.ID)):
			w.t.Errorf("%s has policy %+v, its instance %+v", row.Name, row.EnforcedNetwork(w.clock.Now()), w.runner.Policy(row.ID))
		case row.ForkDisk != "":
			w.t.Errorf("%s still has disk %s", row.Name, row.ForkDisk)
		}
	}
	for id := range instances {
		w.t.Errorf("instance %s is leaked", id)
	}
	w.soundSnapshots(disks)
}

func (w *world) soundSnapshots(disks []string) {
	w.t.Helper()
	all, err := w.store.AllSnapshots(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, sn := range all {
		if sn.State != engine.SnapshotActive && sn.State != engine.SnapshotError {
			w.t.Errorf("snapshot %s is left %s", sn.Name, sn.State)
		}
		if i := slices.Index(disks, sn.Disk); i >= 0 {
			disks = slices.Delete(disks, i, i+1)
		} else if sn.Disk != "" {
			w.t.Errorf("snapshot %s has lost its disk", sn.Name)
		}
	}
	if len(disks) > 0 {
		w.t.Errorf("disks %v are leaked", disks)
	}
}

// operator may do everything in the organization.
var operator = engine.Principal{OrganizationID: org, UserID: "operator", Unrestricted: true, Permissions: engine.Permissions()}

// asks has sandbox one denied something, and returns the id of the request.
func (s *server) asks(ctx context.Context) string {
	sb, err := s.Sandboxes().Sandbox(ctx, ref("one"))
	if err != nil {
		return ""
	}
	s.Observe(engine.ActivityRecord{Kind: engine.ActivityDNS, Sandbox: sb.ID, Host: "example.com", Verdict: "deny", Rule: "egress/default"})
	all, err := s.Access().Requests(ctx, engine.AccessQuery{OrganizationID: org})
	if err != nil || len(all) != 1 {
		return ""
	}
	return all[0].ID
}

// noLedger has no records.
type noLedger struct{}

func (noLedger) Record(engine.ActivityRecord) {}
func (noLedger) Owner(string) string          { return "" }
func (noLedger) Query(context.Context, string, engine.ActivityQuery) (engine.ActivityPage, error) {
	return engine.ActivityPage{}, nil
}

func (noLedger) Verify(context.Context, string, *engine.ActivityHead) (engine.ActivityProof, error) {
	return engine.ActivityProof{}, nil
}

// changes are all that a caller can do to a server.
var changes = map[string]func(ctx context.Context, s *server) error{
	"create": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "new"})
		return err
	},
	"create with key": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "new", IdempotencyKey: "k"})
		return err
	},
	"create from image": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "new", Image: "debian:12"})
		return err
	},
	"create from saved": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "new", Snapshot: "saved"})
		return err
	},
	"start": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Start(ctx, ref("two"))
		return err
	},
	"stop": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Stop(ctx, ref("one"), engine.StopOptions{})
		return err
	},
	"stop ephemeral": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Stop(ctx, ref("gone"), engine.StopOptions{})
		return err
	},
	"delete started": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Delete(ctx, ref("one"))
		return err
	},
	"delete stopped": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Delete(ctx, ref("two"))
		return err
	},
	"resize started": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Resize(ctx, ref("one"), engine.Resources{CPU: 2})
		return err
	},
	"resize stopped": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Resize(ctx, ref("two"), engine.Resources{DiskMiB: 4096})
		return err
	},
	"update network": func(ctx context.Context, s *server) error {
		_, err := s.Sandboxes().Update(ctx, ref("one"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{BlockAll: true}})
		return err
	},
	"approve access": func(ctx context.Context, s *server) error {
		_, err := s.Access().Approve(ctx, operator, s.asks(ctx), time.Hour)
		return err
	},
	"deny access": func(ctx context.Context, s *server) error {
		_, err := s.Access().Deny(ctx, operator, s.asks(ctx), 0)
		return err
	},
	"learn": func(ctx context.Context, s *server) error {
		_, err := s.Learner().Learn(ctx, operator, ref("one"), time.Hour, time.Time{})
		return err
	},
	"learn and finish": func(ctx context.Context, s *server) error {
		if _, err := s.Learner().Learn(ctx, operator, ref("one"), time.Hour, time.Time{}); err != nil {
			return err
		}
		_, err := s.Learner().Finish(ctx, operator, ref("one"), engine.LessonOptions{})
		return err
	},
	"save started": func(ctx context.Context, s *server) error {
		_, err := s.Snapshots().Save(ctx, ref("one"), "again")
		return err
	},
	"save stopped": func(ctx context.Context, s *server) error {
		_, err := s.Snapshots().Save(ctx, ref("two"), "again")
		return err
	},
	"fork started": func(ctx context.Context, s *server) error {
		_, err := s.Snapshots().Fork(ctx, ref("one"), "new")
		return err
	},
	"fork stopped": func(ctx context.Context, s *server) error {
		_, err := s.Snapshots().Fork(ctx, ref("two"), "new")
		return err
	},
	"snapshot from image": func(ctx context.Context, s *server) error {
		_, err := s.Snapshots().Create(ctx, engine.CreateSnapshot{OrganizationID: org, Name: "pulled", Image: "debian:12"})
		return err
	},
	"delete snapshot": func(ctx context.Context, s *server) error {
		return s.Snapshots().Delete(ctx, engine.SnapshotRef{OrganizationID: org, IDOrName: "saved"})
	},
	"reconcile": func(ctx context.Context, s *server) error { return s.loop.Once(ctx) },
}

// TestKilledAtEveryStep kills the server at each step of each change, before
// and after the step took effect. A fresh server then finds or makes every
// sandbox whole or gone, and the change can be done again.
func TestKilledAtEveryStep(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := countSteps(t, changes[name])
			if steps == 0 && name != "reconcile" {
				t.Error("the change took no step")
			}
			for at := range steps {
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d %v", at+1, after), func(t *testing.T) {
						killed(t, name, enginetest.NewDeath(at+1, after))
					})
				}
			}
		})
	}
}

func countSteps(t *testing.T, change func(context.Context, *server) error) int {
	t.Helper()
	w := newWorld(t)
	w.setup()
	d := enginetest.NewDeath(0, false)
	s := w.start(d)
	s.must(t, change(t.Context(), s))
	s.end()
	w.recover()
	w.sound()
	return d.Steps()
}

func killed(t *testing.T, name string, d *enginetest.Death) {
	w := newWorld(t)
	w.setup()
	s := w.start(d)
	_ = changes[name](t.Context(), s)
	s.end()
	again := w.recover()
	w.sound()
	w.repeat(name, again)
	again.end()
	w.recover()
	w.sound()
}

// repeat does the change once more. It may find that it was done; what it may
// not find is a sandbox that is stuck.
func (w *world) repeat(name string, s *server) {
	w.t.Helper()
	err := changes[name](w.t.Context(), s)
	switch k := engine.KindOf(err); {
	case k == "", k == engine.KindNotFound, k == engine.KindInvalid: // done before
	case k == engine.KindConflict && name != "start" && name != "stop": // the name is taken: done before
	default:
		w.t.Errorf("again: %v", err)
	}
}

// TestKilledWhileItRecovers kills the server again in its first round after
// each crash of a create.
func TestKilledWhileItRecovers(t *testing.T) {
	for at := range 4 {
		for second := range 4 {
			t.Run(fmt.Sprint(at+1, " ", second+1), func(t *testing.T) {
				w := newWorld(t)
				w.setup()
				s := w.start(enginetest.NewDeath(at+1, true))
				_ = changes["fork started"](t.Context(), s)
				s.end()
				s = w.start(enginetest.NewDeath(second+1, false))
				_ = s.loop.Once(t.Context())
				s.end()
				w.recover()
				w.sound()
			})
		}
	}
}

// TestIdempotencyAfterACrash: a create that is sent again under its key never
// makes a second sandbox.
func TestIdempotencyAfterACrash(t *testing.T) {
	for at := range 3 {
		for _, after := range []bool{false, true} {
			w := newWorld(t)
			w.setup()
			s := w.start(enginetest.NewDeath(at+1, after))
			_ = changes["create with key"](t.Context(), s)
			s.end()
			s = w.recover()
			s.must(t, changes["create with key"](t.Context(), s))
			page, err := s.Sandboxes().List(t.Context(), engine.SandboxQuery{OrganizationID: org, NamePrefix: "new"})
			if err != nil || page.Total != 1 || page.Items[0].State != engine.StateStarted {
				t.Errorf("step %d %v: got %+v, %v, want one started", at+1, after, page.Items, err)
			}
			w.sound()
		}
	}
}
