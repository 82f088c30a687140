package engine

import (
	"context"
	"time"
)

// DefaultOrganization is the organization that a fresh server has.
const DefaultOrganization = "00000000-0000-4000-8000-000000000001"

// APIKey is a credential. Only a hash of the secret is stored.
type APIKey struct {
	ID             string
	OrganizationID string
	Name           string
	Prefix         string   // first characters of the secret, for people
	Permissions    []string // empty: all
	CreatedAt      time.Time
	ExpiresAt      time.Time // zero: never
	LastUsedAt     time.Time
}

// Principal is who a request speaks for.
type Principal struct {
	OrganizationID string
	KeyID          string
	KeyName        string
	Permissions    []string // empty: all
	Admin          bool
}

// Keys authenticates callers. gateway/auth calls it.
type Keys interface {
	// Authenticate returns KindUnauthenticated for an unknown, expired or revoked secret.
	Authenticate(ctx context.Context, secret string) (Principal, error)
}
