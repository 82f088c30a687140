package auth

import (
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Issuer is an identity provider whose access tokens are taken, beside keys.
type Issuer struct {
	URL string
	// Resource is the URL by which the caller reached what it asks for, and
	// Metadata the one where the rest is told (RFC 9728).
	Resource, Metadata func(r *http.Request) string
}

// MetadataPath is where a client learns which provider gives tokens for us. It
// is followed by the path of the resource.
const MetadataPath = "/.well-known/oauth-protected-resource"

// WithIssuer makes the guard tell refused callers where tokens come from. It
// returns g.
func (g *Guard) WithIssuer(i *Issuer) *Guard {
	g.issuer = i
	return g
}

// Metadata tells where access tokens come from and what they can be for. It is
// for anybody.
func (g *Guard) Metadata() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		wire.WriteJSON(w, http.StatusOK, map[string]any{
			"resource":                 g.issuer.Resource(r),
			"authorization_servers":    []string{g.issuer.URL},
			"scopes_supported":         engine.TokenScopes(),
			"bearer_methods_supported": []string{"header"},
			"resource_name":            "Atoll",
		})
	}
}

// challenge is the header of a refusal: what kind of credential is wanted, and
// where it comes from.
func (g *Guard) challenge(r *http.Request, err error) string {
	parts := []string{`realm="atoll"`}
	switch {
	case engine.KindOf(err) == engine.KindDenied:
		parts = append(parts, `error="insufficient_scope"`, `scope="`+engine.TokenRead+" "+engine.TokenWrite+`"`)
	case r.Header.Get("Authorization") != "":
		parts = append(parts, `error="invalid_token"`)
	case g.issuer != nil:
		parts = append(parts, `scope="`+engine.TokenRead+" "+engine.TokenWrite+`"`)
	}
	if g.issuer != nil {
		parts = append(parts, `resource_metadata="`+g.issuer.Metadata(r)+`"`)
	}
	return "Bearer " + strings.Join(parts, ", ")
}
