package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// denial is of one sandbox of org.
func denial(sandbox, id string, at time.Time) engine.AccessRequest {
	return engine.AccessRequest{
		ID: id, OrganizationID: "org", SandboxID: sandbox, Host: id + ".example", Port: 443, Protocol: "tcp", Rule: "default", Reason: "why",
		Call: "c", State: engine.AccessPending, Count: 1, FirstAt: at, LastAt: at,
	}
}

func testAccess(t *testing.T, s *store.Store) {
	ctx := t.Context()
	sb := insert(t, s, sandbox("one"))
	record := func(at time.Time, all ...engine.AccessRequest) []string {
		t.Helper()
		fresh, err := s.RecordAccess(ctx, sb.ID, all, at)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range fresh {
			ids = append(ids, r.ID)
		}
		return ids
	}
	same := func(what string, want, got any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	later := now.Add(time.Minute)
	same("new ones", []string{"a", "b"}, record(now, denial(sb.ID, "a", now), denial(sb.ID, "b", now)))
	same("known ones", []string(nil), record(later, denial(sb.ID, "b", later)))

	want := denial(sb.ID, "b", now)
	want.Count, want.LastAt, want.SandboxName = 2, later, "one"
	got, err := s.Access(ctx, "org", "b")
	if err != nil {
		t.Fatal(err)
	}
	same("one", want, got)
	_, err = s.Access(ctx, "other", "b")
	wantKind(t, err, engine.KindNotFound)
	all, err := s.ListAccess(ctx, engine.AccessQuery{OrganizationID: "org", Sandbox: sb.ID, State: engine.AccessPending, Limit: 10})
	if err != nil || len(all) != 2 || all[0].ID != "b" {
		t.Errorf("got %+v, %v, want the latest first", all, err)
	}

	// A refusal is remembered until its end.
	got.State, got.DecidedAt, got.DecidedBy, got.Until = engine.AccessDenied, later, "u", later.Add(time.Hour)
	if err := s.DecideAccess(ctx, got); err != nil {
		t.Fatal(err)
	}
	same("denied", []string(nil), record(later, denial(sb.ID, "b", later)))
	got.Count = 3
	back, err := s.Access(ctx, "org", "b")
	if err != nil {
		t.Fatal(err)
	}
	same("decided", got, back)
	end := later.Add(time.Hour)
	same("asked again", []string{"b"}, record(end, denial(sb.ID, "b", end)))
	stranger := got
	stranger.OrganizationID = "other"
	wantKind(t, s.DecideAccess(ctx, stranger), engine.KindNotFound)

	// Those that were approved go with the settings.
	got.State, got.Until = engine.AccessApproved, time.Time{}
	if err := s.DecideAccess(ctx, got); err != nil {
		t.Fatal(err)
	}
	if err := s.DropGrants(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.Access(ctx, "org", "b")
	wantKind(t, err, engine.KindNotFound)

	// However many there are, few wait.
	var many []engine.AccessRequest
	for i := range store.MaxAccessPending + 10 {
		many = append(many, denial(sb.ID, fmt.Sprint("x", i), end))
	}
	if n := len(record(end, many...)); n != store.MaxAccessPending-1 {
		t.Errorf("%d of %d are new, beside one that waits", n, len(many))
	}
	if n := len(record(end, many...)); n != 0 {
		t.Errorf("%d more are new", n)
	}

	// What nobody asks for any more goes, and all of sandboxes that are gone.
	if err := s.PurgeAccess(ctx, end, end); err != nil {
		t.Fatal(err)
	}
	_, err = s.Access(ctx, "org", "a")
	wantKind(t, err, engine.KindNotFound)
	if _, err = s.Access(ctx, "org", "x1"); err != nil {
		t.Error(err)
	}
	sb.State = engine.StateDestroyed
	if err := s.UpdateSandbox(ctx, sb); err != nil {
		t.Fatal(err)
	}
	if err := s.PurgeAccess(ctx, end, end); err != nil {
		t.Fatal(err)
	}
	_, err = s.Access(ctx, "org", "x1")
	wantKind(t, err, engine.KindNotFound)
}
