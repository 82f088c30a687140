package engine

import (
	"context"
	"time"
)

// The scopes of access tokens. Beside them a token may hold permissions by
// their names.
const (
	TokenRead  = "atoll:read"  // see, change nothing
	TokenWrite = "atoll:write" // whatever the user's role allows, but no keys
	TokenAdmin = "atoll:admin" // stand for the user in everything
)

// TokenScopes returns the scopes that clients are told of.
func TokenScopes() []string { return []string{TokenRead, TokenWrite, TokenAdmin} }

// Identity is whom an identity provider vouches for with an access token.
type Identity struct {
	Issuer, Subject string
	Name            string // for people
	Email           string // empty unless the provider has verified it
	OrganizationID  string // that the token is bound to; empty: none
	Scopes          []string
	ExpiresAt       time.Time
}

// Identities checks access tokens. core.Keys calls it for what is no key.
type Identities interface {
	// Identify returns KindUnauthenticated for a token that is not good, and
	// KindUnavailable when the provider cannot be asked for its keys.
	Identify(ctx context.Context, token string) (Identity, error)
}

type organizationKey struct{}

// WithOrganization notes which of their organizations a caller asks for. It
// counts for access tokens, which are bound to none; keys have their own.
func WithOrganization(ctx context.Context, id string) context.Context {
	if id == "" {
		return ctx
	}
	return context.WithValue(ctx, organizationKey{}, id)
}

// OrganizationOf returns what WithOrganization noted; empty: nothing.
func OrganizationOf(ctx context.Context) string {
	id, _ := ctx.Value(organizationKey{}).(string)
	return id
}
