package client_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func TestKeysTravel(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	c := gatewaytest.Client(t, s)
	ctx, nobody := t.Context(), engine.Principal{}
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	made, secret, err := c.Keys().Create(ctx, nobody, engine.CreateKey{Name: "a/b ü", Permissions: []string{engine.WriteSandboxes}, ExpiresAt: expires})
	if err != nil {
		t.Fatal(err)
	}
	want := engine.APIKey{
		OrganizationID: engine.DefaultOrganization, UserID: engine.DefaultUser, Name: "a/b ü", Permissions: []string{engine.WriteSandboxes},
		CreatedAt: made.CreatedAt, ExpiresAt: expires,
	}
	if d := cmp.Diff(want, made); d != "" {
		t.Error(d)
	}
	got, err := c.Keys().Key(ctx, nobody, "a/b ü")
	want.Prefix, want.Suffix = secret[:8], secret[40:]
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, _, err := c.Keys().Create(ctx, nobody, engine.CreateKey{Name: "all"}); err != nil {
		t.Error(err)
	}
	all, err := c.Keys().List(ctx, nobody)
	if err != nil || len(all) < 2 || !all[len(all)-1].Unrestricted || all[len(all)-1].Permissions != nil {
		t.Errorf("got %+v, %v", all, err)
	}
	for _, user := range []string{"", engine.DefaultUser} {
		name := map[string]string{"": "a/b ü", engine.DefaultUser: "all"}[user]
		if err := c.Keys().Revoke(ctx, nobody, user, name); err != nil {
			t.Error(err)
		}
		if err := c.Keys().Revoke(ctx, nobody, user, name); engine.KindOf(err) != engine.KindNotFound {
			t.Errorf("again: got %v", err)
		}
	}
	if err := c.Keys().Revoke(ctx, nobody, "", ""); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("no name: got %v", err)
	}
}

func TestUsersAndOrganizationsTravel(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	c := gatewaytest.Client(t, s)
	ctx, nobody := t.Context(), engine.Principal{}
	made, err := c.Users().CreateUser(ctx, nobody, engine.CreateUser{Name: "ann", Email: "ann@example.com", EmailVerified: true, Admin: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Users().User(ctx, nobody, made.User.ID)
	want := engine.User{ID: made.User.ID, Name: "ann", Email: "ann@example.com", EmailVerified: true, Admin: true, CreatedAt: got.CreatedAt}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if me, err := c.Users().User(ctx, nobody, ""); err != nil || me.ID != engine.DefaultUser {
		t.Errorf("got %+v, %v", me, err)
	}
	if all, err := c.Users().Users(ctx, nobody); err != nil || len(all) != 3 {
		t.Errorf("got %+v, %v", all, err)
	}
	hers, err := client.New(s.URL(), made.Secret, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := hers.CreateOrganization(ctx, "lab")
	if err != nil || o.Name != "lab" || o.CreatedBy != made.User.ID || o.DefaultRegion != "local" {
		t.Errorf("got %+v, %v", o, err)
	}
	if all, err := hers.Organizations(ctx); err != nil || len(all) != 4 {
		t.Errorf("an administrator sees all: got %+v, %v", all, err)
	}
	if err := hers.DeleteOrganization(ctx, o.ID); err != nil {
		t.Error(err)
	}
	if err := hers.DeleteOrganization(ctx, o.ID); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("again: got %v", err)
	}
}

func TestUsageAndAuditTravel(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	c := gatewaytest.Client(t, s)
	ctx, nobody := t.Context(), engine.Principal{}
	if _, err := c.Sandboxes().Create(ctx, engine.CreateSandbox{Name: "counted"}); err != nil {
		t.Fatal(err)
	}
	u, err := c.Usage(ctx, nobody, "")
	if err != nil || len(u.Regions) == 0 || u.Regions[0].OrganizationID != engine.DefaultOrganization {
		t.Errorf("usage: %+v, %v", u, err)
	}
	page, err := c.Audit(ctx, nobody, engine.AuditQuery{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(page.Items) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if page, err = c.Audit(ctx, nobody, engine.AuditQuery{Limit: 10}); err != nil {
			t.Fatal(err)
		}
	}
	if len(page.Items) == 0 || page.Items[0].Action == "" || page.Items[0].At.IsZero() || page.Items[0].OrganizationID != engine.DefaultOrganization {
		t.Errorf("audit: %+v", page)
	}
	if _, err := c.Audit(ctx, nobody, engine.AuditQuery{Filters: []engine.AuditFilter{{Field: "action", Op: "eq"}}}); engine.KindOf(err) != engine.KindUnsupported {
		t.Errorf("filters: got %v", err)
	}
}
