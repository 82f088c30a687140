package core

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// PreviewStore keeps what opens previews.
type PreviewStore interface {
	PreviewGeneration(ctx context.Context, sandboxID string) (uint64, error)
	RotatePreviewKey(ctx context.Context, sandboxID string) (uint64, error)
	InsertPreviewLink(ctx context.Context, l engine.PreviewLink, token string, most int, now time.Time) error
	PreviewLink(ctx context.Context, token string, now time.Time) (engine.PreviewLink, error)
	DeletePreviewLink(ctx context.Context, sandboxID string, port int, token string) error
	PurgePreviews(ctx context.Context, now time.Time) error
}

// maxLinks is how many good links one sandbox may have.
const maxLinks = 1000

// Previews opens ports and files without an API key.
func (c *Core) Previews() engine.Previews { return previews{c} }

type previews struct{ *Core }

// Access returns the sandbox's secrets.
func (p previews) Access(ctx context.Context, ref engine.SandboxRef) (engine.PreviewAccess, error) {
	sb, err := p.find(ctx, ref)
	if err != nil {
		return engine.PreviewAccess{}, public(err)
	}
	return p.access(ctx, &sb)
}

// AccessByID returns the secrets of any organization's sandbox.
func (p previews) AccessByID(ctx context.Context, id string) (engine.PreviewAccess, error) {
	sb, err := p.Store.SandboxByID(ctx, id)
	if engine.KindOf(err) == engine.KindNotFound || err == nil && sb.State == engine.StateDestroyed {
		return engine.PreviewAccess{}, engine.Errorf(engine.KindNotFound, "sandbox %q does not exist", id)
	}
	if err != nil {
		return engine.PreviewAccess{}, public(err)
	}
	return p.access(ctx, &sb)
}

func (p previews) access(ctx context.Context, sb *store.Sandbox) (engine.PreviewAccess, error) {
	generation, err := p.Store.PreviewGeneration(ctx, sb.ID)
	if err != nil {
		return engine.PreviewAccess{}, public(err)
	}
	return p.secrets(sb, generation), nil
}

// secrets derives what opens a sandbox from the server's secret.
func (p previews) secrets(sb *store.Sandbox, generation uint64) engine.PreviewAccess {
	derive := func(what string) []byte {
		mac := hmac.New(sha256.New, p.Secret)
		mac.Write([]byte("atoll preview " + what + "\n" + sb.ID + "\n"))
		_ = binary.Write(mac, binary.BigEndian, generation)
		return mac.Sum(nil)
	}
	return engine.PreviewAccess{
		Sandbox:    p.view(sb),
		Token:      base64.RawURLEncoding.EncodeToString(derive("token")[:24]),
		SigningKey: base64.RawURLEncoding.EncodeToString(derive("files")),
		CookieKey:  derive("cookie"),
	}
}

// Rotate changes all secrets of a sandbox and revokes its links.
func (p previews) Rotate(ctx context.Context, ref engine.SandboxRef) (engine.PreviewAccess, error) {
	sb, err := p.find(ctx, ref)
	if err != nil {
		return engine.PreviewAccess{}, public(err)
	}
	generation, err := p.Store.RotatePreviewKey(ctx, sb.ID)
	if err != nil {
		return engine.PreviewAccess{}, public(err)
	}
	return p.secrets(&sb, generation), nil
}

// CreateLink stores a new link and returns its token, which is not kept.
func (p previews) CreateLink(ctx context.Context, ref engine.SandboxRef, port int, lifetime time.Duration) (string, engine.PreviewLink, error) {
	switch {
	case port < 1 || port > 65535:
		return "", engine.PreviewLink{}, badPort(port)
	case lifetime < time.Second || lifetime > engine.MaxLinkLifetime:
		return "", engine.PreviewLink{}, engine.Errorf(engine.KindInvalid, "a signed preview URL lasts 1 to %.0f seconds, not %.0f",
			engine.MaxLinkLifetime.Seconds(), lifetime.Seconds())
	}
	sb, err := p.find(ctx, ref)
	if err != nil {
		return "", engine.PreviewLink{}, public(err)
	}
	now := p.Now().UTC()
	link := engine.PreviewLink{SandboxID: sb.ID, OrganizationID: sb.OrganizationID, Port: port, ExpiresAt: now.Add(lifetime)}
	token := newLinkToken()
	if err := p.Store.InsertPreviewLink(ctx, link, token, maxLinks, now); err != nil {
		return "", engine.PreviewLink{}, public(err)
	}
	return token, link, nil
}

func badPort(port int) error {
	return engine.Errorf(engine.KindInvalid, "port %d is not between 1 and 65535", port)
}

// newLinkToken makes 82 bits of chance, in the letters of a host name.
func newLinkToken() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	var b strings.Builder
	for range engine.LinkTokenLen {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // the kernel has no randomness; nothing is safe then
		}
		b.WriteByte(letters[n.Int64()])
	}
	return b.String()
}

// Link looks a token up.
func (p previews) Link(ctx context.Context, token string) (engine.PreviewLink, error) {
	l, err := p.Store.PreviewLink(ctx, token, p.Now())
	if engine.KindOf(err) == engine.KindNotFound {
		return l, engine.Errorf(engine.KindNotFound, "this preview link has expired or was never made")
	}
	return l, public(err)
}

// ExpireLink revokes a link.
func (p previews) ExpireLink(ctx context.Context, ref engine.SandboxRef, port int, token string) error {
	sb, err := p.find(ctx, ref)
	if err != nil {
		return public(err)
	}
	return public(p.Store.DeletePreviewLink(ctx, sb.ID, port, token))
}

// Hold counts as an open call.
func (p previews) Hold(sandboxID string) (release func()) { return p.activity.begin(sandboxID, p.Now) }
