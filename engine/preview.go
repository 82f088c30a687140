package engine

import (
	"context"
	"time"
)

// Ports of previews that the server itself serves, and that always need
// authentication, also for public sandboxes.
const (
	PortTerminal   = 22222 // a terminal in the browser
	PortToolbox    = 2280  // the toolbox's API
	PortRecordings = 33333 // recordings of the desktop
)

// ReservedPort tells whether a port is one of those.
func ReservedPort(port int) bool {
	return port == PortTerminal || port == PortToolbox || port == PortRecordings
}

// Limits of signed preview links.
const (
	DefaultLinkLifetime = time.Minute
	MaxLinkLifetime     = 24 * time.Hour
	LinkTokenLen        = 16 // lower-case letters and digits
)

// PreviewAccess is a sandbox with the secrets that open its ports and files without an
// API key. All of them change with Previews.Rotate.
type PreviewAccess struct {
	Sandbox    Sandbox
	Token      string // opens all ports
	SigningKey string // signs URLs of files
	CookieKey  []byte // signs the cookies of previews
}

// PreviewLink is what the token of a signed preview URL grants. The token
// itself is not kept.
type PreviewLink struct {
	SandboxID      string
	OrganizationID string
	Port           int
	ExpiresAt      time.Time
}

// PreviewURL is where a port of a sandbox is seen.
type PreviewURL struct {
	SandboxID string
	URL       string
	Token     string // for the header X-Daytona-Preview-Token; of a signed URL: what is in it
}

// Previews hands out and looks up the ways to ports and files of sandboxes that
// need no API key. The gateway calls it; comparing secrets is the caller's
// business.
type Previews interface {
	Access(ctx context.Context, ref SandboxRef) (PreviewAccess, error)
	// AccessByID is for requests whose organization is not known yet. The
	// caller must check them against what it returns.
	AccessByID(ctx context.Context, sandboxID string) (PreviewAccess, error)
	// Rotate makes all earlier secrets of the sandbox worthless.
	Rotate(ctx context.Context, ref SandboxRef) (PreviewAccess, error)
	// CreateLink opens one port to whoever knows the token that it returns.
	CreateLink(ctx context.Context, ref SandboxRef, port int, lifetime time.Duration) (string, PreviewLink, error)
	// Link is not found when the token is unknown, revoked or expired.
	Link(ctx context.Context, token string) (PreviewLink, error)
	ExpireLink(ctx context.Context, ref SandboxRef, port int, token string) error
	// Hold counts as activity of the sandbox until release, which may be
	// called more than once.
	Hold(sandboxID string) (release func())
}
