package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

func testPolicies(t *testing.T, s *store.Store) {
	ctx := t.Context()
	put := func(name, document, by string, at time.Time, expect *int64) (engine.NamedPolicy, error) {
		return s.PutPolicy(ctx, engine.NamedPolicy{OrganizationID: "org", Name: name, Description: "d", Document: document, UpdatedBy: by, UpdatedAt: at}, expect)
	}
	revision := func(n int64) *int64 { return &n }

	first, err := put("build", "one", "ann", now, revision(0))
	if err != nil {
		t.Fatal(err)
	}
	want := engine.NamedPolicy{
		OrganizationID: "org", Name: "build", Description: "d", Document: "one", Revision: 1,
		CreatedBy: "ann", UpdatedBy: "ann", CreatedAt: now, UpdatedAt: now,
	}
	if d := cmp.Diff(want, first); d != "" {
		t.Error(d)
	}
	for _, stale := range []int64{0, 2} {
		_, err := put("build", "other", "bob", now, revision(stale))
		wantKind(t, err, engine.KindConflict)
	}
	_, err = put("gone", "x", "bob", now, revision(3))
	wantKind(t, err, engine.KindConflict)
	later := now.Add(time.Hour)
	if _, err := put("build", "two", "bob", later, revision(1)); err != nil {
		t.Fatal(err)
	}
	want.Document, want.Revision, want.UpdatedBy, want.UpdatedAt = "two", 2, "bob", later
	got, err := s.Policy(ctx, "org", "build")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := put("any", "x", "ann", now, nil); err != nil {
		t.Fatal(err)
	}
	all, err := s.Policies(ctx, "org")
	if err != nil || len(all) != 2 || all[0].Name != "any" || all[1].Name != "build" {
		t.Errorf("got %+v, %v", all, err)
	}
	_, err = s.Policy(ctx, "other", "build")
	wantKind(t, err, engine.KindNotFound)
	if all, err := s.Policies(ctx, "other"); err != nil || len(all) != 0 {
		t.Errorf("got %+v, %v", all, err)
	}
	testPolicyUse(t, s)
}

func testPolicyUse(t *testing.T, s *store.Store) {
	ctx := t.Context()
	under := sandbox("under")
	under.Policy = "build"
	foreign := sandbox("foreign")
	foreign.OrganizationID, foreign.Policy = "other", "build"
	gone := sandbox("gone")
	gone.Policy, gone.State = "build", engine.StateDestroyed
	free := sandbox("free")
	free.Policy = ""
	for _, sb := range []*store.Sandbox{under, foreign, gone, free} {
		insert(t, s, sb)
	}
	if n, err := s.CountPolicySandboxes(ctx, "org", "build"); err != nil || n != 1 {
		t.Errorf("got %d, %v", n, err)
	}
	if page, err := s.ListSandboxes(ctx, engine.SandboxQuery{OrganizationID: "org", Policy: "build"}); err != nil || page.Total != 1 || page.Items[0].Name != "under" {
		t.Errorf("got %+v, %v", page, err)
	}
	sn := engine.Snapshot{ID: "sn", OrganizationID: "org", Name: "cut", State: engine.SnapshotActive, Policy: "build", CreatedAt: now}
	if err := s.InsertSnapshot(ctx, sn); err != nil {
		t.Fatal(err)
	}
	key := store.Key{APIKey: engine.APIKey{ID: "k", OrganizationID: "org", UserID: "u", Name: "bound", Policy: "build"}}
	if err := s.InsertKey(ctx, key, "atl_bound"); err != nil {
		t.Fatal(err)
	}
	if k, err := s.KeyBySecret(ctx, "atl_bound"); err != nil || k.Policy != "build" {
		t.Errorf("got %+v, %v", k, err)
	}
	if sn, err := s.SnapshotByID(ctx, "sn"); err != nil || sn.Policy != "build" {
		t.Errorf("got %+v, %v", sn, err)
	}
	use, err := s.PolicyUse(ctx, "org", "build")
	if err != nil || len(use.Sandboxes) != 1 || use.Sandboxes[0].ID != under.ID {
		t.Errorf("got %+v, %v", use.Sandboxes, err)
	}
	if d := cmp.Diff([][]string{{"cut"}, {"bound"}}, [][]string{use.Snapshots, use.Keys}); d != "" {
		t.Error(d)
	}
	// What is in use stays, whichever of the three uses it.
	for _, free := range []func() error{
		func() error {
			under.State = engine.StateDestroyed
			return s.UpdateSandbox(ctx, under)
		},
		func() error { return s.DeleteSnapshot(ctx, "sn") },
		func() error { return s.DeleteKey(ctx, "org", "u", "bound") },
	} {
		if removed, err := s.DeletePolicy(ctx, "org", "build"); removed || err != nil {
			t.Errorf("removed: %v, %v", removed, err)
		}
		if err := free(); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := s.DeletePolicy(ctx, "org", "build"); !removed || err != nil {
		t.Errorf("removed: %v, %v", removed, err)
	}
	if _, err := s.Policy(ctx, "org", "any"); err != nil {
		t.Errorf("another policy went too: %v", err)
	}
}
