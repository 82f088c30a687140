package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

// issuer is an identity provider in this process, whose clock and keys the
// test sets.
type issuer struct {
	t   *testing.T
	web *httptest.Server

	mu     sync.Mutex
	now    time.Time
	keys   []jose.JSONWebKey // public
	asked  int               // for keys
	broken bool
	name   string // that discovery claims; empty: the true one
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, now: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.broken {
			http.Error(w, "broken", http.StatusBadGateway)
			return
		}
		name := i.web.URL
		if i.name != "" {
			name = i.name
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": name, "jwks_uri": i.web.URL + "/keys", "authorization_endpoint": i.web.URL + "/auth", "token_endpoint": i.web.URL + "/token",
			// Not believed: what tokens may be signed with is ours to say.
			"id_token_signing_alg_values_supported": []string{"none", "HS256", "RS256", "ES256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.asked++
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: i.keys})
	})
	i.web = httptest.NewServer(mux)
	t.Cleanup(i.web.Close)
	return i
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

func (i *issuer) clock() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

func (i *issuer) questions() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *issuer) provider() *Provider {
	return New(Config{Issuer: i.web.URL, Audiences: []string{"https://atoll.example/mcp", "atoll"}, Now: i.clock})
}

// claims are those of a good token, changed.
func (i *issuer) claims(change map[string]any) map[string]any {
	now := i.clock()
	c := map[string]any{
		"iss": i.web.URL, "sub": "ann", "aud": "atoll", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "nbf": now.Unix(),
		"scope": "atoll:read atoll:write", "email": "ann@example.com", "email_verified": true, "organization": "org", "name": "Ann",
	}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any, header map[string]any) string {
	t.Helper()
	opt := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opt.WithHeader("kid", kid)
	}
	for k, v := range header {
		opt.WithHeader(jose.HeaderKey(k), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opt)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(body)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(kid string, key any) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: kid, Use: "sig"}
}

func TestTokens(t *testing.T) {
	i := newIssuer(t)
	good, other := newRSA(t), newRSA(t)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.keys = []jose.JSONWebKey{public("1", &good.PublicKey), public("2", &curve.PublicKey)}
	p := i.provider()
	now := i.clock()

	token := func(change map[string]any) string { return sign(t, jose.RS256, good, "1", i.claims(change), nil) }
	want := engine.Identity{
		Issuer: i.web.URL, Subject: "ann", Name: "Ann", Email: "ann@example.com", OrganizationID: "org",
		Scopes: []string{"atoll:read", "atoll:write"}, ExpiresAt: time.Unix(now.Add(time.Hour).Unix(), 0),
	}
	for name, text := range map[string]string{
		"RSA":                         token(nil),
		"elliptic curve":              sign(t, jose.ES256, curve, "2", i.claims(nil), nil),
		"several audiences, one ours": token(map[string]any{"aud": []string{"x", "https://atoll.example/mcp"}}),
		"no nbf":                      token(map[string]any{"nbf": nil}),
		"a clock that is 30 s ahead":  token(map[string]any{"nbf": now.Add(30 * time.Second).Unix()}),
		"scopes in a list":            token(map[string]any{"scope": []string{"atoll:read", "atoll:write"}}),
	} {
		got, err := p.Identify(t.Context(), text)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, d)
		}
	}
	if got, err := p.Identify(t.Context(), token(map[string]any{"email_verified": nil})); err != nil || got.Email != "" {
		t.Errorf("an address that nobody verified: got %+v, %v", got, err)
	}
	if got, err := p.Identify(t.Context(), token(map[string]any{"email_verified": "true", "scope": 7, "organization": 7})); err != nil || got.Email != "" || got.Scopes != nil || got.OrganizationID != "" {
		t.Errorf("claims of other types: got %+v, %v", got, err)
	}

	parts := strings.Split(token(nil), ".")
	forged, err := json.Marshal(i.claims(map[string]any{"sub": "root"}))
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	publicPEM := x509.MarshalPKCS1PublicKey(&good.PublicKey)
	for name, text := range map[string]string{
		"empty":                     "",
		"nonsense":                  "eyx.y.z",
		"another's key":             sign(t, jose.RS256, other, "1", i.claims(nil), nil),
		"another's key, unknown":    sign(t, jose.RS256, other, "9", i.claims(nil), nil),
		"a key that it brings":      sign(t, jose.RS256, other, "", i.claims(nil), map[string]any{"jwk": public("", &other.PublicKey)}),
		"a key from an address":     sign(t, jose.RS256, other, "9", i.claims(nil), map[string]any{"jku": i.web.URL + "/keys"}),
		"no signature":              b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b64(forged) + ".",
		"signature cut off":         parts[0] + "." + parts[1] + ".",
		"another body":              parts[0] + "." + b64(forged) + "." + parts[2],
		"public key as a password":  sign(t, jose.HS256, publicPEM, "1", i.claims(nil), nil),
		"expired":                   token(map[string]any{"exp": now.Add(-time.Second).Unix()}),
		"without an end":            token(map[string]any{"exp": nil}),
		"not yet":                   token(map[string]any{"nbf": now.Add(2 * time.Minute).Unix()}),
		"for another":               token(map[string]any{"aud": "https://other.example"}),
		"for an audience like ours": token(map[string]any{"aud": "https://atoll.example/mcp/"}),
		"for nobody":                token(map[string]any{"aud": nil}),
		"from another":              token(map[string]any{"iss": "https://other.example"}),
		"from nobody":               token(map[string]any{"iss": nil}),
		"about nobody":              token(map[string]any{"sub": nil}),
		"a number as subject":       token(map[string]any{"sub": 7}),
	} {
		if got, err := p.Identify(t.Context(), text); engine.KindOf(err) != engine.KindUnauthenticated {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// New keys count within seconds, old ones not for long, and callers cannot make
// us ask the provider without end.
func TestKeysRotate(t *testing.T) {
	i := newIssuer(t)
	first, second := newRSA(t), newRSA(t)
	i.keys = []jose.JSONWebKey{public("1", &first.PublicKey)}
	p := i.provider()
	try := func(what string, key *rsa.PrivateKey, kid string, want engine.Kind) {
		t.Helper()
		_, err := p.Identify(t.Context(), sign(t, jose.RS256, key, kid, i.claims(nil), nil))
		if got := engine.KindOf(err); got != want {
			t.Fatalf("%s: got %v, want %q", what, err, want)
		}
	}
	try("the first key", first, "1", "")
	for range 50 {
		try("an invented key", second, "x", engine.KindUnauthenticated)
	}
	if n := i.questions(); n != 1 {
		t.Errorf("the provider was asked %d times for its keys, want once", n)
	}
	i.set(func() { i.keys = append(i.keys, public("2", &second.PublicKey)); i.now = i.now.Add(pause) })
	// The library's last question may be on its way out still, and answer.
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := p.Identify(t.Context(), sign(t, jose.RS256, second, "2", i.claims(nil), nil))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the second key: %v", err)
		}
	}
	try("the first key still", first, "1", "")

	i.set(func() { i.keys = i.keys[1:]; i.now = i.now.Add(freshFor) })
	try("the key that was taken back", first, "1", engine.KindUnauthenticated)
	try("the one that stays", second, "2", "")

	i.set(func() { i.broken = true; i.now = i.now.Add(freshFor) })
	try("while the provider is away", second, "2", "")
	try("a stranger's meanwhile", first, "1", engine.KindUnauthenticated)
}

// The server starts without its provider, and finds it later.
func TestProviderIsAway(t *testing.T) {
	i := newIssuer(t)
	key := newRSA(t)
	i.keys = []jose.JSONWebKey{public("1", &key.PublicKey)}
	i.broken = true
	p := i.provider()
	token := func() string { return sign(t, jose.RS256, key, "1", i.claims(nil), nil) }
	for range 3 {
		if _, err := p.Identify(t.Context(), token()); engine.KindOf(err) != engine.KindUnavailable {
			t.Fatalf("got %v", err)
		}
	}
	i.set(func() { i.broken = false; i.name = "https://other.example"; i.now = i.now.Add(pause) })
	if _, err := p.Identify(t.Context(), token()); engine.KindOf(err) != engine.KindUnavailable {
		t.Fatalf("a provider that calls itself something else: got %v", err)
	}
	i.set(func() { i.name = ""; i.now = i.now.Add(pause) })
	if _, err := p.Identify(t.Context(), token()); err != nil {
		t.Fatal(err)
	}
}
