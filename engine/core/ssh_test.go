package core_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/store"
)

// sshRig is a core whose toolboxes are never asked, and a caller with a key.
func sshRig(t *testing.T, expires time.Time) (*rig, engine.Principal) {
	t.Helper()
	r := newRig(t, func(c *core.Config) { c.Dialer = refusing{} })
	key := store.Key{APIKey: engine.APIKey{ID: uuid.NewString(), OrganizationID: org, Name: "k", CreatedAt: r.clock.Now(), ExpiresAt: expires}}
	key.UserID = "u-ssh"
	owner := engine.Organization{ID: org, Name: "o", CreatedBy: key.UserID}
	r.ok(r.store.InsertUser(t.Context(), engine.User{ID: key.UserID, Name: "u", Email: "u@example.com"}, owner, nil, key, "secret of k"))
	return r, engine.Principal{OrganizationID: org, KeyID: key.ID}
}

func (r *rig) grant(p engine.Principal, name string) string {
	r.t.Helper()
	_, token, err := r.SSH().Grant(r.t.Context(), p, ref(name), time.Hour)
	r.ok(err)
	return token
}

func (r *rig) enter(token string) *engine.SSHVisit {
	r.t.Helper()
	v, err := r.SSH().Enter(r.t.Context(), token)
	r.ok(err)
	r.t.Cleanup(v.Leave)
	return v
}

// over waits for the end of a visit and returns why it ended.
func over(t *testing.T, v *engine.SSHVisit) error {
	t.Helper()
	select {
	case <-v.Life.Done():
	case <-time.After(time.Minute):
		t.Fatal("the visit goes on")
	}
	return context.Cause(v.Life)
}

func TestSSHAccess(t *testing.T) {
	r, p := sshRig(t, time.Time{})
	one := r.create("one")
	r.create("two")
	first := r.grant(p, "one")
	a, err := r.SSH().Check(t.Context(), first)
	r.ok(err)
	if a.SandboxID != one.ID || a.OrganizationID != org || a.KeyID != p.KeyID || !strings.HasPrefix(first, "ssh_") || len(first) < 30 {
		t.Errorf("got %+v for %q", a, first)
	}
	v := r.enter(first)
	other := r.enter(r.grant(p, "two"))
	r.clock.Advance(10 * time.Minute)
	second := r.grant(p, "one") // in place of the first
	if why := over(t, v); !strings.Contains(why.Error(), "revoked") {
		t.Errorf("got %v", why)
	}
	_, err = r.SSH().Check(t.Context(), first)
	wantKind(t, err, engine.KindUnauthenticated)
	v = r.enter(second)
	_, err = r.SSH().Revoke(t.Context(), ref("one"), first)
	wantKind(t, err, engine.KindNotFound)
	_, err = r.SSH().Revoke(t.Context(), ref("one"), second)
	r.ok(err)
	_ = over(t, v)
	_, err = r.SSH().Revoke(t.Context(), ref("one"), "")
	r.ok(err)
	if other.Life.Err() != nil {
		t.Errorf("the other sandbox's visit ended: %v", context.Cause(other.Life))
	}
	for _, d := range []time.Duration{0, -time.Hour, 31 * 24 * time.Hour} {
		_, _, err := r.SSH().Grant(t.Context(), p, ref("one"), d)
		wantKind(t, err, engine.KindInvalid)
	}
	_, _, err = r.SSH().Grant(t.Context(), p, engine.SandboxRef{OrganizationID: "other", IDOrName: one.ID}, time.Hour)
	wantKind(t, err, engine.KindNotFound)
	for _, token := range []string{"", "ssh_", "atl_x", second, strings.Repeat("x", 1000)} {
		_, err := r.SSH().Enter(t.Context(), token)
		wantKind(t, err, engine.KindUnauthenticated)
	}
}

// TestSSHVisitEnds stops, deletes and restarts a sandbox under its visitors.
func TestSSHVisitEnds(t *testing.T) {
	r, p := sshRig(t, time.Time{})
	r.create("one")
	token := r.grant(p, "one")
	v := r.enter(token)
	_, err := r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})
	r.ok(err)
	if why := over(t, v); !strings.Contains(why.Error(), "stopped") {
		t.Errorf("got %v", why)
	}
	_, err = r.SSH().Enter(t.Context(), token)
	wantKind(t, err, engine.KindConflict)
	_, err = r.Sandboxes().Start(t.Context(), ref("one"))
	r.ok(err)
	v = r.enter(token)
	_, err = r.Sandboxes().Delete(t.Context(), ref("one"))
	r.ok(err)
	_ = over(t, v)
	_, err = r.SSH().Enter(t.Context(), token)
	wantKind(t, err, engine.KindUnauthenticated)
}

// TestSSHRechecks changes what only the database knows.
func TestSSHRechecks(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig, id string)
		want   string
	}{
		"expired":           {func(r *rig, _ string) { r.clock.Advance(2 * time.Hour) }, "expired"},
		"key lost":          {func(r *rig, _ string) { r.clock.Advance(40 * time.Minute) }, "not valid"},
		"by another server": {func(r *rig, id string) { _, err := r.store.DeleteSSHAccess(r.t.Context(), id, ""); r.ok(err) }, "not valid"},
		"the server ends":   {func(r *rig, _ string) { r.ok(r.Close(r.t.Context())) }, "stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, p := sshRig(t, time.Time{})
			if name == "key lost" {
				r, p = sshRig(t, r.clock.Now().Add(30*time.Minute))
			}
			sb := r.create("one")
			v := r.enter(r.grant(p, "one"))
			c.change(r, sb.ID)
			if why := over(t, v); !strings.Contains(why.Error(), c.want) {
				t.Errorf("got %v, want %q", why, c.want)
			}
		})
	}
}

func TestSSHVisitKeepsSandboxAwake(t *testing.T) {
	r, p := sshRig(t, time.Time{})
	sb := r.create("one")
	v := r.enter(r.grant(p, "one"))
	r.clock.Advance(time.Hour / 2)
	v.Leave()
	v.Leave()
	got, err := r.Sandboxes().Sandbox(t.Context(), ref("one"))
	r.ok(err)
	if woke := got.LastActive.Sub(sb.LastActive); woke < time.Hour/2 {
		t.Errorf("it was last active %v after its start, want when the visit ended", woke)
	}
}
