package engine

import (
	"context"
	"time"
)

// SSHAccess is the right to enter a sandbox by SSH with a token. Only a hash
// of the token is stored. A sandbox has at most one.
type SSHAccess struct {
	ID             string
	SandboxID      string
	OrganizationID string
	KeyID          string // of the API key that it was made with, and ends with
	CreatedAt      time.Time
	ExpiresAt      time.Time
}

// SSHDoor is access to sandboxes by SSH. The gateway calls it.
type SSHDoor interface {
	// Grant makes a token that is good for so long, in place of the one that
	// the sandbox had: that one and its connections end.
	Grant(ctx context.Context, p Principal, ref SandboxRef, validFor time.Duration) (SSHAccess, string, error)
	// Revoke ends the sandbox's token and all connections made with it. The
	// empty token stands for whatever the sandbox has; another that is not
	// the sandbox's is a not-found error.
	Revoke(ctx context.Context, ref SandboxRef, token string) (Sandbox, error)
	// Check returns what a token is good for. One that is unknown, has
	// expired, or whose API key or sandbox is no more is unauthenticated.
	Check(ctx context.Context, token string) (SSHAccess, error)
	// Enter is Check for a sandbox that runs, which is a conflict otherwise.
	// The visit counts as activity until it is left.
	Enter(ctx context.Context, token string) (*SSHVisit, error)
}

// SSHVisit is one connection's stay in a sandbox.
type SSHVisit struct {
	SSHAccess
	// Life ends with the right to stay: when the token expires or is revoked,
	// its API key is lost, or the sandbox stops. context.Cause tells why.
	Life context.Context //nolint:containedctx // it is the point
	// Leave ends the visit. It may be called twice.
	Leave func()
}
