package gatewaytest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

// Snapshots returns the engine as engine.Snapshots, whose method names are
// those of engine.Sandboxes too.
func (e *Engine) Snapshots() engine.Snapshots { return snapshots{e} }

type snapshots struct{ e *Engine }

func (s snapshots) Create(_ context.Context, req engine.CreateSnapshot) (engine.Snapshot, error) {
	if err := s.e.fail("CreateSnapshot"); err != nil {
		return engine.Snapshot{}, err
	}
	snap := engine.Snapshot{
		ID: uuid.NewString(), OrganizationID: req.OrganizationID, Name: req.Name, State: engine.SnapshotActive,
		Image: req.Image, ImageDigest: "sha256:feed", Entrypoint: req.Entrypoint, Resources: req.Resources,
		SizeBytes: 1 << 20, CreatedAt: now(), UpdatedAt: now(),
	}
	return snap, s.add(snap)
}

func (s snapshots) add(snap engine.Snapshot) error {
	if _, err := s.Snapshot(context.Background(), engine.SnapshotRef{IDOrName: snap.Name}); err == nil {
		return engine.Errorf(engine.KindConflict, "Snapshot with name %s already exists", snap.Name)
	}
	s.e.AddSnapshot(snap)
	s.e.watchers.send(engine.Event{Type: "snapshot.created", OrganizationID: snap.OrganizationID, Time: now(), Snapshot: &snap})
	return nil
}

func (s snapshots) Snapshot(_ context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	for _, snap := range s.e.snapshots {
		if snap.ID == ref.IDOrName || snap.Name == ref.IDOrName {
			return *snap, nil
		}
	}
	return engine.Snapshot{}, engine.Errorf(engine.KindNotFound, "Snapshot %s not found", ref.IDOrName)
}

func (s snapshots) List(_ context.Context, q engine.SnapshotQuery) (engine.SnapshotPage, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	var all []engine.Snapshot
	for _, snap := range s.e.snapshots {
		if strings.Contains(strings.ToLower(snap.Name), strings.ToLower(q.Name)) {
			all = append(all, *snap)
		}
	}
	slices.SortFunc(all, func(a, b engine.Snapshot) int { return strings.Compare(a.Name, b.Name) })
	limit, page := max(q.Limit, 0), max(q.Page, 1)
	if limit == 0 {
		limit = 100
	}
	begin := min((page-1)*limit, len(all))
	return engine.SnapshotPage{Items: all[begin:min(begin+limit, len(all))], Total: len(all)}, nil
}

func (s snapshots) Delete(ctx context.Context, ref engine.SnapshotRef) error {
	snap, err := s.Snapshot(ctx, ref)
	if err != nil {
		return err
	}
	if snap.General {
		return engine.Errorf(engine.KindDenied, "snapshot %s belongs to everybody and cannot be deleted", snap.Name)
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	delete(s.e.snapshots, snap.ID)
	return nil
}

func (s snapshots) Prepare(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	return s.Snapshot(ctx, ref)
}

func (s snapshots) Save(ctx context.Context, ref engine.SandboxRef, name string) (engine.Snapshot, error) {
	sb, err := s.e.Sandbox(ctx, ref)
	if err != nil {
		return engine.Snapshot{}, err
	}
	snap := engine.Snapshot{
		ID: uuid.NewString(), OrganizationID: sb.OrganizationID, Name: name, State: engine.SnapshotActive,
		Image: "atoll:default", Disk: "disk-" + name, Runner: sb.Runner, User: sb.User, Env: sb.Env,
		Resources: sb.Resources, SourceSandbox: sb.ID, SizeBytes: 5 << 20, CreatedAt: now(), UpdatedAt: now(),
	}
	return snap, s.add(snap)
}

func (s snapshots) Fork(ctx context.Context, ref engine.SandboxRef, name string) (engine.Sandbox, error) {
	parent, err := s.e.Sandbox(ctx, ref)
	if err != nil {
		return engine.Sandbox{}, err
	}
	child, err := s.e.Create(ctx, engine.CreateSandbox{OrganizationID: parent.OrganizationID, Name: name, Snapshot: parent.Snapshot})
	if err != nil {
		return child, err
	}
	_, err = s.e.edit("Fork", engine.SandboxRef{OrganizationID: parent.OrganizationID, IDOrName: child.ID}, func(sb *engine.Sandbox) error {
		sb.Parent = parent.ID
		return nil
	})
	child.Parent = parent.ID
	return child, err
}

// Toolbox implements engine.Toolboxes.
func (e *Engine) Toolbox(ctx context.Context, ref engine.SandboxRef) (http.RoundTripper, error) {
	s, err := e.started(ctx, ref)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(e.toolbox.URL)
	if err != nil {
		return nil, err
	}
	return roundTripper{u.Host, s.ID}, nil
}

func (e *Engine) started(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	s, err := e.Sandbox(ctx, ref)
	if err != nil {
		return s, err
	}
	if s.State != engine.StateStarted {
		return s, engine.Errorf(engine.KindConflict, "sandbox %s is %s", s.Name, s.State).WithHint("start it first")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.touched++
	return s, nil
}

// sandboxHeader tells the fake toolbox, one process for all, whose it is now.
const sandboxHeader = "X-Fake-Sandbox"

type roundTripper struct{ host, sandbox string }

// RoundTrip implements http.RoundTripper.
func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = "http", t.host
	out.Header.Set(sandboxHeader, t.sandbox)
	return http.DefaultTransport.RoundTrip(out)
}

// Stats implements engine.Inspector.
func (e *Engine) Stats(ctx context.Context, ref engine.SandboxRef) (engine.Stats, error) {
	if _, err := e.Sandbox(ctx, ref); err != nil {
		return engine.Stats{}, err
	}
	return Sample(), nil
}

// Sample is the answer of Stats.
func Sample() engine.Stats {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	return engine.Stats{
		Time: at, CPUNanos: 1_500_000_000, MemoryBytes: 64 << 20, PIDs: 7, DiskBytes: 12 << 20, OOMKills: 2, LastOOM: at,
	}
}

// Checks is the answer of Doctor.
func Checks() engine.Report {
	return engine.Report{Checks: []engine.Check{
		{Name: "user namespaces", OK: true, Needed: true, Detail: "65536 ids"},
		{Name: "KVM", Detail: "no /dev/kvm", Fix: "enable virtualisation in the firmware"},
	}}
}

// CountSandboxes counts those of all organizations.
func (e *Engine) CountSandboxes(context.Context) (map[engine.State]int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := map[engine.State]int{}
	for _, s := range e.sandboxes {
		counts[s.State]++
	}
	return counts, nil
}

// Doctor implements engine.Inspector.
func (e *Engine) Doctor(context.Context) (engine.Report, error) {
	return Checks(), e.fail("Doctor")
}

// Watch implements engine.Events.
func (e *Engine) Watch(ctx context.Context, _ string) (<-chan engine.Event, error) {
	if err := e.fail("Watch"); err != nil {
		return nil, err
	}
	return e.watchers.add(ctx), nil
}

// Watchers tells how many watch now.
func (e *Engine) Watchers() int {
	e.watchers.mu.Lock()
	defer e.watchers.mu.Unlock()
	return len(e.watchers.all)
}

// watchers hands events to everybody who watches.
type watchers struct {
	mu  sync.Mutex
	all map[chan engine.Event]struct{}
}

func (w *watchers) add(ctx context.Context) <-chan engine.Event {
	ch := make(chan engine.Event, 16)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[chan engine.Event]struct{}{}
	}
	w.all[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, ok := w.all[ch]; ok {
			delete(w.all, ch)
			close(ch)
		}
	})
	return ch
}

func (w *watchers) send(e engine.Event) {
	e.ID = uuid.NewString()
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.all {
		select {
		case ch <- e:
		default: // too slow
			delete(w.all, ch)
			close(ch)
		}
	}
}
