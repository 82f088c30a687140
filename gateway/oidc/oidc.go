// Package oidc trusts one identity provider: it checks the access tokens that
// the provider has issued for this server, and says whom they speak of.
//
// A token counts when a key of the provider has signed it with one of the
// Algorithms, it names the provider as issuer and this server as audience, and
// its time has come and not passed. Everything else is refused.
package oidc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/atoll-sh/atoll/engine"
)

// Algorithms returns what tokens may be signed with: public keys only.
func Algorithms() []string {
	return []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}
}

// Config says whom to trust. Issuer and Audiences are required.
type Config struct {
	Issuer    string   // URL, exactly as tokens name it
	Audiences []string // names of this server; a token has to be for one
	// OrganizationClaim and ScopeClaim name the claims that bind a token to an
	// organization and say what it may do; empty: organization, scope.
	OrganizationClaim, ScopeClaim string
	// Scopes has every token, for providers that cannot grant ours.
	Scopes []string
	HTTP   *http.Client // nil: one with a timeout
	Now    func() time.Time
	Log    *slog.Logger
}

// How the provider's own documents are kept.
const (
	fetchLimit = 10 * time.Second
	// freshFor is for how long a key counts that the provider has taken back.
	freshFor = 10 * time.Minute
	// pause is between two questions to the provider, which callers with
	// invented tokens could otherwise make it answer without end.
	pause = 10 * time.Second
	// skew is how far clocks may be apart.
	skew = time.Minute
)

// Provider is the identity provider. It is asked when first needed, so that
// the server starts without it.
type Provider struct {
	config Config

	asking   sync.Mutex
	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil: not known yet
	at       time.Time             // of the last question
	err      error                 // what came of it
}

// New returns a provider.
func New(c Config) *Provider {
	if c.OrganizationClaim == "" {
		c.OrganizationClaim = "organization"
	}
	if c.ScopeClaim == "" {
		c.ScopeClaim = "scope"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{
			Timeout:       fetchLimit,
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the provider redirects") },
		}
	}
	c.HTTP = &http.Client{Transport: newPaced(c.HTTP, c.Now)}
	return &Provider{config: c}
}

// Identify checks a token.
func (p *Provider) Identify(ctx context.Context, token string) (engine.Identity, error) {
	verifier, err := p.current(ctx)
	if err != nil {
		return engine.Identity{}, err
	}
	t, err := verifier.Verify(ctx, token)
	if err != nil {
		if unreachable(err) {
			return engine.Identity{}, unavailable(err)
		}
		return engine.Identity{}, bad(reason(err)).Wrap(err)
	}
	return p.identity(t)
}

// identity takes what counts out of a token whose signature, issuer and expiry
// are good.
func (p *Provider) identity(t *oidc.IDToken) (engine.Identity, error) {
	var all map[string]any
	var times struct {
		NotBefore float64 `json:"nbf"`
	}
	if err := errors.Join(t.Claims(&all), t.Claims(&times)); err != nil {
		return engine.Identity{}, bad("its claims cannot be read").Wrap(err)
	}
	switch {
	case !slices.ContainsFunc(p.config.Audiences, func(a string) bool { return slices.Contains(t.Audience, a) }):
		return engine.Identity{}, bad("it is for somebody else")
	case time.Unix(int64(times.NotBefore), 0).After(p.config.Now().Add(skew)):
		return engine.Identity{}, bad("its time has not come")
	case t.Subject == "":
		return engine.Identity{}, bad("it names nobody")
	}
	id := engine.Identity{Issuer: t.Issuer, Subject: t.Subject, Scopes: slices.Clone(p.config.Scopes), ExpiresAt: t.Expiry}
	id.Scopes = append(id.Scopes, words(all[p.config.ScopeClaim])...)
	id.OrganizationID, _ = all[p.config.OrganizationClaim].(string)
	id.Name, _ = all["name"].(string)
	if verified, _ := all["email_verified"].(bool); verified {
		id.Email, _ = all["email"].(string)
	}
	return id, nil
}

// words reads a claim that is a list, or words with spaces between.
func words(claim any) []string {
	switch v := claim.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var out []string
		for _, w := range v {
			if s, ok := w.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// current returns a verifier with keys that are not too old. When the provider
// cannot be reached, the ones from before go on.
func (p *Provider) current(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	known, due, err := p.known()
	if !due {
		return known, err
	}
	// One asks. Meanwhile the others use what is known, or wait for it.
	if known == nil {
		p.asking.Lock()
	} else if !p.asking.TryLock() {
		return known, nil
	}
	defer p.asking.Unlock()
	if known, due, err = p.known(); !due {
		return known, err
	}
	fresh, err := p.ask(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.err = p.config.Now(), err
	if err == nil {
		p.verifier = fresh
	}
	if p.verifier == nil {
		return nil, unavailable(err)
	}
	return p.verifier, nil
}

// known returns what is known of the provider, and whether to ask again.
func (p *Provider) known() (v *oidc.IDTokenVerifier, due bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	age := p.config.Now().Sub(p.at)
	if p.verifier == nil {
		return nil, p.at.IsZero() || age >= pause, unavailable(p.err)
	}
	return p.verifier, age >= pause && (p.err != nil || age >= freshFor), nil
}

func (p *Provider) ask(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	// The library keeps the context's values for later questions.
	ctx, cancel := context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), p.config.HTTP), fetchLimit)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, p.config.Issuer)
	if err != nil {
		p.config.Log.Warn("the identity provider cannot be used", "issuer", p.config.Issuer, "err", err)
		return nil, err
	}
	return provider.VerifierContext(ctx, &oidc.Config{
		SkipClientIDCheck:    true, // identity looks at the audience
		SupportedSigningAlgs: Algorithms(), Now: p.config.Now,
	}), nil
}

func bad(why string) *engine.Error {
	return engine.Errorf(engine.KindUnauthenticated, "the access token is not good: %s", why).
		WithHint("get a new one from the identity provider, or send an API key")
}

func unavailable(err error) error {
	return engine.Errorf(engine.KindUnavailable, "the identity provider cannot be reached").
		WithHint("try again in a moment, or send an API key").Wrap(err)
}

// unreachable tells that a token could not be checked, rather than that it is
// not good.
func unreachable(err error) bool { return strings.Contains(err.Error(), "fetching keys") }

// reason is what the caller is told.
func reason(err error) string {
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return "it has expired"
	case strings.Contains(err.Error(), "different provider"):
		return "another provider has issued it"
	case strings.Contains(err.Error(), "not before"):
		return "its time has not come"
	}
	return "it is malformed, or not signed by the provider"
}
