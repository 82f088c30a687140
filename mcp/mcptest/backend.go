// Package mcptest is a backend for tests of the MCP server: sandboxes that
// live in memory, whose toolbox runs commands in a temporary directory.
package mcptest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// Backend implements the engine's services in memory. It is safe for
// concurrent use.
type Backend struct {
	t testing.TB

	// Panic makes Create panic, and Delay makes it slow.
	Panic bool
	Delay time.Duration

	mu        sync.Mutex
	sandboxes []*engine.Sandbox
	snapshots []engine.Snapshot
	boxes     map[string]*Toolbox
	created   []engine.CreateSandbox
	n         int
}

// New returns an empty backend that cleans up with the test.
func New(t testing.TB) *Backend {
	b := &Backend{t: t, boxes: map[string]*Toolbox{}}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, box := range b.boxes {
			box.Close()
		}
	})
	return b
}

// Services returns the backend as the tools take it.
func (b *Backend) Services() tools.Backend {
	return tools.Backend{Sandboxes: b, Snapshots: snapshots{b}, Toolboxes: b, Inspector: b, Previews: b, Activity: b}
}

// Created returns the requests that Create got.
func (b *Backend) Created() []engine.CreateSandbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.created)
}

// Toolboxes of sandboxes by name.
func (b *Backend) Box(name string) *Toolbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sb := range b.sandboxes {
		if sb.Name == name {
			return b.boxes[sb.ID]
		}
	}
	return nil
}

// Create makes a running sandbox at once.
func (b *Backend) Create(ctx context.Context, req engine.CreateSandbox) (engine.Sandbox, error) {
	if b.Panic {
		panic("create was told to panic")
	}
	select {
	case <-time.After(b.Delay):
	case <-ctx.Done():
		return engine.Sandbox{}, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.created = append(b.created, req)
	for _, sb := range b.sandboxes {
		if sb.OrganizationID == req.OrganizationID && sb.Name == req.Name {
			return engine.Sandbox{}, engine.Errorf(engine.KindConflict, "sandbox name %q is taken", req.Name).WithHint("choose another name, or delete the sandbox that has it")
		}
	}
	b.n++
	sb := &engine.Sandbox{
		ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", b.n), OrganizationID: req.OrganizationID, Name: req.Name,
		State: engine.StateStarted, Snapshot: "atoll-small", User: "atoll", Env: req.Env, Labels: req.Labels,
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}, Network: req.Network, Policy: req.Policy,
		Lifecycle: engine.Lifecycle{AutoStop: 15 * time.Minute, AutoDelete: -1}, CreatedAt: time.Now(), LastActive: time.Now(),
		Timing: []engine.Stage{{Name: "claim", Took: time.Millisecond}}, Warm: true,
	}
	if sb.Name == "" {
		sb.Name = sb.ID
	}
	if req.Lifecycle != nil {
		sb.Lifecycle = *req.Lifecycle
	}
	b.sandboxes = append(b.sandboxes, sb)
	b.boxes[sb.ID] = NewToolbox(b.t)
	return *sb, nil
}

func (b *Backend) findLocked(ref engine.SandboxRef) (*engine.Sandbox, error) {
	for _, sb := range b.sandboxes {
		if sb.OrganizationID == ref.OrganizationID && (sb.ID == ref.IDOrName || sb.Name == ref.IDOrName) {
			return sb, nil
		}
	}
	return nil, engine.Errorf(engine.KindNotFound, "Sandbox %s not found", ref.IDOrName)
}

// Sandbox returns one sandbox.
func (b *Backend) Sandbox(_ context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return b.change(ref, func(*engine.Sandbox) {})
}

func (b *Backend) change(ref engine.SandboxRef, f func(*engine.Sandbox)) (engine.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb, err := b.findLocked(ref)
	if err != nil {
		return engine.Sandbox{}, err
	}
	f(sb)
	return *sb, nil
}

// List filters by organization, state and labels.
func (b *Backend) List(_ context.Context, q engine.SandboxQuery) (engine.SandboxPage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var page engine.SandboxPage
	for _, sb := range b.sandboxes {
		match := sb.OrganizationID == q.OrganizationID && (len(q.States) == 0 || slices.Contains(q.States, sb.State))
		for k, v := range q.Labels {
			match = match && sb.Labels[k] == v
		}
		if match {
			page.Items = append(page.Items, *sb)
		}
	}
	page.Total = len(page.Items)
	return page, nil
}

// Start starts a sandbox.
func (b *Backend) Start(_ context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return b.change(ref, func(sb *engine.Sandbox) { sb.State = engine.StateStarted })
}

// Stop stops a sandbox.
func (b *Backend) Stop(_ context.Context, ref engine.SandboxRef, _ engine.StopOptions) (engine.Sandbox, error) {
	return b.change(ref, func(sb *engine.Sandbox) { sb.State = engine.StateStopped })
}

// Delete forgets a sandbox.
func (b *Backend) Delete(_ context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb, err := b.findLocked(ref)
	if err != nil {
		return engine.Sandbox{}, err
	}
	b.sandboxes = slices.DeleteFunc(b.sandboxes, func(o *engine.Sandbox) bool { return o == sb })
	b.boxes[sb.ID].Close()
	delete(b.boxes, sb.ID)
	sb.State = engine.StateDestroyed
	return *sb, nil
}

// Resize sets the limits.
func (b *Backend) Resize(_ context.Context, ref engine.SandboxRef, r engine.Resources) (engine.Sandbox, error) {
	return b.change(ref, func(sb *engine.Sandbox) { sb.Resources = r })
}

// Update sets expiry and publicity; the tools change nothing else.
func (b *Backend) Update(_ context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	return b.change(ref, func(sb *engine.Sandbox) {
		if u.TTL != nil {
			sb.Lifecycle.TTL = *u.TTL
		}
		if u.Public != nil {
			sb.Public = *u.Public
		}
	})
}

// Toolbox returns the sandbox's own toolbox.
func (b *Backend) Toolbox(_ context.Context, ref engine.SandboxRef) (http.RoundTripper, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb, err := b.findLocked(ref)
	if err != nil {
		return nil, err
	}
	if sb.State != engine.StateStarted {
		return nil, engine.Errorf(engine.KindConflict, "Sandbox %s is %s", sb.Name, sb.State)
	}
	return b.boxes[sb.ID], nil
}

// DialPort connects to a port of this computer.
func (b *Backend) DialPort(ctx context.Context, ref engine.SandboxRef, port int) (net.Conn, error) {
	if _, err := b.Toolbox(ctx, ref); err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// Stats returns fixed numbers.
func (b *Backend) Stats(context.Context, engine.SandboxRef) (engine.Stats, error) {
	return engine.Stats{MemoryBytes: 10 << 20, PIDs: 3, DiskBytes: 1 << 20}, nil
}

// PreviewURL names port, sandbox and a token.
func (b *Backend) PreviewURL(ctx context.Context, ref engine.SandboxRef, port int) (engine.PreviewURL, error) {
	sb, err := b.Sandbox(ctx, ref)
	return engine.PreviewURL{URL: fmt.Sprintf("http://%d-%s.localhost", port, sb.ID), Token: "token"}, err
}

// SignedPreviewURL names the lifetime too.
func (b *Backend) SignedPreviewURL(ctx context.Context, ref engine.SandboxRef, port int, lifetime time.Duration) (engine.PreviewURL, error) {
	if _, err := b.Sandbox(ctx, ref); err != nil {
		return engine.PreviewURL{}, err
	}
	return engine.PreviewURL{URL: fmt.Sprintf("http://%d-signed%.0f.localhost", port, lifetime.Seconds()), Token: "signed"}, nil
}

// Records has none of any sandbox.
func (b *Backend) Records(ctx context.Context, ref engine.SandboxRef, _ engine.ActivityQuery) (engine.ActivityPage, error) {
	_, err := b.Sandbox(ctx, ref)
	return engine.ActivityPage{}, err
}

// Verify finds nothing wrong with no records.
func (b *Backend) Verify(ctx context.Context, ref engine.SandboxRef, _ *engine.ActivityHead) (engine.ActivityProof, error) {
	sb, err := b.Sandbox(ctx, ref)
	return engine.ActivityProof{Sandbox: sb.ID}, err
}

// Doctor has nothing to say.
func (b *Backend) Doctor(context.Context) (engine.Report, error) { return engine.Report{}, nil }

type snapshots struct{ *Backend }

func (s snapshots) Create(context.Context, engine.CreateSnapshot) (engine.Snapshot, error) {
	return engine.Snapshot{}, engine.Errorf(engine.KindUnsupported, "no images here")
}

func (s snapshots) Snapshot(context.Context, engine.SnapshotRef) (engine.Snapshot, error) {
	return engine.Snapshot{}, engine.Errorf(engine.KindNotFound, "no such snapshot")
}

func (s snapshots) List(_ context.Context, q engine.SnapshotQuery) (engine.SnapshotPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var page engine.SnapshotPage
	for _, o := range s.snapshots {
		if o.OrganizationID == q.OrganizationID {
			page.Items = append(page.Items, o)
		}
	}
	page.Total = len(page.Items)
	return page, nil
}

func (s snapshots) Delete(_ context.Context, ref engine.SnapshotRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.snapshots)
	s.snapshots = slices.DeleteFunc(s.snapshots, func(o engine.Snapshot) bool {
		return o.Name == ref.IDOrName && o.OrganizationID == ref.OrganizationID
	})
	if len(s.snapshots) == n {
		return engine.Errorf(engine.KindNotFound, "Snapshot %s not found", ref.IDOrName)
	}
	return nil
}

func (s snapshots) Prepare(context.Context, engine.SnapshotRef) (engine.Snapshot, error) {
	return engine.Snapshot{}, nil
}

func (s snapshots) Save(_ context.Context, ref engine.SandboxRef, name string) (engine.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb, err := s.findLocked(ref)
	if err != nil {
		return engine.Snapshot{}, err
	}
	snap := engine.Snapshot{OrganizationID: ref.OrganizationID, Name: name, State: engine.SnapshotActive, Resources: sb.Resources, SizeBytes: 1 << 20, SourceSandbox: sb.ID}
	s.snapshots = append(s.snapshots, snap)
	return snap, nil
}

func (s snapshots) Fork(ctx context.Context, ref engine.SandboxRef, name string) (engine.Sandbox, error) {
	if _, err := s.Sandbox(ctx, ref); err != nil {
		return engine.Sandbox{}, err
	}
	return s.Backend.Create(ctx, engine.CreateSandbox{OrganizationID: ref.OrganizationID, Name: name})
}
