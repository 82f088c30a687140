package engine

import (
	"context"
	"time"
)

// MemberRole is what a member of an organization is.
type MemberRole string

// The roles of members. Owners may do everything, members what the roles
// assigned to them allow.
const (
	RoleOwner  MemberRole = "owner"
	RoleMember MemberRole = "member"
)

// Role is a named set of permissions. The server's own belong to no
// organization.
type Role struct {
	ID                   string
	OrganizationID       string // empty: one of GlobalRoles
	Name, Description    string
	Permissions          []string
	CreatedAt, UpdatedAt time.Time
}

// DeveloperRole is the id of the role that members get when nothing else is said.
const DeveloperRole = "00000000-0000-0000-0000-000000000001"

// GlobalRoles returns the roles that every organization has.
func GlobalRoles() []Role {
	return []Role{
		{
			ID: DeveloperRole, Name: "Developer", Description: "Works with sandboxes and what they are made of",
			Permissions: []string{
				WriteSandboxes, DeleteSandboxes, WriteSnapshots, DeleteSnapshots, "read:volumes", "write:volumes", "delete:volumes",
				"write:registries", "delete:registries", "manage:secrets", ManageKeys, ReadLimits,
			},
		},
		{
			ID: "00000000-0000-0000-0000-000000000002", Name: "Auditor", Description: "Reads the audit log and the limits",
			Permissions: []string{ReadAudit, ReadLimits},
		},
	}
}

// Member is a user in an organization.
type Member struct {
	OrganizationID, UserID string
	Name, Email            string // of the user
	Role                   MemberRole
	Roles                  []Role // that are assigned
	CreatedAt, UpdatedAt   time.Time
}

// Access is what a member or an invitation is given.
type Access struct {
	Role    MemberRole
	RoleIDs []string
}

// Invitation asks somebody to become a member.
type Invitation struct {
	ID                   string
	Email                string
	InvitedBy            string // id of a user
	OrganizationID       string
	OrganizationName     string
	Status               string // pending, accepted, declined or cancelled
	Role                 MemberRole
	Roles                []Role
	ExpiresAt            time.Time
	CreatedAt, UpdatedAt time.Time
}

// The states of invitations.
const (
	InvitationPending   = "pending"
	InvitationAccepted  = "accepted"
	InvitationDeclined  = "declined"
	InvitationCancelled = "cancelled"
)

// Members is who belongs to an organization. Members see one another; changes
// are the owners'. An organization keeps at least one owner.
type Members interface {
	Members(ctx context.Context, p Principal, organizationID string) ([]Member, error)
	SetAccess(ctx context.Context, p Principal, organizationID, userID string, a Access) (Member, error)
	// Remove takes a member and their keys out of an organization. The empty
	// user is the caller, who leaves.
	Remove(ctx context.Context, p Principal, organizationID, userID string) error
}

// Roles is an organization's roles, the global ones included. Changes are the
// owners', and act on the keys of members at once.
type Roles interface {
	Roles(ctx context.Context, p Principal, organizationID string) ([]Role, error)
	CreateRole(ctx context.Context, p Principal, r Role) (Role, error)
	UpdateRole(ctx context.Context, p Principal, r Role) (Role, error)
	DeleteRole(ctx context.Context, p Principal, organizationID, id string) error
}

// Invitations is how users with an address become members. All but the last
// two methods are the owners'.
type Invitations interface {
	Invitations(ctx context.Context, p Principal, organizationID string) ([]Invitation, error)
	// Invite invites an address; a zero time means a week.
	Invite(ctx context.Context, p Principal, organizationID, email string, a Access, expires time.Time) (Invitation, error)
	UpdateInvitation(ctx context.Context, p Principal, organizationID, id string, a Access, expires time.Time) (Invitation, error)
	CancelInvitation(ctx context.Context, p Principal, organizationID, id string) error
	// Invited returns the pending invitations of the caller's address.
	Invited(ctx context.Context, p Principal) ([]Invitation, error)
	// Answer accepts or declines one of them.
	Answer(ctx context.Context, p Principal, id string, accept bool) (Invitation, error)
}
