package gatewaytest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Access implements engine.Previews. Secrets are made of the sandbox's id and
// of how often they were changed.
func (e *Engine) Access(ctx context.Context, ref engine.SandboxRef) (engine.PreviewAccess, error) {
	s, err := e.Sandbox(ctx, ref)
	if err != nil {
		return engine.PreviewAccess{}, err
	}
	return e.secrets(s), nil
}

func (e *Engine) secrets(s engine.Sandbox) engine.PreviewAccess {
	e.mu.Lock()
	defer e.mu.Unlock()
	of := fmt.Sprintf("%s-%d", s.ID, e.rotations[s.ID])
	return engine.PreviewAccess{Sandbox: s, Token: "token-" + of, SigningKey: "signing-" + of, CookieKey: []byte("cookie-" + of)}
}

// AccessByID implements engine.Previews.
func (e *Engine) AccessByID(_ context.Context, id string) (engine.PreviewAccess, error) {
	if err := e.fail("AccessByID"); err != nil {
		return engine.PreviewAccess{}, err
	}
	e.mu.Lock()
	s, ok := e.sandboxes[id]
	e.mu.Unlock()
	if !ok {
		return engine.PreviewAccess{}, engine.Errorf(engine.KindNotFound, "sandbox %q does not exist", id)
	}
	return e.secrets(*s), nil
}

// Rotate implements engine.Previews.
func (e *Engine) Rotate(ctx context.Context, ref engine.SandboxRef) (engine.PreviewAccess, error) {
	s, err := e.Sandbox(ctx, ref)
	if err != nil {
		return engine.PreviewAccess{}, err
	}
	e.mu.Lock()
	e.rotations[s.ID]++
	for token, l := range e.links {
		if l.SandboxID == s.ID {
			delete(e.links, token)
		}
	}
	e.mu.Unlock()
	return e.secrets(s), nil
}

// CreateLink implements engine.Previews.
func (e *Engine) CreateLink(ctx context.Context, ref engine.SandboxRef, port int, lifetime time.Duration) (string, engine.PreviewLink, error) {
	s, err := e.Sandbox(ctx, ref)
	if err != nil {
		return "", engine.PreviewLink{}, err
	}
	token := strings.ToLower(rand.Text())[:engine.LinkTokenLen]
	link := engine.PreviewLink{SandboxID: s.ID, OrganizationID: s.OrganizationID, Port: port, ExpiresAt: now().Add(lifetime)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.links[token] = link
	return token, link, nil
}

// Link implements engine.Previews.
func (e *Engine) Link(_ context.Context, token string) (engine.PreviewLink, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l, ok := e.links[token]
	if !ok || !now().Before(l.ExpiresAt) {
		return engine.PreviewLink{}, engine.Errorf(engine.KindNotFound, "this preview link has expired or was never made")
	}
	return l, nil
}

// ExpireLink implements engine.Previews.
func (e *Engine) ExpireLink(ctx context.Context, ref engine.SandboxRef, port int, token string) error {
	s, err := e.Sandbox(ctx, ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if l, ok := e.links[token]; !ok || l.SandboxID != s.ID || l.Port != port {
		return engine.Errorf(engine.KindNotFound, "the signed preview link does not exist")
	}
	delete(e.links, token)
	return nil
}

// Hold implements engine.Previews.
func (e *Engine) Hold(sandboxID string) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held = append(e.held, sandboxID)
	return func() {}
}

// Held returns the sandboxes whose activity was held so far.
func (e *Engine) Held() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.held...)
}
