package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

func testSSHAccess(t *testing.T, s *store.Store) {
	ctx := t.Context()
	access := func(id, sandbox string, validFor time.Duration) engine.SSHAccess {
		return engine.SSHAccess{ID: id, SandboxID: sandbox, OrganizationID: "org", KeyID: "k", CreatedAt: now, ExpiresAt: now.Add(validFor)}
	}
	put := func(a engine.SSHAccess, token string) {
		t.Helper()
		if err := s.PutSSHAccess(ctx, a, token); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(token string) {
		t.Helper()
		_, err := s.SSHAccess(ctx, token)
		wantKind(t, err, engine.KindNotFound)
	}
	first := access("1", "a", time.Hour)
	put(first, "first")
	got, err := s.SSHAccess(ctx, "first")
	if d := cmp.Diff(first, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	gone("First")
	put(access("2", "a", time.Hour), "second")
	gone("first")
	put(access("3", "b", -time.Hour), "old")
	put(access("4", "c", time.Hour), "fourth") // removes what has expired
	gone("old")

	for _, c := range []struct {
		sandbox, token string
		want           bool
	}{{"a", "fourth", false}, {"b", "second", false}, {"a", "second", true}, {"a", "second", false}, {"c", "", true}, {"c", "", false}} {
		if had, err := s.DeleteSSHAccess(ctx, c.sandbox, c.token); err != nil || had != c.want {
			t.Errorf("%+v: got %v, %v", c, had, err)
		}
	}
	gone("second")

	owner := store.Key{APIKey: engine.APIKey{ID: "owner", OrganizationID: "org", UserID: "u-org", Name: "owner", CreatedAt: now}}
	if err := s.InsertUser(ctx, engine.User{ID: "u-org", Name: "u", Email: "u@example.com"}, engine.Organization{ID: "org", Name: "org", CreatedBy: "u-org"}, nil, owner, "secret owner"); err != nil {
		t.Fatal(err)
	}
	for id, expires := range map[string]time.Time{"never": {}, "later": now.Add(time.Hour), "over": now, "stranger": {}} {
		user := "u-org"
		if id == "stranger" {
			user = "u-gone"
		}
		key := store.Key{APIKey: engine.APIKey{ID: id, OrganizationID: "org", UserID: user, Name: id, CreatedAt: now, ExpiresAt: expires}}
		if err := s.InsertKey(ctx, key, "secret "+id); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]bool{"never": true, "later": true, "over": false, "stranger": false, "unknown": false, "": false} {
		if got, err := s.KeyHolds(ctx, id, now); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", id, got, err, want)
		}
	}
}
