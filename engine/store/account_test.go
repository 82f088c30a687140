package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

func testKeys(t *testing.T, s *store.Store) {
	ctx := t.Context()
	want := store.Key{Admin: true, APIKey: engine.APIKey{
		ID: "k1", OrganizationID: "org", UserID: "u", Name: "admin", Prefix: "atl_abc", Suffix: "xyz", Unrestricted: true,
		Permissions: []string{"write:sandboxes"}, CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}}
	if err := s.InsertKey(ctx, want, "secret"); err != nil {
		t.Fatal(err)
	}
	got, err := s.KeyBySecret(ctx, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	_, err = s.KeyBySecret(ctx, "Secret")
	wantKind(t, err, engine.KindNotFound)
	if got, err := s.KeyByName(ctx, "org", "u", "admin"); err != nil || got.ID != "k1" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, other := range [][3]string{{"org2", "u", "admin"}, {"org", "u2", "admin"}, {"org", "u", "x"}} {
		_, err = s.KeyByName(ctx, other[0], other[1], other[2])
		wantKind(t, err, engine.KindNotFound)
		wantKind(t, s.DeleteKey(ctx, other[0], other[1], other[2]), engine.KindNotFound)
	}
	dup := want
	dup.ID = "k2"
	wantKind(t, s.InsertKey(ctx, dup, "secret2"), engine.KindConflict)
	if err := s.PutKey(ctx, dup, "secret2"); err != nil {
		t.Fatal(err)
	}
	_, err = s.KeyBySecret(ctx, "secret")
	wantKind(t, err, engine.KindNotFound)
	if err := s.TouchKey(ctx, "k2", now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	colleague := dup
	colleague.ID, colleague.UserID = "k3", "u2"
	if err := s.InsertKey(ctx, colleague, "secret3"); err != nil {
		t.Fatalf("the same name of another user: %v", err)
	}
	if err := s.DeleteKey(ctx, "org", "u2", "admin"); err != nil {
		t.Fatal(err)
	}
	keys, err := s.ListKeys(ctx, "org")
	if err != nil || len(keys) != 1 || !keys[0].LastUsedAt.Equal(now.Add(time.Minute)) {
		t.Errorf("got %+v, %v", keys, err)
	}
	if err := s.DeleteKey(ctx, "org", "u", "admin"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.DeleteKey(ctx, "org", "u", "admin"), engine.KindNotFound)
}

func number(f float64) *float64 { return &f }

func testUser(name string) engine.User {
	return engine.User{ID: "u-" + name, Name: name, Email: name + "@example.com", EmailVerified: true, Admin: true, CreatedAt: now}
}

func testOrganization(id, owner string) engine.Organization {
	return engine.Organization{
		ID: id, Name: "Org " + id, CreatedBy: owner, Personal: true, DefaultRegion: "local", LimitedEgress: true, PreviewWarning: true,
		Suspension: &engine.Suspension{Reason: "why", At: now, Until: now.Add(time.Hour), CleanupGraceHours: 2},
		Quota:      engine.Quota{MaxCPUPerSandbox: number(0), SandboxCreateRateLimit: number(5)}, CreatedAt: now, UpdatedAt: now,
	}
}

func testUsers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	u, o := testUser("ann"), testOrganization("o1", "u-ann")
	quota := &engine.RegionQuota{OrganizationID: "o1", Region: "local", Class: engine.ClassContainer, Limits: engine.RegionLimits{TotalCPU: number(2)}}
	key := store.Key{APIKey: engine.APIKey{ID: "k", OrganizationID: "o1", UserID: u.ID, Name: "first", CreatedAt: now}}
	if err := s.InsertUser(ctx, u, o, quota, key, "secret"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.User(ctx, u.ID); err != nil || cmp.Diff(u, got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := s.Organization(ctx, "o1"); err != nil || cmp.Diff(o, got) != "" {
		t.Errorf("%s, %v", cmp.Diff(o, got), err)
	}
	if got, err := s.RegionQuotas(ctx, "o1"); err != nil || cmp.Diff([]engine.RegionQuota{*quota}, got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	members, err := s.Members(ctx, "o1", "")
	if err != nil || len(members) != 1 || members[0].Role != engine.RoleOwner || members[0].Email != u.Email {
		t.Errorf("got %+v, %v", members, err)
	}
	// A taken address, whatever its case, leaves nothing behind.
	twin := testUser("bob")
	twin.Email = "ANN@example.com"
	key.ID, key.OrganizationID, key.UserID = "k2", "o2", twin.ID
	wantKind(t, s.InsertUser(ctx, twin, testOrganization("o2", twin.ID), nil, key, "secret2"), engine.KindConflict)
	_, err = s.Organization(ctx, "o2")
	wantKind(t, err, engine.KindNotFound)
	if all, err := s.Users(ctx); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := s.EnsureAccount(ctx, u, o); err != nil {
		t.Error(err)
	}
	_, err = s.User(ctx, "nobody")
	wantKind(t, err, engine.KindNotFound)
}

func testOrganizations(t *testing.T, s *store.Store) {
	ctx := t.Context()
	plain := engine.Organization{ID: "o1", Name: "One", CreatedBy: "u-ann", CreatedAt: now, UpdatedAt: now}
	for range 2 {
		if err := s.EnsureAccount(ctx, testUser("ann"), plain); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.InsertOrganization(ctx, engine.Organization{ID: "o2", Name: "Two", CreatedBy: "u-bob", CreatedAt: now.Add(1000), UpdatedAt: now}); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]int{"": 2, "u-ann": 1, "u-bob": 1, "nobody": 0} {
		if got, err := s.Organizations(ctx, user); err != nil || len(got) != want {
			t.Errorf("of %q: got %+v, %v, want %d", user, got, err, want)
		}
	}
	err := s.ChangeOrganization(ctx, "o1", func(o *engine.Organization) { o.PreviewWarning = true })
	plain.PreviewWarning = true
	if got, gerr := s.Organization(ctx, "o1"); err != nil || gerr != nil || cmp.Diff(plain, got) != "" {
		t.Errorf("%s, %v, %v", cmp.Diff(plain, got), err, gerr)
	}
	wantKind(t, s.ChangeOrganization(ctx, "o3", func(*engine.Organization) {}), engine.KindNotFound)

	sb := sandbox("held")
	sb.OrganizationID = "o1"
	insert(t, s, sb)
	wantKind(t, s.DeleteOrganization(ctx, "o1"), engine.KindConflict)
	if err := s.DeleteSandbox(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertKey(ctx, store.Key{APIKey: engine.APIKey{ID: "k", OrganizationID: "o1", UserID: "u-ann", Name: "k"}}, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteOrganization(ctx, "o1"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.DeleteOrganization(ctx, "o1"), engine.KindNotFound)
	_, err = s.KeyBySecret(ctx, "secret")
	wantKind(t, err, engine.KindNotFound)
	if members, err := s.Members(ctx, "o1", ""); err != nil || len(members) != 0 {
		t.Errorf("got %+v, %v", members, err)
	}
}

func testMembers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	for name, id := range map[string]string{"ann": "o", "bob": "bobs"} {
		if err := s.EnsureAccount(ctx, testUser(name), engine.Organization{ID: id, Name: "O", CreatedBy: "u-" + name, CreatedAt: now, UpdatedAt: now}); err != nil {
			t.Fatal(err)
		}
	}
	role := engine.Role{ID: "r1", OrganizationID: "o", Name: "Ops", Description: "d", Permissions: []string{"read:limits"}, CreatedAt: now, UpdatedAt: now}
	if err := s.InsertRole(ctx, role); err != nil {
		t.Fatal(err)
	}
	twin := role
	twin.ID = "r2"
	wantKind(t, s.InsertRole(ctx, twin), engine.KindConflict)
	twin.OrganizationID = "other"
	wantKind(t, s.UpdateRole(ctx, twin), engine.KindNotFound)
	role.Permissions, role.UpdatedAt = nil, now.Add(time.Minute)
	if err := s.UpdateRole(ctx, role); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Roles(ctx, "o"); err != nil || cmp.Diff([]engine.Role{role}, got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}

	inv := store.Invitation{RoleIDs: []string{"r1"}, Invitation: engine.Invitation{
		ID: "i1", OrganizationID: "o", OrganizationName: "O", Email: "Bob@example.com", InvitedBy: "u-ann", Status: engine.InvitationPending,
		Role: engine.RoleMember, ExpiresAt: now.Add(time.Hour), CreatedAt: now, UpdatedAt: now,
	}}
	if err := s.InsertInvitation(ctx, inv); err != nil {
		t.Fatal(err)
	}
	again := inv
	again.ID, again.Email = "i2", "bob@EXAMPLE.com"
	wantKind(t, s.InsertInvitation(ctx, again), engine.KindConflict)
	for _, q := range []store.InvitationQuery{{}, {ID: "i1"}, {OrganizationID: "o"}, {Email: "BOB@example.com"}, {Status: "pending", Email: "bob@example.com"}} {
		if got, err := s.Invitations(ctx, q); err != nil || cmp.Diff([]store.Invitation{inv}, got) != "" {
			t.Errorf("%+v: %s, %v", q, cmp.Diff([]store.Invitation{inv}, got), err)
		}
	}
	if got, err := s.Invitations(ctx, store.InvitationQuery{Status: "accepted"}); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	inv.Status = engine.InvitationAccepted
	if err := s.UpdateInvitation(ctx, inv, "u-bob"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.UpdateInvitation(ctx, inv, "u-bob"), engine.KindConflict)
	members, err := s.Members(ctx, "o", "u-bob")
	if err != nil || len(members) != 1 || members[0].Role != engine.RoleMember || members[0].RoleIDs[0] != "r1" {
		t.Errorf("got %+v, %v", members, err)
	}

	if err := s.DeleteRole(ctx, "o", "r1"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.DeleteRole(ctx, "o", "r1"), engine.KindNotFound)
	if members, err := s.Members(ctx, "o", "u-bob"); err != nil || len(members[0].RoleIDs) != 0 {
		t.Errorf("after the role went: got %+v, %v", members, err)
	}
	// The last owner stays one.
	wantKind(t, s.SetAccess(ctx, "o", "u-ann", engine.Access{Role: engine.RoleMember}, now), engine.KindInvalid)
	wantKind(t, s.DeleteMember(ctx, "o", "u-ann"), engine.KindInvalid)
	wantKind(t, s.SetAccess(ctx, "o", "nobody", engine.Access{Role: engine.RoleMember}, now), engine.KindNotFound)
	if err := s.SetAccess(ctx, "o", "u-bob", engine.Access{Role: engine.RoleOwner}, now); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertKey(ctx, store.Key{APIKey: engine.APIKey{ID: "k", OrganizationID: "o", UserID: "u-ann", Name: "k"}}, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMember(ctx, "o", "u-ann"); err != nil {
		t.Fatal(err)
	}
	_, err = s.KeyBySecret(ctx, "secret")
	wantKind(t, err, engine.KindNotFound)
}

func testUsage(t *testing.T, s *store.Store) {
	ctx := t.Context()
	for name, state := range map[string]engine.State{"a": engine.StateStarted, "b": engine.StateStopped, "c": engine.StateDestroyed, "d": engine.StateCreating} {
		sb := sandbox(name)
		sb.State = state
		insert(t, s, sb)
	}
	other := sandbox("other")
	other.OrganizationID = "elsewhere"
	insert(t, s, other)
	want := []store.Use{{Class: engine.ClassContainer, CPU: 1, MemoryMiB: 2048, GPU: 2, DiskMiB: 3 * 3072}}
	got, err := s.Usage(ctx, "org", "")
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if got, err := s.Usage(ctx, "nobody", ""); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}

	q := engine.RegionQuota{OrganizationID: "org", Region: "local", Class: engine.ClassContainer, Limits: engine.RegionLimits{TotalCPU: number(1), AllowedGPUTypes: []string{"x"}}}
	if err := s.InsertRegionQuota(ctx, q); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.InsertRegionQuota(ctx, q), engine.KindConflict)
	q.Limits.TotalCPU = nil
	if err := s.PutRegionQuota(ctx, q); err != nil {
		t.Fatal(err)
	}
	if got, err := s.RegionQuotas(ctx, "org"); err != nil || cmp.Diff([]engine.RegionQuota{q}, got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := s.DeleteRegionQuota(ctx, "org", "local", engine.ClassContainer); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.DeleteRegionQuota(ctx, "org", "local", engine.ClassContainer), engine.KindNotFound)
	for i, state := range []engine.SnapshotState{engine.SnapshotActive, engine.SnapshotError, engine.SnapshotPulling} {
		sn := engine.Snapshot{ID: fmt.Sprint(i), OrganizationID: "org", Name: fmt.Sprint("s", i), State: state}
		if err := s.InsertSnapshot(ctx, sn); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.CountSnapshots(ctx, "org"); err != nil || n != 2 {
		t.Errorf("got %d, %v, want 2", n, err)
	}
}

func testAudit(t *testing.T, s *store.Store) {
	ctx := t.Context()
	entry := engine.AuditEntry{
		OrganizationID: "org", At: now, ActorID: "u", ActorEmail: "u@example.com", KeyPrefix: "atl_", KeySuffix: "xyz", Action: "create",
		TargetType: "sandbox", TargetID: "s", Status: 200, Error: "e", IP: "198.51.100.1", UserAgent: "ua", Source: "cli", Metadata: map[string]string{"a": "b"},
	}
	for i := range 5 {
		e := entry
		e.ID, e.At, e.Status = fmt.Sprint(i), now.Add(time.Duration(i)*time.Hour), 200+i
		if err := s.AppendAudit(ctx, e, engine.AuditEntry{OrganizationID: "other", Action: "x", At: now}); err != nil {
			t.Fatal(err)
		}
	}
	ids := func(q engine.AuditQuery) string {
		t.Helper()
		page, err := s.Audit(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, e := range page.Items {
			out += e.ID
		}
		return fmt.Sprint(out, " ", page.Total, page.Next)
	}
	where := func(field, op string, values ...any) engine.AuditQuery {
		return engine.AuditQuery{OrganizationID: "org", Filters: []engine.AuditFilter{{Field: field, Op: op, Values: values}}}
	}
	for _, c := range []struct {
		q    engine.AuditQuery
		want string
	}{
		{engine.AuditQuery{OrganizationID: "org"}, "43210 5"},
		{engine.AuditQuery{OrganizationID: "org", Limit: 2}, "43 53"},
		{engine.AuditQuery{OrganizationID: "org", Limit: 2, Page: 2}, "21 51"},
		{engine.AuditQuery{OrganizationID: "org", Limit: 2, Next: "1"}, "0 5"},
		{where("statusCode", "gte", 203), "43 2"},
		{where("statusCode", "in", 200, 204, 999), "40 2"},
		{where("statusCode", "notIn", 200, 204), "321 3"},
		{where("action", "not", "create"), " 0"},
		{where("actorApiKeySuffix", "eq", "xyz"), "43210 5"},
		{where("targetId", "eq", "' OR 1=1 --"), " 0"},
		{where("createdAt", "lt", now.Add(time.Hour)), "0 1"},
	} {
		if got := ids(c.q); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.q, got, c.want)
		}
	}
	page, err := s.Audit(ctx, where("id", "eq", "0"))
	entry.ID = "0"
	if d := cmp.Diff([]engine.AuditEntry{entry}, page.Items); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []engine.AuditQuery{where("at", "eq", 1), where("id", "like", "x"), where("id", "eq"), {Limit: 500}} {
		_, err := s.Audit(ctx, bad)
		wantKind(t, err, engine.KindInvalid)
	}
	if err := s.PurgeAudit(ctx, now.Add(time.Hour), 100); err != nil {
		t.Fatal(err)
	}
	if got := ids(engine.AuditQuery{}); got != "4321 4" {
		t.Errorf("after what is old went: got %q", got)
	}
	if err := s.PurgeAudit(ctx, now, 2); err != nil {
		t.Fatal(err)
	}
	if got := ids(engine.AuditQuery{}); got != "43 2" {
		t.Errorf("after what is too much went: got %q", got)
	}
}
