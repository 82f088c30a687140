package core_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/scheduler"
	"github.com/atoll-sh/atoll/engine/store"
)

const org = "org"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a core on a real store with a runner in memory.
type rig struct {
	*core.Core
	t      *testing.T
	store  *store.Store
	runner *enginetest.Runner
	bus    *enginetest.Bus
	clock  *enginetest.Clock
}

func newRig(t *testing.T, change ...func(*core.Config)) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "atoll.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: s, runner: enginetest.NewRunner("r1"), clock: enginetest.NewClock()}
	r.bus = enginetest.NewBus(r.runner)
	cfg := core.Config{Store: s, Cluster: r.bus, Now: r.clock.Now}
	for _, c := range change {
		c(&cfg)
	}
	if r.Core, err = core.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	r.ok(r.EnsureDefaults(t.Context(), []engine.Snapshot{{
		Name: "atoll-small", Image: "atoll:default", User: "daytona", WorkDir: "/home/daytona",
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072},
	}}))
	r.ok(r.PrepareDefaults(t.Context()))
	r.runner.Forget()
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) create(name string, change ...func(*engine.CreateSandbox)) engine.Sandbox {
	r.t.Helper()
	req := engine.CreateSandbox{OrganizationID: org, Name: name}
	for _, c := range change {
		c(&req)
	}
	sb, err := r.Sandboxes().Create(r.t.Context(), req)
	r.ok(err)
	return sb
}

func ref(name string) engine.SandboxRef {
	return engine.SandboxRef{OrganizationID: org, IDOrName: name}
}

func (r *rig) state(name string) engine.State {
	r.t.Helper()
	sb, err := r.Sandboxes().Sandbox(r.t.Context(), ref(name))
	if engine.KindOf(err) == engine.KindNotFound {
		return engine.StateDestroyed
	}
	r.ok(err)
	return sb.State
}

// empty checks that nothing is left anywhere.
func (r *rig) empty() {
	r.t.Helper()
	live, err := r.store.LiveSandboxes(r.t.Context())
	instances, disks := r.runner.Held()
	if err != nil || len(live)+len(instances)+len(disks) != 0 {
		r.t.Errorf("left: rows %+v, instances %v, disks %v, %v", live, instances, disks, err)
	}
}

func wantKind(t *testing.T, err error, want engine.Kind) {
	t.Helper()
	var e *engine.Error
	if got := engine.KindOf(err); got != want || err != nil && (!errors.As(err, &e) || error(e) != err) {
		t.Errorf("got kind %q (%T %v), want %q", got, err, err, want)
	}
}

func TestCreateFillsDefaults(t *testing.T) {
	r := newRig(t)
	got := r.create("")
	want := engine.Sandbox{
		ID: got.ID, OrganizationID: org, Name: got.ID, Class: engine.ClassContainer,
		State: engine.StateStarted, Desired: engine.DesiredStarted, Incarnation: 1, Runner: "r1",
		Target: "local", Snapshot: "atoll-small", ImageDigest: "sha256:atoll:default", User: "daytona",
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072},
		Lifecycle: engine.Lifecycle{AutoStop: 15 * time.Minute, AutoArchive: 7 * 24 * time.Hour, AutoDelete: -1},
		CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt, LastActive: got.LastActive,
		Timing: got.Timing, Warm: true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var stages []string
	for _, st := range got.Timing {
		stages = append(stages, st.Name)
	}
	if d := cmp.Diff([]string{"resolve", "place", "launch", "launch/run", "record"}, stages); d != "" {
		t.Error(d)
	}
	stored, err := r.Sandboxes().Sandbox(t.Context(), ref(got.ID))
	want.Timing, want.Warm = nil, false
	if d := cmp.Diff(want, stored); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestCreateTellsTheRunnerAll(t *testing.T) {
	r := newRig(t)
	req := engine.CreateSandbox{
		OrganizationID: org, Name: "Web_1", User: "root", Env: map[string]string{"A": "b"}, Labels: map[string]string{"l": "m"},
		Resources: engine.Resources{CPU: 2, PIDs: 100}, Network: engine.NetworkPolicy{BlockAll: true}, Cold: true,
	}
	sb, err := r.Sandboxes().Create(t.Context(), req)
	r.ok(err)
	want := engine.Launch{
		Sandbox: sb.ID, Incarnation: 1, Name: "Web_1", Class: engine.ClassContainer, Snapshot: "atoll-small",
		Image: "atoll:default", ImageDigest: "sha256:atoll:default", User: "root", WorkDir: "/home/daytona", Env: req.Env, Labels: req.Labels,
		Resources: engine.Resources{CPU: 2, MemoryMiB: 1024, DiskMiB: 3072, PIDs: 100}, Network: req.Network, Cold: true,
	}
	if d := cmp.Diff(want, r.runner.Launched(sb.ID)); d != "" {
		t.Error(d)
	}
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("Web_1"), engine.StopOptions{})))
	r.ok(second(r.Sandboxes().Start(t.Context(), ref("Web_1"))))
	want.Incarnation, want.Cold = 2, false
	if d := cmp.Diff(want, r.runner.Launched(sb.ID)); d != "" {
		t.Error(d)
	}
}

func second[T any](_ T, err error) error { return err }

func TestCreateRefuses(t *testing.T) {
	r := newRig(t)
	r.create("taken")
	r.runner.Forget()
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		change func(*engine.CreateSandbox)
		kind   engine.Kind
		says   string
	}{
		"name":               {func(q *engine.CreateSandbox) { q.Name = "a b" }, engine.KindInvalid, `name "a b"`},
		"long name":          {func(q *engine.CreateSandbox) { q.Name = long }, engine.KindInvalid, "name"},
		"name with NUL":      {func(q *engine.CreateSandbox) { q.Name = "a\x00" }, engine.KindInvalid, "name"},
		"name of a path":     {func(q *engine.CreateSandbox) { q.Name = "../x" }, engine.KindInvalid, "name"},
		"duplicate name":     {func(q *engine.CreateSandbox) { q.Name = "taken" }, engine.KindConflict, `"taken" is taken`},
		"no organization":    {func(q *engine.CreateSandbox) { q.OrganizationID = "" }, engine.KindInvalid, "organization"},
		"unknown snapshot":   {func(q *engine.CreateSandbox) { q.Snapshot = "nope" }, engine.KindNotFound, `snapshot "nope"`},
		"snapshot and image": {func(q *engine.CreateSandbox) { q.Snapshot, q.Image = "a", "b" }, engine.KindInvalid, "snapshot and image"},
		"image with a space": {func(q *engine.CreateSandbox) { q.Image = "a b" }, engine.KindInvalid, "image"},
		"env key":            {func(q *engine.CreateSandbox) { q.Env = map[string]string{"1A": "x"} }, engine.KindInvalid, `env key "1A"`},
		"env NUL":            {func(q *engine.CreateSandbox) { q.Env = map[string]string{"A": "\x00"} }, engine.KindInvalid, "env A"},
		"env size":           {func(q *engine.CreateSandbox) { q.Env = map[string]string{"A": long} }, engine.KindInvalid, "env A has"},
		"label key":          {func(q *engine.CreateSandbox) { q.Labels = map[string]string{"": "x"} }, engine.KindInvalid, "labels"},
		"label value":        {func(q *engine.CreateSandbox) { q.Labels = map[string]string{"a": "\x00"} }, engine.KindInvalid, `label "a"`},
		"user":               {func(q *engine.CreateSandbox) { q.User = "a;b" }, engine.KindInvalid, "user"},
		"class":              {func(q *engine.CreateSandbox) { q.Class = engine.ClassGVisor }, engine.KindUnsupported, "gvisor"},
		"cpu below":          {func(q *engine.CreateSandbox) { q.Resources.CPU = -1 }, engine.KindInvalid, "cpu"},
		"cpu above":          {func(q *engine.CreateSandbox) { q.Resources.CPU = 64 }, engine.KindInvalid, "cpu 64 is more than any runner has (8)"},
		"memory below":       {func(q *engine.CreateSandbox) { q.Resources.MemoryMiB = 1 }, engine.KindInvalid, "memory"},
		"memory above":       {func(q *engine.CreateSandbox) { q.Resources.MemoryMiB = 1 << 30 }, engine.KindInvalid, "memory"},
		"disk above":         {func(q *engine.CreateSandbox) { q.Resources.DiskMiB = 1 << 30 }, engine.KindInvalid, "disk"},
		"gpu":                {func(q *engine.CreateSandbox) { q.Resources.GPU = 1 }, engine.KindUnsupported, "gpu"},
		"timer":              {func(q *engine.CreateSandbox) { q.Lifecycle = &engine.Lifecycle{AutoStop: -1} }, engine.KindInvalid, "autoStop"},
		"CIDR":               {func(q *engine.CreateSandbox) { q.Network.AllowCIDRs = []string{"10.0.0.1"} }, engine.KindInvalid, `"10.0.0.1"`},
		"domain":             {func(q *engine.CreateSandbox) { q.Network.AllowDomains = []string{"a b"} }, engine.KindInvalid, "domain"},
		"proxy on the host":  {func(q *engine.CreateSandbox) { q.Network.OutboundProxyURL = "http://127.0.0.1:3128" }, engine.KindInvalid, "private"},
		"proxy at metadata":  {func(q *engine.CreateSandbox) { q.Network.OutboundProxyURL = "http://[::ffff:169.254.169.254]" }, engine.KindInvalid, "private"},
		"proxy":              {func(q *engine.CreateSandbox) { q.Network.OutboundProxyURL = "file:///etc" }, engine.KindInvalid, "proxy"},
	} {
		req := engine.CreateSandbox{OrganizationID: org}
		c.change(&req)
		_, err := r.Sandboxes().Create(t.Context(), req)
		if engine.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %q (%v), want %q and %q", name, engine.KindOf(err), err, c.kind, c.says)
			continue
		}
		if e := engine.AsError(err); e.Hint == "" || len(e.Message) > 300 {
			t.Errorf("%s: message %d bytes, hint %q", name, len(e.Message), e.Hint)
		}
	}
	if calls := r.runner.Calls(); len(calls) > 0 {
		t.Errorf("the runner was called: %v", calls)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	boom := engine.Errorf(engine.KindInternal, "boom")
	for name, prepare := range map[string]func(*rig){
		"launch fails": func(r *rig) { r.runner.Fail("Launch", boom) },
		"launch fails half way": func(r *rig) {
			r.runner.Put(engine.Instance{Sandbox: "x"})
			r.runner.Edit("x", nil)
			r.runner.Fail("Launch", boom)
		},
		"plain error":    func(r *rig) { r.runner.Fail("Launch", errors.New("/var/lib/x")) },
		"the pull fails": func(r *rig) { r.runner.Fail("EnsureImage", boom) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			prepare(r)
			req := engine.CreateSandbox{OrganizationID: org, Name: "one", IdempotencyKey: "k"}
			if name == "the pull fails" {
				req.Image = "debian:12"
			}
			_, err := r.Sandboxes().Create(t.Context(), req)
			wantKind(t, err, engine.KindInternal)
			if strings.Contains(engine.AsError(err).Message, "/var/lib") {
				t.Errorf("got message %q", engine.AsError(err).Message)
			}
			r.empty()
			r.ok(second(r.Sandboxes().Create(t.Context(), req))) // neither name nor key is taken
		})
	}
}

func TestCreateThatCannotBeUndoneStaysDestroying(t *testing.T) {
	r := newRig(t)
	r.runner.Fail("Launch", engine.Errorf(engine.KindInternal, "boom"))
	r.runner.Fail("Remove", engine.Errorf(engine.KindInternal, "busy"))
	_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Name: "one"})
	wantKind(t, err, engine.KindInternal)
	if got := r.state("one"); got != engine.StateDestroying {
		t.Errorf("got %s, want destroying", got)
	}
	r.ok(second(r.Sandboxes().Delete(t.Context(), ref("one"))))
	r.empty()
}

func TestCreateGoesToTheNextRunner(t *testing.T) {
	r := newRig(t, func(c *core.Config) { c.Scheduler = scheduler.New(scheduler.Config{}) })
	other := enginetest.NewRunner("r2")
	other.Put(engine.Instance{Sandbox: "x", State: engine.StateStarted, Resources: engine.Resources{MemoryMiB: 4096}}) // so it comes second
	r.bus.Join("r2", other)
	r.runner.Fail("Launch", engine.Errorf(engine.KindExhausted, "full"))
	sb := r.create("one")
	if sb.Runner != "r2" || sb.State != engine.StateStarted {
		t.Errorf("got %s on %s, want started on r2", sb.State, sb.Runner)
	}
	if held, _ := r.runner.Held(); len(held) != 0 {
		t.Errorf("r1 holds %v", held)
	}
}

func TestCreateFromImage(t *testing.T) {
	r := newRig(t)
	sb := r.create("one", func(q *engine.CreateSandbox) { q.Image = "debian:12" })
	if sb.User != "img" || sb.Snapshot != "" || sb.ImageDigest != "sha256:debian:12" || sb.Resources.DiskMiB != 3072 {
		t.Errorf("got %+v", sb)
	}
	var states []string
	for _, e := range r.bus.Events() {
		if e.Sandbox != nil {
			states = append(states, e.New)
		}
	}
	if d := cmp.Diff([]string{"creating", "pulling_snapshot", "creating", "started"}, states); d != "" {
		t.Error(d)
	}
}

func TestCreateBeforeTheDefaultIsBuilt(t *testing.T) {
	r := newRig(t)
	r.ok(r.EnsureDefaults(t.Context(), []engine.Snapshot{{Name: "atoll-big", Image: "atoll:big"}}))
	r.ReportProgress("atoll:big", "42 %")
	_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Snapshot: "atoll-big"})
	wantKind(t, err, engine.KindUnavailable)
	if !strings.Contains(err.Error(), "being built (42 %)") {
		t.Errorf("got %v", err)
	}
	r.runner.Hook("EnsureImage", func(context.Context) error {
		r.create("small") // stays usable while its image is checked
		return nil
	})
	r.ok(r.PrepareDefaults(t.Context()))
	r.create("big", func(q *engine.CreateSandbox) { q.Snapshot = "atoll-big" })
}

func TestIdempotency(t *testing.T) {
	r := newRig(t)
	req := engine.CreateSandbox{OrganizationID: org, IdempotencyKey: "k", Env: map[string]string{"A": "1", "B": "2"}}
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			sb, err := r.Sandboxes().Create(t.Context(), req)
			if err != nil {
				t.Error(err)
			}
			ids[i] = sb.ID
		})
	}
	wg.Wait()
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("got %v, want one id", ids)
	}
	req.Env["A"] = "2"
	_, err := r.Sandboxes().Create(t.Context(), req)
	wantKind(t, err, engine.KindConflict)
	req.OrganizationID = "other"
	sb, err := r.Sandboxes().Create(t.Context(), req)
	if err != nil || sb.ID == ids[0] {
		t.Errorf("got %s, %v, want another sandbox", sb.ID, err)
	}
}

// outcome of an operation on a sandbox in one state: the state after it, or
// the kind of the error.
type outcome map[string]string

// TestStateTable tries every operation in every state.
func TestStateTable(t *testing.T) {
	const invalid, conflict, unsupported = "invalid", "conflict", "unsupported"
	busy := outcome{"start": conflict, "stop": conflict, "resize": conflict, "save": conflict, "fork": conflict, "network": conflict, "toolbox": conflict}
	ended := outcome{"start": invalid, "stop": invalid, "resize": invalid, "save": invalid, "fork": invalid, "toolbox": conflict}
	with := func(base outcome, change outcome) outcome {
		out := outcome{}
		for k, v := range base {
			out[k] = v
		}
		for k, v := range change {
			out[k] = v
		}
		return out
	}
	table := map[engine.State]outcome{
		engine.StateStarted:     {"start": "started", "stop": "stopped", "resize": "started", "save": "started", "fork": "started", "toolbox": "started"},
		engine.StateStopped:     {"start": "started", "stop": invalid, "resize": "stopped", "save": "stopped", "fork": "stopped", "toolbox": conflict},
		engine.StateError:       ended,
		engine.StateBuildFailed: ended,
		engine.StatePaused:      with(ended, outcome{"start": unsupported, "stop": "stopped"}),
		engine.StateArchived:    with(ended, outcome{"start": unsupported}),
		engine.StateDestroyed:   {"start": "not_found", "stop": "not_found", "resize": "not_found", "save": "not_found", "fork": "not_found", "labels": "not_found", "network": "not_found", "toolbox": "not_found"},
		engine.StateDestroying:  with(busy, outcome{"labels": conflict}),
		// A running sandbox serves calls while its disk or limits change.
		engine.StateResizing:     with(busy, outcome{"toolbox": "resizing"}),
		engine.StateSnapshotting: with(busy, outcome{"toolbox": "snapshotting"}),
		engine.StateForking:      with(busy, outcome{"toolbox": "forking"}),
	}
	operations := map[string]func(*rig, string) error{
		"start": func(r *rig, id string) error { return second(r.Sandboxes().Start(t.Context(), ref(id))) },
		"stop": func(r *rig, id string) error {
			return second(r.Sandboxes().Stop(t.Context(), ref(id), engine.StopOptions{}))
		},
		"delete": func(r *rig, id string) error { return second(r.Sandboxes().Delete(t.Context(), ref(id))) },
		"resize": func(r *rig, id string) error {
			return second(r.Sandboxes().Resize(t.Context(), ref(id), engine.Resources{CPU: 2}))
		},
		"labels": func(r *rig, id string) error {
			return second(r.Sandboxes().Update(t.Context(), ref(id), engine.UpdateSandbox{Labels: &map[string]string{"a": "b"}}))
		},
		"network": func(r *rig, id string) error {
			return second(r.Sandboxes().Update(t.Context(), ref(id), engine.UpdateSandbox{Network: &engine.NetworkPolicy{BlockAll: true}}))
		},
		"save":    func(r *rig, id string) error { return second(r.Snapshots().Save(t.Context(), ref(id), "s-"+id)) },
		"fork":    func(r *rig, id string) error { return second(r.Snapshots().Fork(t.Context(), ref(id), "")) },
		"toolbox": func(r *rig, id string) error { return second(r.Toolboxes().Toolbox(t.Context(), ref(id))) },
	}
	r := newRig(t, func(c *core.Config) { c.Dialer = refusing{} })
	for _, state := range engine.States() {
		for op, do := range operations {
			want, ok := table[state][op]
			switch {
			case ok:
			case op == "delete":
				want = "destroyed"
			case table[state] == nil && busy[op] != "":
				want = busy[op]
			default:
				want = string(state)
			}
			id := r.inState(state, op)
			err := do(r, id)
			got := string(engine.KindOf(err))
			if err == nil {
				sb, serr := r.store.SandboxByID(t.Context(), id)
				r.ok(serr)
				got = string(sb.State)
			}
			if got != want {
				t.Errorf("%s of %s: got %s (%v), want %s", op, state, got, err, want)
			}
		}
	}
}

// inState puts a sandbox of that state into the world without any history.
func (r *rig) inState(state engine.State, op string) string {
	r.t.Helper()
	id := fmt.Sprintf("%s-%s", strings.ReplaceAll(string(state), "_", "-"), op)
	res := engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}
	r.ok(r.store.InsertSandbox(r.t.Context(), &store.Sandbox{Sandbox: engine.Sandbox{
		ID: id, OrganizationID: org, Name: id, Class: engine.ClassContainer, State: state,
		Desired: engine.DesiredStarted, Incarnation: 1, Runner: "r1", Resources: res,
		Lifecycle: engine.Lifecycle{AutoDelete: -1},
	}}, nil))
	if state != engine.StateDestroyed {
		r.runner.Put(engine.Instance{Sandbox: id, Incarnation: 1, State: engine.StateStopped, Resources: res})
	}
	return id
}

func TestRecoverableErrorStarts(t *testing.T) {
	r := newRig(t)
	r.create("one")
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	r.runner.Fail("Start", engine.Errorf(engine.KindInternal, "boom"))
	_, err := r.Sandboxes().Start(t.Context(), ref("one"))
	wantKind(t, err, engine.KindInternal)
	sb, err := r.Sandboxes().Sandbox(t.Context(), ref("one"))
	if err != nil || sb.State != engine.StateError || sb.Error != "boom" || !sb.Recoverable {
		t.Fatalf("got %s %q %v, %v", sb.State, sb.Error, sb.Recoverable, err)
	}
	sb, err = r.Sandboxes().Start(t.Context(), ref("one"))
	if err != nil || sb.State != engine.StateStarted || sb.Error != "" || sb.Incarnation != 3 || !sb.StoppedAt.IsZero() {
		t.Errorf("got %+v, %v", sb, err)
	}
}

func TestStartThatIsRefusedStaysStopped(t *testing.T) {
	r := newRig(t)
	r.create("one")
	before, err := r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})
	r.ok(err)
	r.runner.Fail("Start", engine.Errorf(engine.KindExhausted, "full"))
	_, err = r.Sandboxes().Start(t.Context(), ref("one"))
	wantKind(t, err, engine.KindExhausted)
	sb, err := r.Sandboxes().Sandbox(t.Context(), ref("one"))
	if err != nil || sb.State != engine.StateStopped || !sb.StoppedAt.Equal(before.StoppedAt) {
		t.Errorf("got %s stopped at %v, want stopped at %v", sb.State, sb.StoppedAt, before.StoppedAt)
	}
}

func TestStopOfEphemeralDestroys(t *testing.T) {
	r := newRig(t)
	r.create("one", func(q *engine.CreateSandbox) { q.Lifecycle = &engine.Lifecycle{} })
	sb, err := r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})
	if err != nil || sb.State != engine.StateDestroyed {
		t.Errorf("got %s, %v, want destroyed", sb.State, err)
	}
	r.empty()
}

func TestChangesExcludeEachOther(t *testing.T) {
	r := newRig(t)
	r.create("one")
	entered, release := r.runner.Block("Stop")
	stopped := make(chan error)
	go func() { stopped <- second(r.Sandboxes().Stop(context.Background(), ref("one"), engine.StopOptions{})) }()
	<-entered
	for range 2 {
		_, err := r.Sandboxes().Start(t.Context(), ref("one"))
		wantKind(t, err, engine.KindConflict)
		_, err = r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})
		wantKind(t, err, engine.KindConflict)
	}
	// Labels do not wait, and the stop does not undo them.
	r.ok(second(r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Labels: &map[string]string{"a": "b"}})))
	release()
	r.ok(<-stopped)
	sb, err := r.Sandboxes().Sandbox(t.Context(), ref("one"))
	if err != nil || sb.State != engine.StateStopped || sb.Labels["a"] != "b" {
		t.Errorf("got %s %v, %v", sb.State, sb.Labels, err)
	}
}

func TestAnotherServersChangeWins(t *testing.T) {
	r := newRig(t)
	sb := r.create("one")
	r.runner.Hook("Stop", func(ctx context.Context) error {
		row, err := r.store.SandboxByID(ctx, sb.ID)
		r.ok(err)
		row.State = engine.StateDestroying
		return r.store.UpdateSandbox(ctx, &row)
	})
	_, err := r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})
	wantKind(t, err, engine.KindConflict)
	if got := r.state("one"); got != engine.StateDestroying {
		t.Errorf("got %s, want destroying", got)
	}
}

func TestDeleteCancelsACreate(t *testing.T) {
	r := newRig(t)
	entered, _ := r.runner.Block("Launch")
	created := make(chan error)
	go func() {
		created <- second(r.Sandboxes().Create(context.Background(), engine.CreateSandbox{OrganizationID: org, Name: "one"}))
	}()
	<-entered
	sb, err := r.Sandboxes().Delete(t.Context(), ref("one"))
	if err != nil || sb.State != engine.StateDestroyed {
		t.Errorf("got %s, %v, want destroyed", sb.State, err)
	}
	err = <-created
	wantKind(t, err, engine.KindConflict)
	if !strings.Contains(err.Error(), "deleted meanwhile") {
		t.Errorf("got %v", err)
	}
	r.empty()
}

func TestDeleteIsIdempotent(t *testing.T) {
	r := newRig(t)
	sb := r.create("one")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			got, err := r.Sandboxes().Delete(t.Context(), ref(sb.ID))
			if err != nil || got.State != engine.StateDestroyed {
				t.Errorf("got %s, %v", got.State, err)
			}
		})
	}
	wg.Wait()
	_, err := r.Sandboxes().Delete(t.Context(), ref("one"))
	wantKind(t, err, engine.KindNotFound) // the name is free
	_, err = r.Sandboxes().Sandbox(t.Context(), ref(sb.ID))
	wantKind(t, err, engine.KindNotFound)
	r.create("one")
}

func TestCallerGoesAway(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org})
	wantKind(t, err, engine.KindCanceled)
	r.empty()

	ctx, cancel = context.WithCancel(t.Context())
	r.runner.Hook("Launch", func(context.Context) error { cancel(); return nil })
	sb, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "one"})
	if err != nil || sb.State != engine.StateStarted {
		t.Errorf("got %s, %v, want a whole sandbox", sb.State, err)
	}
	for method, do := range map[string]func(context.Context) error{
		"Resize": func(ctx context.Context) error {
			return second(r.Sandboxes().Resize(ctx, ref("one"), engine.Resources{CPU: 2}))
		},
		"SaveDisk": func(ctx context.Context) error { return second(r.Snapshots().Save(ctx, ref("one"), "s")) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		r.runner.Hook(method, func(context.Context) error { cancel(); return nil })
		r.ok(do(ctx))
		if got := r.state("one"); got != engine.StateStarted {
			t.Errorf("%s: left %s", method, got)
		}
	}
}

func TestResize(t *testing.T) {
	r := newRig(t)
	r.create("run")
	r.create("off")
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("off"), engine.StopOptions{})))
	for _, c := range []struct {
		name string
		res  engine.Resources
		want engine.Kind
		has  engine.Resources
	}{
		{"run", engine.Resources{CPU: 2, MemoryMiB: 2048}, "", engine.Resources{CPU: 2, MemoryMiB: 2048, DiskMiB: 3072}},
		{"run", engine.Resources{CPU: 1}, engine.KindInvalid, engine.Resources{}},
		{"run", engine.Resources{MemoryMiB: 1024}, engine.KindInvalid, engine.Resources{}},
		{"run", engine.Resources{DiskMiB: 4096}, engine.KindInvalid, engine.Resources{}},
		{"run", engine.Resources{CPU: 2}, engine.KindInvalid, engine.Resources{}},
		{"run", engine.Resources{}, engine.KindInvalid, engine.Resources{}},
		{"run", engine.Resources{MemoryMiB: 1 << 20}, engine.KindInvalid, engine.Resources{}},
		{"run", engine.Resources{GPU: 1}, engine.KindUnsupported, engine.Resources{}},
		{"off", engine.Resources{CPU: 0.5, MemoryMiB: 512, DiskMiB: 4096}, "", engine.Resources{CPU: 0.5, MemoryMiB: 512, DiskMiB: 4096}},
		{"off", engine.Resources{DiskMiB: 3072}, engine.KindInvalid, engine.Resources{}},
		{"off", engine.Resources{DiskMiB: 1 << 30}, engine.KindInvalid, engine.Resources{}},
	} {
		got, err := r.Sandboxes().Resize(t.Context(), ref(c.name), c.res)
		wantKind(t, err, c.want)
		if err == nil && got.Resources != c.has {
			t.Errorf("%s %+v: got %+v, want %+v", c.name, c.res, got.Resources, c.has)
		}
	}
	r.runner.Fail("Resize", engine.Errorf(engine.KindUnsupported, "not here"))
	_, err := r.Sandboxes().Resize(t.Context(), ref("run"), engine.Resources{CPU: 4})
	wantKind(t, err, engine.KindUnsupported)
	if sb, _ := r.Sandboxes().Sandbox(t.Context(), ref("run")); sb.State != engine.StateStarted || sb.Resources.CPU != 2 {
		t.Errorf("got %s with %v cores, want started with 2", sb.State, sb.Resources.CPU)
	}
}

func TestUpdate(t *testing.T) {
	r := newRig(t)
	sb := r.create("one")
	hour, off := time.Hour, time.Duration(-5)
	public, policy := true, engine.NetworkPolicy{BlockAll: true}
	got, err := r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{
		Labels: &map[string]string{"a": "b"}, Public: &public, AutoStop: &hour, AutoArchive: &hour, AutoDelete: &off, TTL: &hour, Network: &policy,
	})
	r.ok(err)
	want := engine.Lifecycle{AutoStop: hour, AutoArchive: hour, AutoDelete: off, TTL: hour}
	if got.Lifecycle != want || !got.Public || got.Labels["a"] != "b" || !got.Network.BlockAll || !r.runner.Policy(sb.ID).BlockAll {
		t.Errorf("got %+v", got)
	}
	r.runner.Fail("SetNetwork", engine.Errorf(engine.KindUnsupported, "no lists"))
	_, err = r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{AllowDomains: []string{"example.com"}}})
	wantKind(t, err, engine.KindUnsupported)
	if got, _ := r.Sandboxes().Sandbox(t.Context(), ref("one")); !cmp.Equal(got.Network, policy) {
		t.Errorf("got %+v, want what holds", got.Network)
	}
	negative := -time.Hour
	_, err = r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{AutoStop: &negative})
	wantKind(t, err, engine.KindInvalid)
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := r.Events().Watch(ctx, org)
	r.ok(err)
	_, err = r.Events().Watch(ctx, "")
	wantKind(t, err, engine.KindInvalid)
	r.create("one")
	r.ok(second(r.Sandboxes().Delete(t.Context(), ref("one"))))
	cancel()
	var got []string
	for e := range events {
		got = append(got, e.Type+" "+e.Old+" "+e.New)
	}
	want := []string{
		"sandbox.created  creating", "sandbox.state.updated creating started",
		"sandbox.desired-state.updated started destroyed", "sandbox.state.updated started destroying", "sandbox.state.updated destroying destroyed", "sandbox.removed  destroyed",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestClose(t *testing.T) {
	r := newRig(t)
	entered, _ := r.runner.Block("Launch")
	created := make(chan error)
	go func() {
		created <- second(r.Sandboxes().Create(context.Background(), engine.CreateSandbox{OrganizationID: org}))
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of patience", err)
	}
	wantKind(t, <-created, engine.KindUnavailable)
	_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org})
	wantKind(t, err, engine.KindUnavailable)
	r.empty()
}

func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name := fmt.Sprintf("s%d", i)
			_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Name: name})
			if err == nil {
				_, err = r.Sandboxes().Stop(t.Context(), ref(name), engine.StopOptions{})
			}
			if err == nil {
				_, err = r.Sandboxes().Delete(t.Context(), ref(name))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.empty()
}

func BenchmarkCreate(b *testing.B) {
	s, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "atoll.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	runner := enginetest.NewRunner("r1")
	runner.InfoVal.MemoryMiB, runner.InfoVal.CPU = 1<<40, 1<<20
	c, err := core.New(core.Config{Store: s, Cluster: enginetest.NewBus(runner)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(context.Background())
	if err := c.EnsureDefaults(b.Context(), []engine.Snapshot{{Name: "atoll-small", Image: "i"}}); err != nil {
		b.Fatal(err)
	}
	if err := c.PrepareDefaults(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Sandboxes().Create(b.Context(), engine.CreateSandbox{OrganizationID: org}); err != nil {
			b.Fatal(err)
		}
	}
}

// A caller cannot know of a repair, so that he waits for its end.
func TestChangesWaitForRepairs(t *testing.T) {
	r := newRig(t)
	r.create("one")
	rows, err := r.Rows(t.Context())
	r.ok(err)
	entered, release := r.runner.Block("SetNetwork")
	repaired, stopped := make(chan error, 1), make(chan error, 1)
	go func() { repaired <- r.ApplyNetwork(t.Context(), rows[0]) }()
	<-entered
	wantKind(t, r.ApplyNetwork(t.Context(), rows[0]), engine.KindConflict)
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = r.Sandboxes().Stop(late, ref("one"), engine.StopOptions{})
	wantKind(t, err, engine.KindTimeout)
	go func() { stopped <- second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})) }()
	release()
	r.ok(<-repaired)
	r.ok(<-stopped)
}
