package engine

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/policies"
)

// DefaultOrganization is the organization that a fresh server has.
const DefaultOrganization = "00000000-0000-4000-8000-000000000001"

// DefaultUser is the administrator that a fresh server has.
const DefaultUser = "00000000-0000-4000-8000-000000000002"

// APIKey is a credential of one user in one organization. Only a hash of the
// secret is stored. Its name is unique among the user's keys there.
type APIKey struct {
	ID             string
	OrganizationID string
	UserID         string
	Name           string
	Prefix, Suffix string // first and last characters of the secret, for people
	// Unrestricted keys may do whatever their user may; Permissions is empty
	// then. Others hold exactly Permissions, which may be none.
	Unrestricted bool
	Permissions  []string
	Scope        Scope // one that limits goes with restricted keys only
	// Policy is the name of the policy that the key is bound to: it makes and
	// reaches sandboxes under that one alone, and calls the tools that the
	// policy allows. Empty: it is not bound.
	Policy     string
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time
}

// Principal is who a request speaks for. The zero value may do nothing.
type Principal struct {
	OrganizationID       string
	KeyID, KeyName       string
	KeyPrefix, KeySuffix string
	ExpiresAt            time.Time // of the key; zero: never
	UserID, UserEmail    string
	Role                 MemberRole // of the user in the organization
	// Unrestricted tells that the key stands for its user in everything, also
	// in what no permission names. Permissions holds all it may do either way.
	Unrestricted bool
	Permissions  []string
	Scope        Scope
	Admin        bool   // administrates the server
	Policy       string // that the key is bound to; empty: none
	// Tools is what that policy says of tools and operations; nil: anything.
	Tools *policies.Tools
	Rates []RateLimit // of the organization, in place of the server's
}

// RateLimit allows so many requests in a window. The names are those of the
// contract: authenticated, sandbox-create, sandbox-lifecycle, anonymous,
// failed-auth.
type RateLimit struct {
	Name   string
	Limit  int
	Window time.Duration
}

// Keys authenticates callers. gateway/auth calls it.
type Keys interface {
	// Authenticate returns KindUnauthenticated for an unknown, expired or revoked secret.
	Authenticate(ctx context.Context, secret string) (Principal, error)
}

// CreateKey asks for a key. Nil Permissions ask for an unrestricted one. The
// empty organization and user are the caller's own.
type CreateKey struct {
	OrganizationID, UserID string
	Name                   string
	Permissions            []string
	Scope                  Scope     // one that limits needs Permissions
	Policy                 string    // to bind the key to; may be empty
	ExpiresAt              time.Time // zero: never
}

// KeyRing is the keys of users. The gateway calls it.
type KeyRing interface {
	// Create returns the key's secret, which cannot be read again.
	Create(ctx context.Context, p Principal, req CreateKey) (APIKey, string, error)
	// List returns the caller's keys in the organization of the caller's key,
	// and for owners those of all members.
	List(ctx context.Context, p Principal) ([]APIKey, error)
	// Key returns one of the caller's own keys by name.
	Key(ctx context.Context, p Principal, name string) (APIKey, error)
	// Revoke ends a key at once. The empty user is the caller.
	Revoke(ctx context.Context, p Principal, userID, name string) error
}
