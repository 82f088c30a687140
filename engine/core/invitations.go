package core

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// invitations returns those that match, with their roles.
func (a accounts) invitations(ctx context.Context, q store.InvitationQuery) ([]engine.Invitation, error) {
	found, err := a.Store.Invitations(ctx, q)
	if err != nil {
		return nil, public(err)
	}
	out := make([]engine.Invitation, len(found))
	for i, inv := range found {
		known, err := a.roles(ctx, inv.OrganizationID, inv.RoleIDs)
		if err != nil {
			return nil, public(err)
		}
		out[i] = inv.Invitation
		out[i].Roles = pick(known, inv.RoleIDs)
	}
	return out, nil
}

// Invitations returns an organization's invitations, answered ones included.
func (a accounts) Invitations(ctx context.Context, p engine.Principal, organizationID string) ([]engine.Invitation, error) {
	if _, err := a.own(ctx, p, organizationID); err != nil {
		return nil, err
	}
	return a.invitations(ctx, store.InvitationQuery{OrganizationID: organizationID})
}

// Invite invites an address. One whose user is a member already is a conflict.
func (a accounts) Invite(ctx context.Context, p engine.Principal, organizationID, email string, access engine.Access, expires time.Time) (engine.Invitation, error) {
	if _, err := a.own(ctx, p, organizationID); err != nil {
		return engine.Invitation{}, err
	}
	email = strings.TrimSpace(email)
	expires, err := a.inviteUntil(expires)
	if err := firstError(err, checkEmail(email), a.checkAccess(ctx, organizationID, &access)); err != nil {
		return engine.Invitation{}, err
	}
	if err := a.invitable(ctx, organizationID, email); err != nil {
		return engine.Invitation{}, public(err)
	}
	now := a.Now().UTC()
	inv := store.Invitation{RoleIDs: access.RoleIDs, Invitation: engine.Invitation{
		ID: uuid.NewString(), OrganizationID: organizationID, Email: email, InvitedBy: p.UserID, Status: engine.InvitationPending,
		Role: access.Role, ExpiresAt: expires, CreatedAt: now, UpdatedAt: now,
	}}
	if err := a.Store.InsertInvitation(ctx, inv); err != nil {
		return engine.Invitation{}, public(err)
	}
	return a.invitation(ctx, inv.ID)
}

func (a accounts) inviteUntil(expires time.Time) (time.Time, error) {
	now := a.Now().UTC()
	switch {
	case expires.IsZero():
		return now.Add(inviteLife), nil
	case !expires.After(now) || expires.Sub(now) > maxInviteLife:
		return expires, invalid("expiresAt is not within a year from now").WithHint("leave it out for a week")
	}
	return expires.UTC(), nil
}

// invitable also closes an earlier invitation that has expired.
func (a accounts) invitable(ctx context.Context, organizationID, email string) error {
	members, err := a.Store.Members(ctx, organizationID, "")
	if err != nil {
		return err
	}
	if len(members) >= maxMembers {
		return engine.Errorf(engine.KindExhausted, "the organization has %d members", len(members)).WithHint("remove some")
	}
	for _, m := range members {
		if strings.EqualFold(m.Email, email) {
			return engine.Errorf(engine.KindConflict, "%s is a member already", email)
		}
	}
	pending, err := a.Store.Invitations(ctx, store.InvitationQuery{OrganizationID: organizationID, Status: engine.InvitationPending})
	if err != nil {
		return err
	}
	if len(pending) >= maxMembers {
		return engine.Errorf(engine.KindExhausted, "%d invitations are pending", len(pending)).WithHint("cancel some")
	}
	for _, inv := range pending {
		if strings.EqualFold(inv.Email, email) && !a.Now().Before(inv.ExpiresAt) {
			inv.Status, inv.UpdatedAt = engine.InvitationCancelled, a.Now().UTC()
			return a.Store.UpdateInvitation(ctx, inv, "")
		}
	}
	return nil
}

func (a accounts) invitation(ctx context.Context, id string) (engine.Invitation, error) {
	found, err := a.invitations(ctx, store.InvitationQuery{ID: id})
	if err != nil || len(found) == 0 {
		return engine.Invitation{}, firstError(err, noInvitation(id))
	}
	return found[0], nil
}

func noInvitation(id string) error {
	return engine.Errorf(engine.KindNotFound, "invitation %s not found", quote(id))
}

// changeInvitation applies change to an invitation of an organization.
func (a accounts) changeInvitation(ctx context.Context, p engine.Principal, organizationID, id string, change func(*store.Invitation)) error {
	if _, err := a.own(ctx, p, organizationID); err != nil {
		return err
	}
	found, err := a.Store.Invitations(ctx, store.InvitationQuery{ID: id, OrganizationID: organizationID})
	if err != nil || len(found) == 0 || id == "" {
		return public(firstError(err, noInvitation(id)))
	}
	inv := found[0]
	change(&inv)
	inv.UpdatedAt = a.Now().UTC()
	return public(a.Store.UpdateInvitation(ctx, inv, ""))
}

// UpdateInvitation changes a pending invitation. A zero time leaves its end.
func (a accounts) UpdateInvitation(ctx context.Context, p engine.Principal, organizationID, id string, access engine.Access, expires time.Time) (engine.Invitation, error) {
	if _, err := a.own(ctx, p, organizationID); err != nil {
		return engine.Invitation{}, err
	}
	until, err := a.inviteUntil(expires)
	if err := firstError(err, a.checkAccess(ctx, organizationID, &access)); err != nil {
		return engine.Invitation{}, err
	}
	err = a.changeInvitation(ctx, p, organizationID, id, func(inv *store.Invitation) {
		inv.Role, inv.RoleIDs = access.Role, access.RoleIDs
		if !expires.IsZero() {
			inv.ExpiresAt = until
		}
	})
	if err != nil {
		return engine.Invitation{}, err
	}
	return a.invitation(ctx, id)
}

// CancelInvitation ends a pending invitation.
func (a accounts) CancelInvitation(ctx context.Context, p engine.Principal, organizationID, id string) error {
	return a.changeInvitation(ctx, p, organizationID, id, func(inv *store.Invitation) { inv.Status = engine.InvitationCancelled })
}

// Invited returns the pending invitations of the caller's address.
func (a accounts) Invited(ctx context.Context, p engine.Principal) ([]engine.Invitation, error) {
	if p.UserEmail == "" {
		return []engine.Invitation{}, nil
	}
	all, err := a.invitations(ctx, store.InvitationQuery{Email: p.UserEmail, Status: engine.InvitationPending})
	out := []engine.Invitation{}
	for _, inv := range all {
		if a.Now().Before(inv.ExpiresAt) {
			out = append(out, inv)
		}
	}
	return out, err
}

// Answer accepts or declines an invitation of the caller's address. Those of
// others do not exist.
func (a accounts) Answer(ctx context.Context, p engine.Principal, id string, accept bool) (engine.Invitation, error) {
	if err := engine.Authorize(p, engine.PermissionOwner, ""); err != nil {
		return engine.Invitation{}, err
	}
	found, err := a.Store.Invitations(ctx, store.InvitationQuery{ID: id})
	if err != nil || len(found) == 0 || p.UserEmail == "" || !strings.EqualFold(found[0].Email, p.UserEmail) {
		return engine.Invitation{}, public(firstError(err, noInvitation(id)))
	}
	inv := found[0]
	if !a.Now().Before(inv.ExpiresAt) {
		return engine.Invitation{}, invalid("the invitation has expired").WithHint("ask for a new one")
	}
	inv.Status, inv.UpdatedAt = engine.InvitationDeclined, a.Now().UTC()
	if accept {
		inv.Status = engine.InvitationAccepted
	}
	if err := a.Store.UpdateInvitation(ctx, inv, p.UserID); err != nil {
		return engine.Invitation{}, public(err)
	}
	a.rethink()
	return a.invitation(ctx, id)
}
