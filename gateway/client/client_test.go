package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)

// full is a sandbox with a value in every field that travels.
func full() engine.Sandbox {
	return engine.Sandbox{
		ID: "6f2c", OrganizationID: engine.DefaultOrganization, Name: "full", Class: engine.ClassGVisor,
		State: engine.StateError, Desired: engine.DesiredStarted, Incarnation: 7, Runner: "r1", Target: "us",
		Snapshot: "snap", ImageDigest: "sha256:ab", User: "root", Env: map[string]string{"A": "1"},
		Secrets: map[string]string{"KEY": "s1"}, Labels: map[string]string{"x": "y"}, Public: true,
		Resources: engine.Resources{CPU: 1.5, MemoryMiB: 1536, DiskMiB: 3100, GPU: 1, PIDs: 99},
		Lifecycle: engine.Lifecycle{AutoStop: time.Minute, AutoArchive: time.Hour, AutoDelete: -time.Minute, TTL: 90 * time.Second},
		Network: engine.NetworkPolicy{
			BlockAll: true, AllowCIDRs: []string{"198.51.100.0/24", "203.0.113.7/32"},
			AllowDomains: []string{"example.com"}, OutboundProxyURL: "http://proxy:1",
			Grants: []engine.NetworkGrant{{ID: "acc-1", Host: "x.example", Port: 443, Protocol: "tcp", Until: at}},
		},
		Learning: &engine.Learning{Since: at, Until: at.Add(1e9), After: 3, Over: true},
		Policy:   "build",
		Error:    "why", Recoverable: true, Parent: "p", CreatedAt: at, UpdatedAt: at.Add(1e6), LastActive: at.Add(2e6), StoppedAt: at.Add(3e6),
	}
}

func TestEveryFieldOfASandboxTravels(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	want := full()
	filled(t, want, "Timing", "Warm")
	e.AddSandbox(want)

	got, err := c.Sandboxes().Sandbox(t.Context(), gatewaytest.Ref("full"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Sandbox (-want +got):\n%s", diff)
	}
	page, err := c.Sandboxes().List(t.Context(), engine.SandboxQuery{})
	if err != nil {
		t.Fatal(err)
	}
	// Lists leave out the environment, the secrets, the proxy and what is open for a time.
	want.Env, want.Secrets, want.Network.OutboundProxyURL = nil, nil, ""
	want.Network.Grants, want.Learning = nil, nil
	if diff := cmp.Diff(engine.SandboxPage{Items: []engine.Sandbox{want}, Total: 1}, page); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

// filled fails for fields that the test's value leaves zero, so that a new
// field of the engine is not forgotten here.
func filled(t *testing.T, v any, except ...string) {
	t.Helper()
	r := reflect.ValueOf(v)
	for i := range r.NumField() {
		name := r.Type().Field(i).Name
		if r.Field(i).IsZero() && !strings.Contains(strings.Join(except, " "), name) {
			t.Errorf("%T.%s is not set by the test", v, name)
		}
	}
}

func TestCreateTravels(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	want := engine.CreateSandbox{
		OrganizationID: engine.DefaultOrganization, Name: "n", Snapshot: "atoll-small", Image: "debian:12", User: "u",
		Env: map[string]string{"A": "1"}, Secrets: map[string]string{"KEY": "s"}, Labels: map[string]string{"l": "v"}, Public: true, Target: "us", Class: engine.ClassGVisor,
		Resources:      engine.Resources{CPU: 0.5, MemoryMiB: 100, DiskMiB: 200, GPU: 1, PIDs: 5},
		Network:        engine.NetworkPolicy{BlockAll: true, AllowCIDRs: []string{"198.51.100.0/24"}, AllowDomains: []string{"a.example"}, OutboundProxyURL: "http://p"},
		Lifecycle:      &engine.Lifecycle{AutoStop: time.Minute, AutoArchive: time.Hour, AutoDelete: 0, TTL: 2 * time.Minute},
		Policy:         "build",
		IdempotencyKey: "k", Cold: true,
	}
	filled(t, want)
	s, err := c.Sandboxes().Create(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]engine.CreateSandbox{want}, e.Created()); diff != "" {
		t.Errorf("the request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(e.Timing, s.Timing); diff != "" || s.Warm {
		t.Errorf("timing (-want +got):\n%s warm %v", diff, s.Warm)
	}
	if _, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(engine.CreateSandbox{OrganizationID: engine.DefaultOrganization}, e.Created()[1]); diff != "" {
		t.Errorf("the empty request (-want +got):\n%s", diff)
	}
}

func TestChangesTravel(t *testing.T) {
	e := gatewaytest.New(t)
	sb := gatewaytest.Client(t, gatewaytest.Serve(t, e)).Sandboxes()
	ctx := t.Context()
	s, err := sb.Create(ctx, engine.CreateSandbox{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	stop, archive, del, ttl, public := time.Minute, 2*time.Hour, time.Duration(0), 3*time.Minute, true
	s, err = sb.Update(ctx, gatewaytest.Ref(s.ID), engine.UpdateSandbox{
		Labels: &map[string]string{"a": "b"}, Public: &public, AutoStop: &stop, AutoArchive: &archive, AutoDelete: &del, TTL: &ttl,
		Network: &engine.NetworkPolicy{BlockAll: true, AllowCIDRs: []string{"203.0.113.0/24"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Sandbox{
		Labels: map[string]string{"a": "b"}, Public: true,
		Lifecycle: engine.Lifecycle{AutoStop: stop, AutoArchive: archive, AutoDelete: del, TTL: ttl},
		Network:   engine.NetworkPolicy{BlockAll: true, AllowCIDRs: []string{"203.0.113.0/24"}},
	}
	only := cmp.FilterPath(func(p cmp.Path) bool {
		if len(p) < 2 {
			return false
		}
		switch p[1].String() {
		case ".Labels", ".Public", ".Lifecycle", ".Network":
			return false
		}
		return true
	}, cmp.Ignore())
	if diff := cmp.Diff(want, s, only); diff != "" {
		t.Errorf("Update (-want +got):\n%s", diff)
	}
	if s, err = sb.Resize(ctx, gatewaytest.Ref("a"), engine.Resources{CPU: 2, MemoryMiB: 1500}); err != nil || s.Resources.MemoryMiB != 1500 || s.Resources.CPU != 2 {
		t.Errorf("Resize: got %+v, %v", s.Resources, err)
	}
	if s, err = sb.Stop(ctx, gatewaytest.Ref("a"), engine.StopOptions{Force: true, Grace: 1500 * time.Millisecond}); err != nil || s.State != engine.StateStopped {
		t.Errorf("Stop: got %s, %v", s.State, err)
	}
	if s, err = sb.Start(ctx, gatewaytest.Ref("a")); err != nil || s.State != engine.StateStarted {
		t.Errorf("Start: got %s, %v", s.State, err)
	}
	if s, err = sb.Delete(ctx, gatewaytest.Ref("a")); err != nil || s.State != engine.StateDestroyed {
		t.Errorf("Delete: got %s, %v", s.State, err)
	}
}

func TestListPagesAndFilters(t *testing.T) {
	e := gatewaytest.New(t)
	for _, id := range []string{"1", "2", "3"} {
		s := full()
		s.ID, s.Name = id, "n"+id
		e.AddSandbox(s)
	}
	sb := gatewaytest.Client(t, gatewaytest.Serve(t, e)).Sandboxes()
	q := engine.SandboxQuery{
		Labels: map[string]string{"x": "y"}, States: []engine.State{engine.StateError, engine.StateStopped}, Snapshots: []string{"snap", "other"},
		NamePrefix: "N", Limit: 2, Sort: "name", Ascending: true, IncludeErroredDeleted: true,
	}
	page, err := sb.List(t.Context(), q)
	if err != nil || len(page.Items) != 2 || page.Total != 3 || page.Next == "" {
		t.Fatalf("got %d of %d, next %q, %v", len(page.Items), page.Total, page.Next, err)
	}
	q.Cursor = page.Next
	page, err = sb.List(t.Context(), q)
	if err != nil || len(page.Items) != 1 || page.Next != "" {
		t.Errorf("second page: got %d, next %q, %v", len(page.Items), page.Next, err)
	}
	q.States = []engine.State{engine.StateStarted}
	if page, err = sb.List(t.Context(), q); err != nil || len(page.Items) != 0 {
		t.Errorf("other state: got %d, %v", len(page.Items), err)
	}
}

func TestSnapshotsTravel(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	want := engine.Snapshot{
		ID: "s", OrganizationID: engine.DefaultOrganization, Name: "snap", General: true, State: engine.SnapshotPulling,
		Image: "debian:12", ImageDigest: "sha256:1", Disk: "d", Runner: "r", User: "u", WorkDir: "/w", Env: map[string]string{"A": "1"},
		Entrypoint: []string{"sh", "-c"}, Resources: engine.Resources{CPU: 1, MemoryMiB: 512, DiskMiB: 3000, GPU: 1, PIDs: 3},
		SizeBytes: 123, SourceSandbox: "sb", Policy: "build", Error: "e", Progress: "7 %", CreatedAt: at, UpdatedAt: at.Add(1e6), LastUsedAt: at.Add(2e6),
	}
	filled(t, want)
	e.AddSnapshot(want)
	got, err := c.Snapshots().Snapshot(t.Context(), engine.SnapshotRef{IDOrName: "snap"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Snapshot (-want +got):\n%s", diff)
	}
	if got, err = c.Snapshots().Prepare(t.Context(), engine.SnapshotRef{IDOrName: "snap"}); err != nil || got.ID != want.ID {
		t.Errorf("prepare: got %+v, %v", got, err)
	}
	page, err := c.Snapshots().List(t.Context(), engine.SnapshotQuery{Name: "SNA", Limit: 5, Page: 1})
	if err != nil || page.Total != 1 {
		t.Fatalf("List: %+v, %v", page, err)
	}
	if diff := cmp.Diff(want, page.Items[0]); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	created, err := c.Snapshots().Create(t.Context(), engine.CreateSnapshot{
		Name: "new", Image: "debian:12.5", Entrypoint: []string{"x"}, Resources: engine.Resources{CPU: 2, MemoryMiB: 512, DiskMiB: 1024, PIDs: 4},
		Username: "u", Password: "p",
	})
	if err != nil || created.Image != "debian:12.5" || created.Resources.MemoryMiB != 512 || created.Resources.PIDs != 4 {
		t.Errorf("Create: got %+v, %v", created, err)
	}
	if _, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{Name: "sb"}); err != nil {
		t.Fatal(err)
	}
	saved, err := c.Snapshots().Save(t.Context(), gatewaytest.Ref("sb"), "saved")
	if err != nil || saved.Disk != "disk-saved" || saved.SourceSandbox == "" {
		t.Errorf("Save: got %+v, %v", saved, err)
	}
	fork, err := c.Snapshots().Fork(t.Context(), gatewaytest.Ref("sb"), "fork")
	if err != nil || fork.Name != "fork" || fork.Parent == "" {
		t.Errorf("Fork: got %+v, %v", fork, err)
	}
	if err := c.Snapshots().Delete(t.Context(), engine.SnapshotRef{IDOrName: "saved"}); err != nil {
		t.Error(err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	for _, kind := range []engine.Kind{
		engine.KindInvalid, engine.KindNotFound, engine.KindConflict, engine.KindDenied, engine.KindExhausted,
		engine.KindUnsupported, engine.KindUnavailable, engine.KindTimeout, engine.KindInternal, engine.KindUnauthenticated, engine.KindCanceled,
	} {
		want := &engine.Error{Kind: kind, Message: "what: went wrong", Hint: "do this", Code: "CODE"}
		e.Fail = func(call string) error {
			if call == "Create" {
				return want.Wrap(errors.New("/secret/path"))
			}
			return nil
		}
		_, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{})
		var got *engine.Error
		if !errors.As(err, &got) {
			t.Errorf("%s: got %v", kind, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
	}
	e.Fail = func(call string) error {
		if call == "Create" {
			return errors.New("raw: /secret/path")
		}
		return nil
	}
	_, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{})
	if engine.KindOf(err) != engine.KindInternal || strings.Contains(err.Error(), "secret") {
		t.Errorf("a raw error: got %v", err)
	}
}

func TestInspectorTravels(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	if _, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	stats, err := c.Inspector().Stats(t.Context(), gatewaytest.Ref("a"))
	if diff := cmp.Diff(gatewaytest.Sample(), stats); diff != "" || err != nil {
		t.Errorf("Stats: %v (-want +got):\n%s", err, diff)
	}
	report, err := c.Inspector().Doctor(t.Context())
	if diff := cmp.Diff(gatewaytest.Checks(), report); diff != "" || err != nil {
		t.Errorf("Doctor: %v (-want +got):\n%s", err, diff)
	}
}

func TestEventsTravel(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.Events().Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sandboxes().Stop(t.Context(), gatewaytest.Ref("a"), engine.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	first, second := <-events, <-events
	if first.Type != "sandbox.created" || first.Sandbox.ID != s.ID {
		t.Errorf("first: got %+v", first)
	}
	if second.Type != "sandbox.state.updated" || second.Old != "started" || second.New != "stopped" || second.Sandbox.State != engine.StateStopped {
		t.Errorf("second: got %+v", second)
	}
	cancel()
	for range events {
	}
}

func TestToolboxTravels(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	if _, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	rt, err := c.Toolboxes().Toolbox(t.Context(), gatewaytest.Ref("a"))
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://any/process/execute", strings.NewReader(`{"command":"echo hi"}`))
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if want := `"result":"hi\n"`; !strings.Contains(string(body), want) {
		t.Errorf("got %s, want %s in it", body, want)
	}
}
