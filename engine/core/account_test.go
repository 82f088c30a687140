package core_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

// people is a rig with an administrator, an owner and their organization.
type people struct {
	*rig
	engine.Accounts
	admin, owner engine.Principal
	org          string
}

func newPeople(t *testing.T) *people {
	t.Helper()
	r := newRig(t)
	secret := core.NewSecret()
	r.ok(r.Keys().EnsureAdmin(t.Context(), secret))
	p := &people{rig: r, Accounts: r.Core.Accounts()}
	p.admin = p.who(secret)
	p.owner, p.org = p.user("ann")
	return p
}

func (p *people) who(secret string) engine.Principal {
	p.t.Helper()
	got, err := p.Core.Keys().Authenticate(p.t.Context(), secret)
	p.ok(err)
	return got
}

func (p *people) user(name string) (engine.Principal, string) {
	p.t.Helper()
	u, err := p.Users.CreateUser(p.t.Context(), p.admin, engine.CreateUser{Name: name, Email: name + "@example.com"})
	p.ok(err)
	return p.who(u.Secret), u.Organization.ID
}

// key makes a key and returns whom it belongs to, and the secret.
func (p *people) key(of engine.Principal, name string, permissions []string) (engine.Principal, string) {
	p.t.Helper()
	_, secret, err := p.Keys.Create(p.t.Context(), of, engine.CreateKey{Name: name, Permissions: permissions})
	p.ok(err)
	return p.who(secret), secret
}

// join makes a new user a member of the owner's organization, and returns a
// key of theirs there.
func (p *people) join(name string, access engine.Access) (engine.Principal, string) {
	p.t.Helper()
	u, _ := p.user(name)
	i, err := p.Invitations.Invite(p.t.Context(), p.owner, p.org, strings.ToUpper(name)+"@example.com", access, time.Time{})
	p.ok(err)
	p.ok(second(p.Invitations.Answer(p.t.Context(), u, i.ID, true)))
	_, secret, err := p.Keys.Create(p.t.Context(), u, engine.CreateKey{OrganizationID: p.org, Name: "here"})
	p.ok(err)
	return p.who(secret), secret
}

func member(roles ...string) engine.Access {
	return engine.Access{Role: engine.RoleMember, RoleIDs: roles}
}

func num(f float64) *float64 { return &f }

func TestKeysGrantNoMoreThanTheirMaker(t *testing.T) {
	p := newPeople(t)
	limited, _ := p.key(p.owner, "limited", []string{engine.ManageKeys, engine.WriteSandboxes})
	reader, _ := p.key(p.owner, "reader", []string{})
	if len(reader.Permissions) != 0 || reader.Unrestricted {
		t.Errorf("a key with an empty list: got %+v", reader)
	}
	dev, _ := p.join("dev", member(engine.DeveloperRole))
	for name, c := range map[string]struct {
		by   engine.Principal
		req  engine.CreateKey
		want engine.Kind
	}{
		"more than the key has":            {limited, engine.CreateKey{Name: "x", Permissions: []string{engine.DeleteSandboxes}}, engine.KindDenied},
		"unrestricted by a restricted key": {limited, engine.CreateKey{Name: "x"}, engine.KindDenied},
		"no right to make keys":            {reader, engine.CreateKey{Name: "x", Permissions: []string{}}, engine.KindDenied},
		"more than a member's roles":       {dev, engine.CreateKey{Name: "x", Permissions: []string{engine.ReadAudit}}, engine.KindDenied},
		"of another user":                  {p.owner, engine.CreateKey{Name: "x", UserID: dev.UserID}, engine.KindDenied},
		"in an organization of others":     {p.owner, engine.CreateKey{Name: "x", OrganizationID: engine.DefaultOrganization}, engine.KindNotFound},
		"in another with a restricted key": {limited, engine.CreateKey{Name: "x", OrganizationID: engine.DefaultOrganization, Permissions: []string{}}, engine.KindNotFound},
		"of a user who is no member":       {p.admin, engine.CreateKey{Name: "x", UserID: dev.UserID}, engine.KindNotFound},
		"unknown permission":               {p.owner, engine.CreateKey{Name: "x", Permissions: []string{"write:all"}}, engine.KindInvalid},
		"admin as a permission":            {p.owner, engine.CreateKey{Name: "x", Permissions: []string{"admin"}}, engine.KindInvalid},
		"a permission twice":               {p.owner, engine.CreateKey{Name: "x", Permissions: []string{engine.ReadAudit, engine.ReadAudit}}, engine.KindInvalid},
		"no name":                          {p.owner, engine.CreateKey{Name: " ", Permissions: []string{}}, engine.KindInvalid},
		"a name that stands for a key":     {p.owner, engine.CreateKey{Name: "current", Permissions: []string{}}, engine.KindInvalid},
		"a name with control characters":   {p.owner, engine.CreateKey{Name: "a\nb", Permissions: []string{}}, engine.KindInvalid},
		"a time that has passed":           {p.owner, engine.CreateKey{Name: "x", ExpiresAt: p.clock.Now()}, engine.KindInvalid},
		"a taken name":                     {p.owner, engine.CreateKey{Name: "reader", Permissions: []string{}}, engine.KindConflict},
	} {
		before, err := p.Keys.List(t.Context(), p.admin)
		p.ok(err)
		_, secret, err := p.Keys.Create(t.Context(), c.by, c.req)
		if engine.KindOf(err) != c.want || secret != "" {
			t.Errorf("%s: got %q, %v, want %s", name, secret, err, c.want)
		}
		if after, err := p.Keys.List(t.Context(), p.admin); err != nil || len(after) != len(before) {
			t.Errorf("%s: left something behind: %v", name, after)
		}
	}
	// What an administrator makes for themselves is an administrator's, unless it is restricted.
	second, _ := p.key(p.admin, "second", nil)
	exact, _ := p.key(p.admin, "exact", engine.Permissions())
	if !second.Admin || exact.Admin || exact.Unrestricted || len(exact.Permissions) != len(engine.Permissions()) {
		t.Errorf("got %+v and %+v", second, exact)
	}
}

func TestKeysAreSeenByTheirUserAndOwners(t *testing.T) {
	p := newPeople(t)
	dev, _ := p.join("dev", member(engine.DeveloperRole))
	names := func(who engine.Principal) string {
		t.Helper()
		all, err := p.Keys.List(t.Context(), who)
		p.ok(err)
		var out []string
		for _, k := range all {
			out = append(out, k.Name)
		}
		return strings.Join(out, " ")
	}
	reader, _ := p.key(p.owner, "reader", []string{})
	for _, c := range []struct {
		who  engine.Principal
		want string
	}{{p.owner, "first here reader"}, {dev, "here"}, {reader, "first reader"}, {p.admin, "admin"}} {
		if got := names(c.who); got != c.want {
			t.Errorf("%s: got %q, want %q", c.who.KeyName, got, c.want)
		}
	}
	wantKind(t, p.Keys.Revoke(t.Context(), dev, p.owner.UserID, "reader"), engine.KindDenied)
	wantKind(t, p.Keys.Revoke(t.Context(), reader, "", "reader"), engine.KindDenied)
	wantKind(t, p.Keys.Revoke(t.Context(), p.owner, "", "nope"), engine.KindNotFound)
	wantKind(t, p.Keys.Revoke(t.Context(), p.admin, "", "admin"), engine.KindDenied)
	p.ok(p.Keys.Revoke(t.Context(), p.owner, dev.UserID, "here"))
	if got := names(p.owner); got != "first reader" {
		t.Errorf("got %q", got)
	}
}

// What a member may do follows their roles at once, for keys in use too.
func TestRolesActAtOnce(t *testing.T) {
	p := newPeople(t)
	role, err := p.Roles.CreateRole(t.Context(), p.owner, engine.Role{OrganizationID: p.org, Name: "Ops", Permissions: []string{engine.ReadLimits}})
	p.ok(err)
	ops, secret := p.join("ops", member(role.ID))
	if d := cmp.Diff([]string{engine.ReadLimits}, ops.Permissions); d != "" {
		t.Error(d)
	}
	told := p.Core.Keys().Changed()
	role.Permissions = []string{engine.ReadAudit, engine.WriteSandboxes}
	p.ok(second(p.Roles.UpdateRole(t.Context(), p.owner, role)))
	select {
	case <-told:
	default:
		t.Error("nobody was told of the change")
	}
	if got := p.who(secret).Permissions; !slices.Equal(got, []string{engine.WriteSandboxes, engine.ReadAudit}) {
		t.Errorf("after the role changed: got %v", got)
	}
	p.ok(second(p.Members.SetAccess(t.Context(), p.owner, p.org, ops.UserID, engine.Access{Role: engine.RoleOwner})))
	if got := p.who(secret); got.Role != engine.RoleOwner || len(got.Permissions) != len(engine.Permissions()) {
		t.Errorf("as an owner: got %+v", got)
	}
	p.ok(second(p.Members.SetAccess(t.Context(), p.owner, p.org, ops.UserID, member(role.ID))))
	p.ok(p.Roles.DeleteRole(t.Context(), p.owner, p.org, role.ID))
	if got := p.who(secret).Permissions; len(got) != 0 {
		t.Errorf("without the role: got %v", got)
	}
	p.ok(p.Members.Remove(t.Context(), p.owner, p.org, ops.UserID))
	_, err = p.Core.Keys().Authenticate(t.Context(), secret)
	wantKind(t, err, engine.KindUnauthenticated)
}

func TestRolesRefuse(t *testing.T) {
	p := newPeople(t)
	dev, _ := p.join("dev", member(engine.DeveloperRole))
	restricted, _ := p.key(p.owner, "all", engine.Permissions())
	ctx := t.Context()
	create := func(who engine.Principal, r engine.Role) error {
		r.OrganizationID = p.org
		return second(p.Roles.CreateRole(ctx, who, r))
	}
	p.ok(create(p.owner, engine.Role{Name: "taken"}))
	wantKind(t, create(dev, engine.Role{Name: "x"}), engine.KindDenied)
	wantKind(t, create(restricted, engine.Role{Name: "x"}), engine.KindDenied)
	wantKind(t, create(p.owner, engine.Role{Name: "taken"}), engine.KindConflict)
	wantKind(t, create(p.owner, engine.Role{Name: "developer"}), engine.KindConflict)
	wantKind(t, create(p.owner, engine.Role{Name: ""}), engine.KindInvalid)
	wantKind(t, create(p.owner, engine.Role{Name: "x", Permissions: []string{"owner"}}), engine.KindInvalid)
	wantKind(t, p.Roles.DeleteRole(ctx, p.owner, p.org, engine.DeveloperRole), engine.KindDenied)
	wantKind(t, p.Roles.DeleteRole(ctx, p.owner, p.org, "nope"), engine.KindNotFound)
	wantKind(t, second(p.Roles.UpdateRole(ctx, p.owner, engine.Role{ID: engine.DeveloperRole, OrganizationID: p.org, Name: "x"})), engine.KindDenied)
	wantKind(t, second(p.Members.SetAccess(ctx, p.owner, p.org, dev.UserID, member("nope"))), engine.KindNotFound)
	wantKind(t, second(p.Members.SetAccess(ctx, p.owner, p.org, dev.UserID, engine.Access{Role: "king"})), engine.KindInvalid)
	wantKind(t, second(p.Members.SetAccess(ctx, dev, p.org, dev.UserID, engine.Access{Role: engine.RoleOwner})), engine.KindDenied)
	wantKind(t, p.Members.Remove(ctx, p.owner, p.org, ""), engine.KindInvalid) // the last owner
	wantKind(t, p.Members.Remove(ctx, p.admin, engine.DefaultOrganization, ""), engine.KindInvalid)
	p.ok(p.Members.Remove(ctx, dev, p.org, ""))
	wantKind(t, p.Members.Remove(ctx, dev, p.org, ""), engine.KindNotFound)
}

func TestInvitations(t *testing.T) {
	p := newPeople(t)
	ctx := t.Context()
	bob, _ := p.user("bob")
	invite := func(email string, expires time.Time) (engine.Invitation, error) {
		return p.Invitations.Invite(ctx, p.owner, p.org, email, member(engine.DeveloperRole), expires)
	}
	i, err := invite("bob@example.com", time.Time{})
	p.ok(err)
	if i.Status != engine.InvitationPending || i.OrganizationName != "ann" || len(i.Roles) != 1 || i.ExpiresAt.Sub(i.CreatedAt) < 6*24*time.Hour {
		t.Errorf("got %+v", i)
	}
	wantKind(t, second(invite("BOB@example.com", time.Time{})), engine.KindConflict)
	wantKind(t, second(invite("ann@example.com", time.Time{})), engine.KindConflict) // a member
	wantKind(t, second(invite("not an address", time.Time{})), engine.KindInvalid)
	wantKind(t, second(invite("x@example.com", p.clock.Now())), engine.KindInvalid)
	mine, err := p.Invitations.Invited(ctx, bob)
	if err != nil || len(mine) != 1 || mine[0].ID != i.ID {
		t.Errorf("got %+v, %v", mine, err)
	}
	i, err = p.Invitations.UpdateInvitation(ctx, p.owner, p.org, i.ID, engine.Access{Role: engine.RoleOwner}, p.clock.Now().Add(time.Hour))
	p.ok(err)
	if i.Role != engine.RoleOwner || len(i.Roles) != 0 {
		t.Errorf("got %+v", i)
	}
	// Only the invited may answer, in time, once.
	wantKind(t, second(p.Invitations.Answer(ctx, p.admin, i.ID, true)), engine.KindNotFound)
	p.clock.Advance(2 * time.Hour)
	wantKind(t, second(p.Invitations.Answer(ctx, bob, i.ID, true)), engine.KindInvalid)
	if mine, err := p.Invitations.Invited(ctx, bob); err != nil || len(mine) != 0 {
		t.Errorf("after its time: got %+v, %v", mine, err)
	}
	again, err := invite("bob@example.com", time.Time{})
	p.ok(err)
	p.ok(second(p.Invitations.Answer(ctx, bob, again.ID, false)))
	wantKind(t, second(p.Invitations.Answer(ctx, bob, again.ID, true)), engine.KindConflict)
	third, err := invite("bob@example.com", time.Time{})
	p.ok(err)
	p.ok(p.Invitations.CancelInvitation(ctx, p.owner, p.org, third.ID))
	wantKind(t, p.Invitations.CancelInvitation(ctx, p.owner, p.org, third.ID), engine.KindConflict)
	wantKind(t, p.Invitations.CancelInvitation(ctx, bob, p.org, third.ID), engine.KindNotFound)
	all, err := p.Invitations.Invitations(ctx, p.owner, p.org)
	var states []string
	for _, i := range all {
		states = append(states, i.Status)
	}
	if d := cmp.Diff([]string{"cancelled", "declined", "cancelled"}, states); d != "" || err != nil {
		t.Error(d, err)
	}
}

// An unrestricted key reaches its user's other organizations, and there what
// counts is what the user is there.
func TestPermissionsAreOfTheOrganization(t *testing.T) {
	p := newPeople(t)
	bob, _ := p.user("bob") // an owner at home
	i, err := p.Invitations.Invite(t.Context(), p.owner, p.org, "bob@example.com", member(), time.Time{})
	p.ok(err)
	p.ok(second(p.Invitations.Answer(t.Context(), bob, i.ID, true)))
	usage := func(org string) error { return second(p.Organizations.Usage(t.Context(), bob, org)) }
	audit := func(org string) error {
		return second(p.Audit.Audit(t.Context(), bob, engine.AuditQuery{OrganizationID: org}))
	}
	p.ok(usage(bob.OrganizationID))
	p.ok(audit(bob.OrganizationID))
	wantKind(t, usage(p.org), engine.KindDenied)
	wantKind(t, audit(p.org), engine.KindDenied)
	wantKind(t, usage(engine.DefaultOrganization), engine.KindNotFound)
	p.ok(second(p.Members.SetAccess(t.Context(), p.owner, p.org, bob.UserID, engine.Access{Role: engine.RoleOwner})))
	p.ok(usage(p.org))
	p.ok(audit(p.org))
}

func TestOrganizations(t *testing.T) {
	p := newPeople(t)
	ctx := t.Context()
	o, err := p.Organizations.CreateOrganization(ctx, p.owner, " Second ", "local", "")
	p.ok(err)
	list := func(who engine.Principal) int {
		t.Helper()
		all, err := p.Organizations.Organizations(ctx, who)
		p.ok(err)
		return len(all)
	}
	restricted, _ := p.key(p.owner, "restricted", engine.Permissions())
	if a, b, c := list(p.owner), list(restricted), list(p.admin); o.Name != "Second" || a != 2 || b != 1 || c != 3 {
		t.Errorf("got %+v; seen %d, %d and %d", o, a, b, c)
	}
	for name, err := range map[string]error{
		"no name":        second(p.Organizations.CreateOrganization(ctx, p.owner, " ", "", "")),
		"unknown region": second(p.Organizations.CreateOrganization(ctx, p.owner, "x", "mars", "")),
		"of another":     second(p.Organizations.CreateOrganization(ctx, p.owner, "x", "", engine.DefaultUser)),
		"restricted":     second(p.Organizations.CreateOrganization(ctx, restricted, "x", "", "")),
		"no such owner":  second(p.Organizations.CreateOrganization(ctx, p.admin, "x", "", "nobody")),
	} {
		if err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if list(p.admin) != 3 {
		t.Error("a refused one was made")
	}
	// A key in the new one is the way into it.
	_, secret, err := p.Keys.Create(ctx, p.owner, engine.CreateKey{OrganizationID: o.ID, Name: "second"})
	p.ok(err)
	there := p.who(secret)
	if there.OrganizationID != o.ID || there.Role != engine.RoleOwner {
		t.Errorf("got %+v", there)
	}
	p.ok(second(p.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: o.ID, Name: "a"})))
	wantKind(t, p.Organizations.DeleteOrganization(ctx, p.owner, o.ID), engine.KindConflict)
	p.ok(second(p.Sandboxes().Delete(ctx, engine.SandboxRef{OrganizationID: o.ID, IDOrName: "a"})))
	wantKind(t, p.Organizations.DeleteOrganization(ctx, restricted, o.ID), engine.KindDenied)
	p.ok(p.Organizations.DeleteOrganization(ctx, p.owner, o.ID))
	_, err = p.Core.Keys().Authenticate(ctx, secret)
	wantKind(t, err, engine.KindUnauthenticated)
	wantKind(t, p.Organizations.DeleteOrganization(ctx, p.admin, engine.DefaultOrganization), engine.KindInvalid)
}

func TestUsersRefuse(t *testing.T) {
	p := newPeople(t)
	for name, c := range map[string]struct {
		by   engine.Principal
		req  engine.CreateUser
		want engine.Kind
	}{
		"not by an owner": {p.owner, engine.CreateUser{Name: "x"}, engine.KindDenied},
		"no name":         {p.admin, engine.CreateUser{}, engine.KindInvalid},
		"id":              {p.admin, engine.CreateUser{Name: "x", ID: "1"}, engine.KindInvalid},
		"email":           {p.admin, engine.CreateUser{Name: "x", Email: "Bob <bob@example.com>"}, engine.KindInvalid},
		"taken email":     {p.admin, engine.CreateUser{Name: "x", Email: "Ann@example.com"}, engine.KindConflict},
		"taken id":        {p.admin, engine.CreateUser{Name: "x", ID: strings.ToUpper(engine.DefaultUser)}, engine.KindConflict},
		"quota":           {p.admin, engine.CreateUser{Name: "x", Quota: engine.Quota{SnapshotQuota: num(-1)}}, engine.KindInvalid},
		"region":          {p.admin, engine.CreateUser{Name: "x", Region: "mars"}, engine.KindNotFound},
	} {
		_, err := p.Users.CreateUser(t.Context(), c.by, c.req)
		if engine.KindOf(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if all, err := p.Users.Users(t.Context(), p.admin); err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	wantKind(t, second(p.Users.User(t.Context(), p.owner, engine.DefaultUser)), engine.KindDenied)
	wantKind(t, second(p.Users.Users(t.Context(), p.owner)), engine.KindDenied)
}

func TestSuspension(t *testing.T) {
	p := newPeople(t)
	ctx := t.Context()
	in := func(name string) engine.SandboxRef { return engine.SandboxRef{OrganizationID: p.org, IDOrName: name} }
	create := func(name string) error {
		return second(p.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: p.org, Name: name}))
	}
	p.ok(create("a"))
	p.ok(create("b"))
	p.ok(second(p.Sandboxes().Stop(ctx, in("b"), engine.StopOptions{})))
	suspend := func(who engine.Principal, s *engine.Suspension) error {
		return p.Organizations.UpdateOrganization(ctx, who, p.org, engine.UpdateOrganization{Suspension: &s})
	}
	wantKind(t, suspend(p.owner, &engine.Suspension{Reason: "r"}), engine.KindDenied)
	wantKind(t, suspend(p.admin, &engine.Suspension{}), engine.KindInvalid)
	wantKind(t, suspend(p.admin, &engine.Suspension{Reason: "r", Until: p.clock.Now()}), engine.KindInvalid)
	p.ok(suspend(p.admin, &engine.Suspension{Reason: "not paid", Until: p.clock.Now().Add(time.Hour)}))
	for name, err := range map[string]error{
		"create":   create("c"),
		"start":    second(p.Sandboxes().Start(ctx, in("b"))),
		"resize":   second(p.Sandboxes().Resize(ctx, in("a"), engine.Resources{CPU: 2})),
		"fork":     second(p.Snapshots().Fork(ctx, in("a"), "d")),
		"save":     second(p.Snapshots().Save(ctx, in("a"), "s")),
		"snapshot": second(p.Snapshots().Create(ctx, engine.CreateSnapshot{OrganizationID: p.org, Name: "i", Image: "alpine:3.20"})),
	} {
		if engine.KindOf(err) != engine.KindDenied || !strings.Contains(err.Error(), "not paid") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	p.ok(second(p.Sandboxes().Stop(ctx, in("a"), engine.StopOptions{})))
	p.create("other") // another organization goes on
	p.clock.Advance(2 * time.Hour)
	p.ok(create("c"))
	p.ok(suspend(p.admin, &engine.Suspension{Reason: "again"}))
	wantKind(t, create("e"), engine.KindDenied)
	p.ok(suspend(p.admin, nil))
	p.ok(create("e"))
}

func TestQuotas(t *testing.T) {
	p := newPeople(t)
	ctx := t.Context()
	in := func(name string) engine.SandboxRef { return engine.SandboxRef{OrganizationID: p.org, IDOrName: name} }
	create := func(name string, r engine.Resources) error {
		return second(p.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: p.org, Name: name, Resources: r, Target: "us"}))
	}
	limit := func(l engine.RegionLimits) {
		t.Helper()
		p.ok(p.RegionQuotas.PutRegionQuota(ctx, p.admin, engine.RegionQuota{OrganizationID: p.org, Region: "local", Class: engine.ClassContainer, Limits: l}, false))
	}
	exceeds := func(what string, err error) {
		t.Helper()
		if engine.KindOf(err) != engine.KindExhausted || !strings.Contains(err.Error(), "quota") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	p.ok(create("a", engine.Resources{}))
	limit(engine.RegionLimits{TotalCPU: num(2)})
	p.ok(create("b", engine.Resources{}))
	exceeds("a third core", create("c", engine.Resources{}))
	exceeds("a larger one", second(p.Sandboxes().Resize(ctx, in("b"), engine.Resources{CPU: 2})))
	exceeds("a fork", second(p.Snapshots().Fork(ctx, in("a"), "f")))
	p.ok(second(p.Sandboxes().Stop(ctx, in("b"), engine.StopOptions{})))
	p.ok(create("c", engine.Resources{})) // what is stopped needs no core
	exceeds("a start", second(p.Sandboxes().Start(ctx, in("b"))))
	limit(engine.RegionLimits{TotalMemory: num(2)})
	exceeds("memory", create("d", engine.Resources{}))
	limit(engine.RegionLimits{TotalDisk: num(10)})
	exceeds("disk", create("d", engine.Resources{}))
	limit(engine.RegionLimits{MaxDiskPerNonEphemeralSandbox: num(1)})
	exceeds("a disk that stays", create("d", engine.Resources{}))
	p.ok(p.RegionQuotas.DeleteRegionQuota(ctx, p.admin, p.org, "local", engine.ClassContainer))
	quota := func(q engine.Quota) {
		t.Helper()
		p.ok(p.Organizations.UpdateOrganization(ctx, p.admin, p.org, engine.UpdateOrganization{Quota: &q}))
	}
	quota(engine.Quota{MaxCPUPerSandbox: num(1), MaxMemoryPerSandbox: num(1), MaxDiskPerSandbox: num(3), SnapshotQuota: num(1)})
	exceeds("cpu of one", create("d", engine.Resources{CPU: 1.5}))
	exceeds("memory of one", create("d", engine.Resources{MemoryMiB: 1025}))
	exceeds("disk of one", create("d", engine.Resources{DiskMiB: 4096}))
	p.ok(second(p.Snapshots().Save(ctx, in("a"), "s1")))
	exceeds("a second snapshot", second(p.Snapshots().Save(ctx, in("a"), "s2")))
	exceeds("a second snapshot", second(p.Snapshots().Create(ctx, engine.CreateSnapshot{OrganizationID: p.org, Name: "s3", Image: "alpine:3.20"})))
	quota(engine.Quota{MaxSnapshotSize: num(0)})
	exceeds("a large snapshot", second(p.Snapshots().Save(ctx, in("a"), "s2")))
	quota(engine.Quota{})
	p.ok(create("d", engine.Resources{}))

	u, err := p.Organizations.Usage(ctx, p.owner, p.org)
	p.ok(err)
	if len(u.Regions) != 1 || u.Regions[0].CPU != 3 || u.Regions[0].MemoryMiB != 3*1024 || u.Regions[0].DiskMiB != 4*3072 || u.Snapshots != 1 {
		t.Errorf("got %+v", u)
	}
	page, err := p.Sandboxes().List(ctx, engine.SandboxQuery{OrganizationID: p.org})
	if err != nil || page.Total != 4 {
		t.Errorf("what was refused left something: %+v, %v", page, err)
	}
}

// Many at once take no more than the quota has.
func TestQuotaHoldsAtOnce(t *testing.T) {
	p := newPeople(t)
	p.ok(p.RegionQuotas.PutRegionQuota(t.Context(), p.admin, engine.RegionQuota{
		OrganizationID: p.org, Region: "local", Class: engine.ClassContainer, Limits: engine.RegionLimits{TotalCPU: num(3)},
	}, true))
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 10 {
		wg.Go(func() {
			_, err := p.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: p.org})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if engine.KindOf(err) != engine.KindExhausted {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if made != 3 {
		t.Errorf("got %d, want 3", made)
	}
}

func TestQuotasRefuse(t *testing.T) {
	p := newPeople(t)
	put := func(who engine.Principal, org, region string, l engine.RegionLimits, create bool) error {
		return p.RegionQuotas.PutRegionQuota(t.Context(), who, engine.RegionQuota{OrganizationID: org, Region: region, Class: engine.ClassContainer, Limits: l}, create)
	}
	wantKind(t, put(p.owner, p.org, "local", engine.RegionLimits{}, true), engine.KindDenied)
	wantKind(t, put(p.admin, "nope", "local", engine.RegionLimits{}, true), engine.KindNotFound)
	wantKind(t, put(p.admin, p.org, "mars", engine.RegionLimits{}, true), engine.KindNotFound)
	wantKind(t, put(p.admin, p.org, "local", engine.RegionLimits{TotalCPU: num(-1)}, true), engine.KindInvalid)
	wantKind(t, put(p.admin, p.org, "local", engine.RegionLimits{AllowedGPUTypes: []string{"\x00"}}, true), engine.KindInvalid)
	p.ok(put(p.admin, p.org, "local", engine.RegionLimits{}, true))
	wantKind(t, put(p.admin, p.org, "local", engine.RegionLimits{}, true), engine.KindConflict)
	wantKind(t, second(p.RegionQuotas.RegionQuota(t.Context(), p.admin, p.org, "local", engine.ClassLinuxVM)), engine.KindNotFound)
	wantKind(t, p.RegionQuotas.DeleteRegionQuota(t.Context(), p.admin, p.org, "local", engine.ClassLinuxVM), engine.KindNotFound)
	q := engine.Quota{MaxCPUPerSandbox: num(-2)}
	wantKind(t, p.Organizations.UpdateOrganization(t.Context(), p.admin, p.org, engine.UpdateOrganization{Quota: &q}), engine.KindInvalid)
	wantKind(t, p.Organizations.UpdateOrganization(t.Context(), p.owner, p.org, engine.UpdateOrganization{Quota: &engine.Quota{}}), engine.KindDenied)
}

func TestAuditTrail(t *testing.T) {
	p := newPeople(t)
	long := strings.Repeat("ü", 1000)
	for i := range 3 {
		p.Audit.Record(engine.AuditEntry{Action: "create", TargetType: "sandbox", TargetID: long, Status: 200 + i}.Actor(p.owner))
	}
	other, _ := p.user("other")
	p.Audit.Record(engine.AuditEntry{Action: "delete"}.Actor(other))
	p.ok(p.Close(t.Context())) // writes what is queued
	page, err := p.store.Audit(t.Context(), engine.AuditQuery{OrganizationID: p.org})
	p.ok(err)
	if page.Total != 3 || page.Items[0].Status != 202 || page.Items[0].ActorEmail != "ann@example.com" || page.Items[0].KeyPrefix == "" ||
		page.Items[0].TargetID != long[:512] || page.Items[0].At.IsZero() {
		t.Errorf("got %+v", page)
	}
	read := func(who engine.Principal, org string) error {
		return second(p.Audit.Audit(t.Context(), who, engine.AuditQuery{OrganizationID: org}))
	}
	wantKind(t, read(p.owner, ""), engine.KindDenied)
	wantKind(t, read(other, p.org), engine.KindNotFound)
	p.ok(read(p.owner, p.org))
	p.ok(read(p.admin, ""))
	p.ok(read(p.admin, p.org))
	p.ok(p.Purge(t.Context(), p.clock.Now()))
	p.clock.Advance(91 * 24 * time.Hour)
	p.ok(p.Purge(t.Context(), p.clock.Now()))
	if page, err := p.store.Audit(t.Context(), engine.AuditQuery{}); err != nil || page.Total != 0 {
		t.Errorf("after its time: got %+v, %v", page, err)
	}
}
