package core

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// Bounds of one organization.
const (
	maxMembers    = 1000
	maxRoles      = 100
	maxAssigned   = 20 // roles of one member
	inviteLife    = 7 * 24 * time.Hour
	maxInviteLife = 365 * 24 * time.Hour
)

// member is a member with the roles resolved.
type member struct{ engine.Member }

// permissions returns all that the member may do.
func (m member) permissions() []string {
	if m.Role == engine.RoleOwner {
		return engine.Permissions()
	}
	return slices.DeleteFunc(engine.Permissions(), func(s string) bool {
		return !slices.ContainsFunc(m.Roles, func(r engine.Role) bool { return slices.Contains(r.Permissions, s) })
	})
}

// member finds a member of an organization.
func (c *Core) member(ctx context.Context, organizationID, userID string) (member, error) {
	found, err := c.Store.Members(ctx, organizationID, userID)
	if err != nil {
		return member{}, err
	}
	if len(found) == 0 || userID == "" {
		return member{}, engine.Errorf(engine.KindNotFound, "user %s is not a member", quote(userID))
	}
	known, err := c.roles(ctx, organizationID, found[0].RoleIDs)
	if err != nil {
		return member{}, err
	}
	return resolve(found[0], known), nil
}

func resolve(m store.Member, known []engine.Role) member {
	m.Roles = pick(known, m.RoleIDs)
	return member{m.Member}
}

// pick returns the roles with the ids. One that was deleted meanwhile is gone.
func pick(known []engine.Role, ids []string) []engine.Role {
	out := []engine.Role{}
	for _, r := range known {
		if slices.Contains(ids, r.ID) {
			out = append(out, r)
		}
	}
	return out
}

// roles returns the global roles and, when ids name others, the organization's.
func (c *Core) roles(ctx context.Context, organizationID string, ids []string) ([]engine.Role, error) {
	global := engine.GlobalRoles()
	if len(pick(global, ids)) == len(ids) {
		return global, nil
	}
	own, err := c.Store.Roles(ctx, organizationID)
	return append(global, own...), err
}

// checkAccess makes sure that every role is known, once.
func (a accounts) checkAccess(ctx context.Context, organizationID string, access *engine.Access) error {
	if access.Role != engine.RoleOwner && access.Role != engine.RoleMember {
		return invalid("role %s is not known", quote(string(access.Role))).WithHint("use owner or member")
	}
	slices.Sort(access.RoleIDs)
	access.RoleIDs = slices.Compact(access.RoleIDs)
	if len(access.RoleIDs) > maxAssigned {
		return invalid("assignedRoleIds has %d roles", len(access.RoleIDs)).WithHint("use at most %d", maxAssigned)
	}
	known, err := a.roles(ctx, organizationID, access.RoleIDs)
	if err != nil {
		return public(err)
	}
	for _, id := range access.RoleIDs {
		if len(pick(known, []string{id})) == 0 {
			return engine.Errorf(engine.KindNotFound, "role %s not found", quote(id)).WithHint("list the organization's roles")
		}
	}
	return nil
}

// Members returns the members of an organization to its members.
func (a accounts) Members(ctx context.Context, p engine.Principal, organizationID string) ([]engine.Member, error) {
	if _, _, err := a.reach(ctx, p, organizationID); err != nil {
		return nil, err
	}
	found, err := a.Store.Members(ctx, organizationID, "")
	if err != nil {
		return nil, public(err)
	}
	own, err := a.Store.Roles(ctx, organizationID)
	if err != nil {
		return nil, public(err)
	}
	known := append(engine.GlobalRoles(), own...)
	out := make([]engine.Member, len(found))
	for i, m := range found {
		out[i] = resolve(m, known).Member
	}
	return out, nil
}

// SetAccess changes what a member may do, at once.
func (a accounts) SetAccess(ctx context.Context, p engine.Principal, organizationID, userID string, access engine.Access) (engine.Member, error) {
	if _, err := a.own(ctx, p, organizationID); err != nil {
		return engine.Member{}, err
	}
	if err := a.checkAccess(ctx, organizationID, &access); err != nil {
		return engine.Member{}, err
	}
	err := a.Store.SetAccess(ctx, organizationID, userID, access, a.Now().UTC())
	a.rethink()
	if err != nil {
		return engine.Member{}, public(err)
	}
	m, err := a.member(ctx, organizationID, userID)
	return m.Member, public(err)
}

// Remove takes a member out, or lets the caller leave.
func (a accounts) Remove(ctx context.Context, p engine.Principal, organizationID, userID string) error {
	if userID == "" {
		if err := engine.Authorize(p, engine.PermissionOwner, ""); err != nil {
			return err
		}
		if _, err := a.member(ctx, organizationID, p.UserID); err != nil {
			if engine.KindOf(err) == engine.KindNotFound {
				err = noOrganization(organizationID)
			}
			return public(err)
		}
		userID = p.UserID
	} else if _, err := a.own(ctx, p, organizationID); err != nil {
		return err
	}
	if organizationID == engine.DefaultOrganization && userID == engine.DefaultUser {
		return invalid("the server's own administrator stays in its own organization")
	}
	err := a.Store.DeleteMember(ctx, organizationID, userID)
	a.rethink()
	return public(err)
}

// Roles returns an organization's roles and the global ones.
func (a accounts) Roles(ctx context.Context, p engine.Principal, organizationID string) ([]engine.Role, error) {
	if _, _, err := a.reach(ctx, p, organizationID); err != nil {
		return nil, err
	}
	own, err := a.Store.Roles(ctx, organizationID)
	return append(engine.GlobalRoles(), own...), public(err)
}

func checkRole(r engine.Role) error {
	if strings.TrimSpace(r.Name) == "" {
		return invalid("name is empty").WithHint("name the role")
	}
	for _, g := range engine.GlobalRoles() {
		if strings.EqualFold(g.Name, r.Name) {
			return engine.Errorf(engine.KindConflict, "role name %q is taken", r.Name).WithHint("choose another name")
		}
	}
	return firstError(checkText("name", r.Name, 128), checkText("description", r.Description, 1024), checkPermissions(r.Permissions))
}

// CreateRole makes a role.
func (a accounts) CreateRole(ctx context.Context, p engine.Principal, r engine.Role) (engine.Role, error) {
	if _, err := a.own(ctx, p, r.OrganizationID); err != nil {
		return engine.Role{}, err
	}
	if err := checkRole(r); err != nil {
		return engine.Role{}, err
	}
	if has, err := a.Store.Roles(ctx, r.OrganizationID); err != nil || len(has) >= maxRoles {
		if err == nil {
			err = engine.Errorf(engine.KindExhausted, "the organization has %d roles", len(has)).WithHint("delete some")
		}
		return engine.Role{}, public(err)
	}
	now := a.Now().UTC()
	r.ID, r.CreatedAt, r.UpdatedAt = uuid.NewString(), now, now
	return r, public(a.Store.InsertRole(ctx, r))
}

// UpdateRole changes a role, and at once what its members may do.
func (a accounts) UpdateRole(ctx context.Context, p engine.Principal, r engine.Role) (engine.Role, error) {
	if _, err := a.own(ctx, p, r.OrganizationID); err != nil {
		return engine.Role{}, err
	}
	if err := firstError(notGlobal(r.ID), checkRole(r)); err != nil {
		return engine.Role{}, err
	}
	r.UpdatedAt = a.Now().UTC()
	err := a.Store.UpdateRole(ctx, r)
	a.rethink()
	if err != nil {
		return engine.Role{}, public(err)
	}
	own, err := a.Store.Roles(ctx, r.OrganizationID)
	if found := pick(own, []string{r.ID}); len(found) > 0 {
		return found[0], nil
	}
	return r, public(err)
}

func notGlobal(id string) error {
	if len(pick(engine.GlobalRoles(), []string{id})) > 0 {
		return engine.Errorf(engine.KindDenied, "the server's own roles cannot be changed").WithHint("make a new one")
	}
	return nil
}

// DeleteRole removes a role from the organization and its members.
func (a accounts) DeleteRole(ctx context.Context, p engine.Principal, organizationID, id string) error {
	if _, err := a.own(ctx, p, organizationID); err != nil {
		return err
	}
	if err := notGlobal(id); err != nil {
		return err
	}
	err := a.Store.DeleteRole(ctx, organizationID, id)
	a.rethink()
	return public(err)
}
