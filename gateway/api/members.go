package api

import (
	"context"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerMembers() {
	handle(a, "GET", "/organizations/{organizationId}/users", "The members of an organization", a.members)
	handle(a, "POST", "/organizations/{organizationId}/users/{userId}/access", "Change what a member may do", a.setAccess)
	handleEmpty(a, "DELETE", "/organizations/{organizationId}/users/{userId}", "Take a member and their keys out", http.StatusNoContent, a.removeMember)
	handleEmpty(a, "POST", "/organizations/{organizationId}/leave", "Leave an organization", http.StatusNoContent, a.leave)

	handle(a, "GET", "/organizations/{organizationId}/roles", "The roles of an organization", a.roles)
	handleCreated(a, "POST", "/organizations/{organizationId}/roles", "Make a role", a.createRole)
	handle(a, "PUT", "/organizations/{organizationId}/roles/{roleId}", "Change a role", a.updateRole)
	handleEmpty(a, "DELETE", "/organizations/{organizationId}/roles/{roleId}", "Delete a role", http.StatusNoContent, a.deleteRole)

	handle(a, "GET", "/organizations/{organizationId}/invitations", "The invitations to an organization", a.invitations)
	handleCreated(a, "POST", "/organizations/{organizationId}/invitations", "Invite an address", a.invite)
	handle(a, "PUT", "/organizations/{organizationId}/invitations/{invitationId}", "Change a pending invitation", a.updateInvitation)
	handleEmpty(a, "POST", "/organizations/{organizationId}/invitations/{invitationId}/cancel", "Cancel a pending invitation", http.StatusNoContent, a.cancelInvitation)
	handle(a, "GET", "/organizations/invitations", "The invitations that wait for this user", a.invited)
	handle(a, "GET", "/organizations/invitations/count", "How many invitations wait for this user", a.invitedCount)
	handle(a, "POST", "/organizations/invitations/{invitationId}/accept", "Become a member", a.accept)
	handleEmpty(a, "POST", "/organizations/invitations/{invitationId}/decline", "Decline an invitation", http.StatusOK, a.decline)
}

func (a *API) members(ctx context.Context, in *OrganizationPath) ([]wire.Member, error) {
	all, err := a.Accounts.Members.Members(ctx, caller(ctx), in.Organization)
	return each(all, wire.FromMember), err
}

// MemberPath names a member of an organization.
type MemberPath struct {
	OrganizationPath
	User string `path:"userId" maxLength:"255"`
}

type accessInput struct {
	MemberPath
	Body wire.Access
}

func (a *API) setAccess(ctx context.Context, in *accessInput) (wire.Member, error) {
	m, err := a.Accounts.Members.SetAccess(ctx, caller(ctx), in.Organization, in.User, in.Body.Access())
	return wire.FromMember(m), err
}

func (a *API) removeMember(ctx context.Context, in *MemberPath) error {
	return a.Accounts.Members.Remove(ctx, caller(ctx), in.Organization, in.User)
}

func (a *API) leave(ctx context.Context, in *OrganizationPath) error {
	return a.Accounts.Members.Remove(ctx, caller(ctx), in.Organization, "")
}

func (a *API) roles(ctx context.Context, in *OrganizationPath) ([]wire.Role, error) {
	all, err := a.Accounts.Roles.Roles(ctx, caller(ctx), in.Organization)
	return each(all, wire.FromRole), err
}

type roleBody struct {
	Name        string   `json:"name" minLength:"1" maxLength:"128"`
	Description string   `json:"description" maxLength:"1024"`
	Permissions []string `json:"permissions" nullable:"false"`
}

type createRoleInput struct {
	OrganizationPath
	Body roleBody
}

func (b roleBody) role(organization, id string) engine.Role {
	return engine.Role{ID: id, OrganizationID: organization, Name: b.Name, Description: b.Description, Permissions: b.Permissions}
}

func (a *API) createRole(ctx context.Context, in *createRoleInput) (wire.Role, error) {
	r, err := a.Accounts.Roles.CreateRole(ctx, caller(ctx), in.Body.role(in.Organization, ""))
	return wire.FromRole(r), err
}

// RolePath names a role of an organization.
type RolePath struct {
	OrganizationPath
	Role string `path:"roleId" maxLength:"255"`
}

type updateRoleInput struct {
	RolePath
	Body roleBody
}

func (a *API) updateRole(ctx context.Context, in *updateRoleInput) (wire.Role, error) {
	r, err := a.Accounts.Roles.UpdateRole(ctx, caller(ctx), in.Body.role(in.Organization, in.Role))
	return wire.FromRole(r), err
}

func (a *API) deleteRole(ctx context.Context, in *RolePath) error {
	return a.Accounts.Roles.DeleteRole(ctx, caller(ctx), in.Organization, in.Role)
}

func (a *API) invitations(ctx context.Context, in *OrganizationPath) ([]wire.Invitation, error) {
	all, err := a.Accounts.Invitations.Invitations(ctx, caller(ctx), in.Organization)
	return each(all, wire.FromInvitation), err
}

type inviteInput struct {
	OrganizationPath
	Body struct {
		Email string `json:"email" maxLength:"254"`
		wire.Access
		ExpiresAt *time.Time `json:"expiresAt,omitempty" nullable:"true" doc:"a week from now when absent"`
	}
}

func (a *API) invite(ctx context.Context, in *inviteInput) (wire.Invitation, error) {
	i, err := a.Accounts.Invitations.Invite(ctx, caller(ctx), in.Organization, in.Body.Email, in.Body.Access.Access(), at(in.Body.ExpiresAt))
	return wire.FromInvitation(i), err
}

// at is the time, or the zero time when there is none.
func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// InvitationPath names an invitation to an organization.
type InvitationPath struct {
	OrganizationPath
	Invitation string `path:"invitationId" maxLength:"255"`
}

type updateInvitationInput struct {
	InvitationPath
	Body struct {
		wire.Access
		ExpiresAt *time.Time `json:"expiresAt,omitempty" nullable:"true" doc:"as it is when absent"`
	}
}

func (a *API) updateInvitation(ctx context.Context, in *updateInvitationInput) (wire.Invitation, error) {
	i, err := a.Accounts.Invitations.UpdateInvitation(ctx, caller(ctx), in.Organization, in.Invitation, in.Body.Access.Access(), at(in.Body.ExpiresAt))
	return wire.FromInvitation(i), err
}

func (a *API) cancelInvitation(ctx context.Context, in *InvitationPath) error {
	return a.Accounts.Invitations.CancelInvitation(ctx, caller(ctx), in.Organization, in.Invitation)
}

func (a *API) invited(ctx context.Context, _ *struct{}) ([]wire.Invitation, error) {
	all, err := a.Accounts.Invitations.Invited(ctx, caller(ctx))
	return each(all, wire.FromInvitation), err
}

func (a *API) invitedCount(ctx context.Context, _ *struct{}) (int, error) {
	all, err := a.Accounts.Invitations.Invited(ctx, caller(ctx))
	return len(all), err
}

type ownInvitation struct {
	Invitation string `path:"invitationId" maxLength:"255"`
}

func (a *API) accept(ctx context.Context, in *ownInvitation) (wire.Invitation, error) {
	i, err := a.Accounts.Invitations.Answer(ctx, caller(ctx), in.Invitation, true)
	return wire.FromInvitation(i), err
}

func (a *API) decline(ctx context.Context, in *ownInvitation) error {
	_, err := a.Accounts.Invitations.Answer(ctx, caller(ctx), in.Invitation, false)
	return err
}
