package gatewaytest

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

// SSH returns the engine as engine.SSHDoor. It keeps tokens itself; ask once.
func (e *Engine) SSH() engine.SSHDoor { return &door{e: e, tokens: map[string]*grant{}} }

type door struct {
	e *Engine

	mu     sync.Mutex
	tokens map[string]*grant
}

type grant struct {
	engine.SSHAccess
	life context.Context //nolint:containedctx // of all its visits
	end  context.CancelCauseFunc
}

// revoked is why visits end.
var revoked = engine.Errorf(engine.KindUnauthenticated, "the SSH access was revoked")

func (d *door) Grant(ctx context.Context, p engine.Principal, ref engine.SandboxRef, validFor time.Duration) (engine.SSHAccess, string, error) {
	s, err := d.e.Sandbox(ctx, ref)
	if err != nil {
		return engine.SSHAccess{}, "", err
	}
	_, _ = d.Revoke(ctx, ref, "")
	made := now()
	g := &grant{SSHAccess: engine.SSHAccess{
		ID: uuid.NewString(), SandboxID: s.ID, OrganizationID: s.OrganizationID, KeyID: p.KeyID,
		CreatedAt: made, ExpiresAt: made.Add(validFor),
	}}
	g.life, g.end = context.WithCancelCause(context.Background())
	token := "ssh_" + uuid.NewString()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tokens[token] = g
	return g.SSHAccess, token, nil
}

func (d *door) Revoke(ctx context.Context, ref engine.SandboxRef, token string) (engine.Sandbox, error) {
	s, err := d.e.Sandbox(ctx, ref)
	if err != nil {
		return s, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	found := false
	for t, g := range d.tokens {
		if g.SandboxID == s.ID && (token == "" || token == t) {
			g.end(revoked)
			delete(d.tokens, t)
			found = true
		}
	}
	if !found && token != "" {
		return s, engine.Errorf(engine.KindNotFound, "sandbox %s has no such SSH access", s.Name)
	}
	return s, nil
}

func (d *door) find(token string) (*grant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g := d.tokens[token]; g != nil && time.Now().Before(g.ExpiresAt) {
		return g, nil
	}
	return nil, engine.Errorf(engine.KindUnauthenticated, "the SSH access is not valid or has expired")
}

func (d *door) Check(_ context.Context, token string) (engine.SSHAccess, error) {
	g, err := d.find(token)
	if err != nil {
		return engine.SSHAccess{}, err
	}
	return g.SSHAccess, nil
}

func (d *door) Enter(ctx context.Context, token string) (*engine.SSHVisit, error) {
	g, err := d.find(token)
	if err != nil {
		return nil, err
	}
	if _, err := d.e.started(ctx, engine.SandboxRef{OrganizationID: g.OrganizationID, IDOrName: g.SandboxID}); err != nil {
		return nil, err
	}
	life, leave := context.WithCancel(g.life)
	return &engine.SSHVisit{SSHAccess: g.SSHAccess, Life: life, Leave: leave}, nil
}
