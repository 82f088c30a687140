package core

import (
	"cmp"
	"context"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

type accounts struct{ *Core }

// Accounts is the services of who may use the server.
func (c *Core) Accounts() engine.Accounts {
	a := accounts{c}
	return engine.Accounts{
		Keys: c.Keys(), Users: a, Organizations: a, RegionQuotas: a, Members: a, Roles: a, Invitations: a, Audit: c.audit,
	}
}

func noOrganization(id string) error {
	return engine.Errorf(engine.KindNotFound, "organization %s not found", quote(id)).WithHint("list those that you are a member of")
}

// reach returns an organization that p may see, or says that it does not
// exist, and what p is there. A restricted key sees its own organization only.
func (a accounts) reach(ctx context.Context, p engine.Principal, id string) (engine.Organization, engine.MemberRole, error) {
	org, err := a.Store.Organization(ctx, id)
	if engine.KindOf(err) == engine.KindNotFound {
		return org, "", noOrganization(id)
	}
	if err != nil {
		return org, "", public(err)
	}
	if p.Admin {
		return org, engine.RoleOwner, nil
	}
	if id != p.OrganizationID && !p.Unrestricted {
		return org, "", noOrganization(id)
	}
	m, err := a.member(ctx, id, p.UserID)
	if engine.KindOf(err) == engine.KindNotFound {
		return org, "", noOrganization(id)
	}
	return org, m.Role, public(err)
}

// permitted returns an organization where p has the permission: in that of the
// key, what the key has counts, in others of its user their role there.
func (a accounts) permitted(ctx context.Context, p engine.Principal, permission, id string) (engine.Organization, error) {
	if err := engine.Authorize(p, permission, ""); err != nil {
		return engine.Organization{}, err
	}
	org, _, err := a.reach(ctx, p, id)
	if err != nil || p.Admin || id == p.OrganizationID {
		return org, err
	}
	m, err := a.member(ctx, id, p.UserID)
	if err != nil {
		return org, public(err)
	}
	p.OrganizationID, p.Permissions = id, m.permissions()
	return org, engine.Authorize(p, permission, org.ID)
}

// own returns an organization that p may change.
func (a accounts) own(ctx context.Context, p engine.Principal, id string) (engine.Organization, error) {
	if err := engine.Authorize(p, engine.PermissionOwner, ""); err != nil {
		return engine.Organization{}, err
	}
	org, role, err := a.reach(ctx, p, id)
	if err == nil && role != engine.RoleOwner {
		err = engine.Errorf(engine.KindDenied, "this is for owners of the organization").WithHint("ask one of them")
	}
	return org, err
}

// User returns the caller, and to administrators anybody.
func (a accounts) User(ctx context.Context, p engine.Principal, id string) (engine.User, error) {
	if id != p.UserID {
		if err := engine.Authorize(p, engine.PermissionAdmin, ""); err != nil {
			return engine.User{}, err
		}
	}
	u, err := a.Store.User(ctx, id)
	return u, public(err)
}

// Users returns all users.
func (a accounts) Users(ctx context.Context, p engine.Principal) ([]engine.User, error) {
	if err := engine.Authorize(p, engine.PermissionAdmin, ""); err != nil {
		return nil, err
	}
	all, err := a.Store.Users(ctx)
	return all, public(err)
}

// CreateUser makes a user with an organization and a key, or nothing.
func (a accounts) CreateUser(ctx context.Context, p engine.Principal, req engine.CreateUser) (engine.NewUser, error) {
	if err := firstError(engine.Authorize(p, engine.PermissionAdmin, ""), checkUserRequest(req), checkQuota(req.Quota)); err != nil {
		return engine.NewUser{}, err
	}
	if req.RegionQuota != nil {
		if err := checkRegionLimits(*req.RegionQuota); err != nil {
			return engine.NewUser{}, err
		}
	}
	if err := a.checkRegion(cmp.Or(req.Region, a.Target)); err != nil {
		return engine.NewUser{}, err
	}
	now, secret := a.Now().UTC(), NewSecret()
	u := engine.User{
		ID: cmp.Or(strings.ToLower(req.ID), uuid.NewString()), Name: strings.TrimSpace(req.Name), Email: strings.TrimSpace(req.Email),
		EmailVerified: req.EmailVerified, Admin: req.Admin, CreatedAt: now,
	}
	o := engine.Organization{
		ID: uuid.NewString(), Name: u.Name, CreatedBy: u.ID, Personal: true, DefaultRegion: req.Region, Quota: req.Quota,
		CreatedAt: now, UpdatedAt: now,
	}
	var quota *engine.RegionQuota
	if req.RegionQuota != nil {
		quota = &engine.RegionQuota{OrganizationID: o.ID, Region: a.Target, Class: engine.ClassContainer, Limits: *req.RegionQuota}
	}
	key := newKey(o.ID, u.ID, "first", secret, now)
	key.Unrestricted, key.Admin = true, u.Admin
	if err := a.Store.InsertUser(ctx, u, o, quota, key, secret); err != nil {
		return engine.NewUser{}, public(err)
	}
	return engine.NewUser{User: u, Organization: o, Secret: secret}, nil
}

func checkUserRequest(req engine.CreateUser) error {
	if strings.TrimSpace(req.Name) == "" {
		return invalid("name is empty").WithHint("name the user")
	}
	if req.ID != "" && uuid.Validate(req.ID) != nil {
		return invalid("id %s is not a UUID", quote(req.ID)).WithHint("leave it out to have one made")
	}
	if req.Email != "" {
		if err := checkEmail(strings.TrimSpace(req.Email)); err != nil {
			return err
		}
	}
	return checkText("name", req.Name, 128)
}

func checkEmail(email string) error {
	addr, err := mail.ParseAddress(email)
	if err != nil || addr.Address != email || len(email) > 254 {
		return invalid("email %s is not an address", quote(email)).WithHint("write it as name@example.com")
	}
	return checkText("email", email, 254)
}

// checkRegion knows the one region that this server has.
func (a accounts) checkRegion(region string) error {
	if region == a.Target {
		return nil
	}
	return engine.Errorf(engine.KindNotFound, "region %s not found", quote(region)).WithHint("use %s", a.Target)
}

// maxOrganizations bounds how many one user may make.
const maxOrganizations = 100

// CreateOrganization makes an organization of the caller, and for
// administrators of any user.
func (a accounts) CreateOrganization(ctx context.Context, p engine.Principal, name, region, owner string) (engine.Organization, error) {
	if err := firstError(engine.Authorize(p, engine.PermissionOwner, ""), checkText("name", name, 128), a.checkRegion(cmp.Or(region, a.Target))); err != nil {
		return engine.Organization{}, err
	}
	if strings.TrimSpace(name) == "" {
		return engine.Organization{}, invalid("name is empty").WithHint("name the organization")
	}
	if owner = cmp.Or(owner, p.UserID); owner != p.UserID {
		if err := engine.Authorize(p, engine.PermissionAdmin, ""); err != nil {
			return engine.Organization{}, err
		}
	}
	if _, err := a.Store.User(ctx, owner); err != nil {
		return engine.Organization{}, public(err)
	}
	if has, err := a.Store.Organizations(ctx, owner); err != nil || len(has) >= maxOrganizations && !p.Admin {
		if err == nil {
			err = engine.Errorf(engine.KindExhausted, "you are in %d organizations", len(has)).WithHint("delete or leave some")
		}
		return engine.Organization{}, public(err)
	}
	now := a.Now().UTC()
	o := engine.Organization{
		ID: uuid.NewString(), Name: strings.TrimSpace(name), CreatedBy: owner, DefaultRegion: region, CreatedAt: now, UpdatedAt: now,
	}
	return o, public(a.Store.InsertOrganization(ctx, o))
}

// Organizations returns those that the caller's key reaches.
func (a accounts) Organizations(ctx context.Context, p engine.Principal) ([]engine.Organization, error) {
	user := p.UserID
	if p.Admin {
		user = ""
	}
	all, err := a.Store.Organizations(ctx, user)
	if !p.Unrestricted {
		all = slices.DeleteFunc(all, func(o engine.Organization) bool { return o.ID != p.OrganizationID })
	}
	return all, public(err)
}

// Organization returns one that the caller's key reaches.
func (a accounts) Organization(ctx context.Context, p engine.Principal, id string) (engine.Organization, error) {
	o, _, err := a.reach(ctx, p, id)
	return o, err
}

// UpdateOrganization changes settings of an organization.
func (a accounts) UpdateOrganization(ctx context.Context, p engine.Principal, id string, u engine.UpdateOrganization) error {
	if u.Suspension != nil || u.Quota != nil || u.LimitedEgress != nil {
		if err := engine.Authorize(p, engine.PermissionAdmin, ""); err != nil {
			return err
		}
	}
	if _, err := a.own(ctx, p, id); err != nil {
		return err
	}
	if u.DefaultRegion != nil {
		if err := a.checkRegion(*u.DefaultRegion); err != nil {
			return err
		}
	}
	if u.Quota != nil {
		if err := checkQuota(*u.Quota); err != nil {
			return err
		}
	}
	now := a.Now().UTC()
	if u.Suspension != nil && *u.Suspension != nil {
		if err := checkSuspension(id, **u.Suspension, now); err != nil {
			return err
		}
	}
	err := a.Store.ChangeOrganization(ctx, id, func(o *engine.Organization) {
		set(&o.DefaultRegion, u.DefaultRegion)
		set(&o.LimitedEgress, u.LimitedEgress)
		set(&o.PreviewWarning, u.PreviewWarning)
		set(&o.Quota, u.Quota)
		if u.Suspension != nil {
			o.Suspension = *u.Suspension
			if o.Suspension != nil {
				o.Suspension.At = now
			}
		}
		o.UpdatedAt = now
	})
	a.rethink()
	return public(err)
}

func checkSuspension(id string, s engine.Suspension, now time.Time) error {
	switch {
	case id == engine.DefaultOrganization:
		return invalid("the server's own organization cannot be suspended")
	case strings.TrimSpace(s.Reason) == "":
		return invalid("reason is empty").WithHint("say why")
	case !s.Until.IsZero() && !s.Until.After(now):
		return invalid("until is in the past").WithHint("use a later time")
	case s.CleanupGraceHours < 0:
		return invalid("suspensionCleanupGracePeriodHours is negative")
	}
	return checkText("reason", s.Reason, 1024)
}

// DeleteOrganization removes an empty organization with its keys and members.
func (a accounts) DeleteOrganization(ctx context.Context, p engine.Principal, id string) error {
	if _, err := a.own(ctx, p, id); err != nil {
		return err
	}
	if id == engine.DefaultOrganization {
		return invalid("the server's own organization cannot be deleted")
	}
	err := a.Store.DeleteOrganization(ctx, id)
	a.rethink()
	return public(err)
}

// rethink makes every key and organization be read again.
func (c *Core) rethink() {
	c.standings.forget()
	c.principals.forget()
}
