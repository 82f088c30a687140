// Package gatewaytest is an engine in memory for the tests of the gateway, its
// client and the command line. Sandboxes are records, and their toolboxes run
// commands as plain processes of the test in a directory of their own.
package gatewaytest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest/coretest"
)

// Keys that the fake knows.
const (
	AdminKey  = "test-admin-key"  // may do all
	ReaderKey = "test-reader-key" // holds read:volumes only
	OtherKey  = "test-other-key"  // of the organization Other

	// Other is an organization beside the default one.
	Other = "11111111-0000-4000-8000-000000000001"
)

// Engine implements every service of package engine. Fields may be set before
// use; Calls may be read after.
type Engine struct {
	// Timing is what creates report.
	Timing []engine.Stage
	// Fail, when set, is asked before every call of a service; an error that
	// it returns is the call's answer.
	Fail func(call string) error
	// Ports, when set, tells where connections to a sandbox's port go.
	Ports func(sandbox string, port int) (address string)

	tb       testing.TB
	toolbox  *httptest.Server
	watchers watchers
	accounts *coretest.Rig // real: who may do what is not worth a second version

	mu        sync.Mutex
	sandboxes map[string]*engine.Sandbox
	snapshots map[string]*engine.Snapshot
	created   []engine.CreateSandbox
	touched   int
	rotations map[string]int
	links     map[string]engine.PreviewLink
	held      []string
}

// New returns an engine with the snapshot atoll-small. It ends with the test.
func New(tb testing.TB) *Engine { return NewWith(tb, newToolbox(tb)) }

// NewWith returns an engine whose sandboxes all have this toolbox.
func NewWith(tb testing.TB, toolbox http.Handler) *Engine {
	e := &Engine{
		tb:        tb,
		Timing:    []engine.Stage{{Name: "claim", Start: time.Millisecond, Took: 2 * time.Millisecond}, {Name: "identity", Start: 3 * time.Millisecond, Took: 500 * time.Microsecond}},
		sandboxes: map[string]*engine.Sandbox{},
		snapshots: map[string]*engine.Snapshot{},
		rotations: map[string]int{},
		links:     map[string]engine.PreviewLink{},
	}
	e.toolbox = httptest.NewServer(toolbox)
	tb.Cleanup(e.toolbox.Close)
	e.accounts = coretest.New(tb)
	e.addKeys()
	e.AddSnapshot(engine.Snapshot{
		ID: uuid.NewString(), Name: "atoll-small", General: true, State: engine.SnapshotActive, Image: "atoll:default",
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072},
	})
	return e
}

// AddSnapshot puts a snapshot into the engine.
func (e *Engine) AddSnapshot(s engine.Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.snapshots[s.ID] = &s
}

// AddSandbox puts a sandbox into the engine.
func (e *Engine) AddSandbox(s engine.Sandbox) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sandboxes[s.ID] = &s
}

// Created returns all requests for sandboxes so far.
func (e *Engine) Created() []engine.CreateSandbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.created)
}

// Touched tells how often a toolbox was asked for.
func (e *Engine) Touched() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.touched
}

func (e *Engine) fail(call string) error {
	if e.Fail == nil {
		return nil
	}
	return e.Fail(call)
}

// addKeys stores the keys that every test may use.
func (e *Engine) addKeys() {
	e.accounts.AddKey(e.tb, AdminKey, nil)
	e.accounts.AddKey(e.tb, ReaderKey, []string{"read:volumes"})
	e.accounts.AddOrganization(e.tb, Other, OtherKey)
}

// Accounts is real, on a store of its own.
func (e *Engine) Accounts() engine.Accounts { return e.accounts.Accounts() }

// Authenticate implements engine.Keys.
func (e *Engine) Authenticate(ctx context.Context, secret string) (engine.Principal, error) {
	if err := e.fail("Authenticate"); err != nil {
		return engine.Principal{}, err
	}
	return e.accounts.Keys().Authenticate(ctx, secret)
}

// Create implements engine.Sandboxes.
func (e *Engine) Create(_ context.Context, req engine.CreateSandbox) (engine.Sandbox, error) {
	if err := e.fail("Create"); err != nil {
		return engine.Sandbox{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.created = append(e.created, req)
	s := engine.Sandbox{
		ID: uuid.NewString(), OrganizationID: req.OrganizationID, Name: req.Name, Class: engine.ClassContainer,
		State: engine.StateStarted, Desired: engine.DesiredStarted, Incarnation: 1, Runner: "runner-1", Target: "local",
		Snapshot: "atoll-small", User: "daytona", Env: req.Env, Labels: req.Labels, Public: req.Public,
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}, Network: req.Network, Policy: req.Policy,
		Lifecycle: engine.Lifecycle{AutoStop: 15 * time.Minute, AutoArchive: 7 * 24 * time.Hour, AutoDelete: -time.Minute},
		CreatedAt: now(), UpdatedAt: now(), LastActive: now(),
		Timing: e.Timing, Warm: !req.Cold,
	}
	overlay(&s, req)
	if e.findLocked(s.Name) != nil {
		return engine.Sandbox{}, engine.Errorf(engine.KindConflict, "Sandbox with name %s already exists", s.Name).
			WithHint("choose another name")
	}
	stored := s
	stored.Timing, stored.Warm = nil, false
	e.sandboxes[s.ID] = &stored
	e.watchers.send(engine.Event{Type: "sandbox.created", OrganizationID: s.OrganizationID, Time: now(), Sandbox: &stored})
	return s, nil
}

func overlay(s *engine.Sandbox, req engine.CreateSandbox) {
	if s.Name == "" {
		s.Name = s.ID
	}
	if req.Snapshot != "" {
		s.Snapshot = req.Snapshot
	}
	if req.Image != "" {
		s.Snapshot = ""
	}
	if req.User != "" {
		s.User = req.User
	}
	if req.Lifecycle != nil {
		s.Lifecycle = *req.Lifecycle
	}
	change(&s.Resources, req.Resources)
}

func change(to *engine.Resources, r engine.Resources) {
	if r.CPU != 0 {
		to.CPU = r.CPU
	}
	if r.MemoryMiB != 0 {
		to.MemoryMiB = r.MemoryMiB
	}
	if r.DiskMiB != 0 {
		to.DiskMiB = r.DiskMiB
	}
	if r.PIDs != 0 {
		to.PIDs = r.PIDs
	}
	to.GPU += r.GPU
}

// now is the time at the precision that the wire keeps.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func (e *Engine) findLocked(idOrName string) *engine.Sandbox {
	if s, ok := e.sandboxes[idOrName]; ok {
		return s
	}
	for _, s := range e.sandboxes {
		if s.Name == idOrName {
			return s
		}
	}
	return nil
}

// edit finds a sandbox and lets f change it.
func (e *Engine) edit(call string, ref engine.SandboxRef, f func(*engine.Sandbox) error) (engine.Sandbox, error) {
	if err := e.fail(call); err != nil {
		return engine.Sandbox{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.findLocked(ref.IDOrName)
	if s == nil || ref.OrganizationID != s.OrganizationID {
		return engine.Sandbox{}, engine.Errorf(engine.KindNotFound, "Sandbox with ID or name %s not found", ref.IDOrName)
	}
	old := s.State
	if err := f(s); err != nil {
		return engine.Sandbox{}, err
	}
	if s.State != old {
		after := *s
		e.watchers.send(engine.Event{
			Type: "sandbox.state.updated", OrganizationID: s.OrganizationID, Time: now(), Sandbox: &after,
			Old: string(old), New: string(s.State),
		})
	}
	return *s, nil
}

// Sandbox implements engine.Sandboxes.
func (e *Engine) Sandbox(_ context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return e.edit("Sandbox", ref, func(*engine.Sandbox) error { return nil })
}

// Start implements engine.Sandboxes.
func (e *Engine) Start(_ context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return e.edit("Start", ref, func(s *engine.Sandbox) error {
		s.State, s.StoppedAt, s.Error, s.Recoverable = engine.StateStarted, time.Time{}, "", false
		s.Incarnation++
		return nil
	})
}

// Stop implements engine.Sandboxes.
func (e *Engine) Stop(_ context.Context, ref engine.SandboxRef, _ engine.StopOptions) (engine.Sandbox, error) {
	return e.edit("Stop", ref, func(s *engine.Sandbox) error {
		if s.State != engine.StateStarted {
			return engine.Errorf(engine.KindInvalid, "sandbox %s is %s, only a started one can be stopped", s.Name, s.State)
		}
		s.State, s.StoppedAt = engine.StateStopped, now()
		return nil
	})
}

// Delete implements engine.Sandboxes.
func (e *Engine) Delete(_ context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return e.edit("Delete", ref, func(s *engine.Sandbox) error {
		s.State = engine.StateDestroyed
		delete(e.sandboxes, s.ID)
		return nil
	})
}

// Resize implements engine.Sandboxes.
func (e *Engine) Resize(_ context.Context, ref engine.SandboxRef, r engine.Resources) (engine.Sandbox, error) {
	return e.edit("Resize", ref, func(s *engine.Sandbox) error {
		change(&s.Resources, r)
		return nil
	})
}

// Update implements engine.Sandboxes.
func (e *Engine) Update(_ context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	return e.edit("Update", ref, func(s *engine.Sandbox) error {
		set(&s.Labels, u.Labels)
		set(&s.Public, u.Public)
		set(&s.Lifecycle.AutoStop, u.AutoStop)
		set(&s.Lifecycle.AutoArchive, u.AutoArchive)
		set(&s.Lifecycle.AutoDelete, u.AutoDelete)
		set(&s.Lifecycle.TTL, u.TTL)
		set(&s.Network, u.Network)
		set(&s.Policy, u.Policy)
		return nil
	})
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// List implements engine.Sandboxes; cursors are ids.
func (e *Engine) List(_ context.Context, q engine.SandboxQuery) (engine.SandboxPage, error) {
	if err := e.fail("List"); err != nil {
		return engine.SandboxPage{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []engine.Sandbox
	for _, s := range e.sandboxes {
		if selected(q, *s) {
			all = append(all, *s)
		}
	}
	slices.SortFunc(all, func(a, b engine.Sandbox) int { return strings.Compare(a.ID, b.ID) })
	page := engine.SandboxPage{Total: len(all)}
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	for _, s := range all {
		switch {
		case s.ID <= q.Cursor:
		case len(page.Items) == limit:
			page.Next = page.Items[limit-1].ID
			return page, nil
		default:
			page.Items = append(page.Items, s)
		}
	}
	return page, nil
}

func selected(q engine.SandboxQuery, s engine.Sandbox) bool {
	for k, v := range q.Labels {
		if s.Labels[k] != v {
			return false
		}
	}
	return (q.OrganizationID == "" || q.OrganizationID == s.OrganizationID) &&
		strings.HasPrefix(s.ID, q.IDPrefix) &&
		strings.HasPrefix(strings.ToLower(s.Name), strings.ToLower(q.NamePrefix)) &&
		(len(q.States) == 0 || slices.Contains(q.States, s.State)) &&
		(len(q.Snapshots) == 0 || slices.Contains(q.Snapshots, s.Snapshot))
}
