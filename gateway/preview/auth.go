package preview

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
)

// The names by which credentials come.
const (
	tokenHeader = "X-Daytona-Preview-Token"
	tokenQuery  = "DAYTONA_SANDBOX_AUTH_KEY"
)

// way is how a visit was let in.
type way int

const (
	wayNone   way = iota
	wayKey        // an API key of the sandbox's organization
	wayHeader     // the preview token in a header
	wayQuery      // the preview token in the URL
	wayCookie     // our cookie
	wayLink       // the token in the host name or path
	wayPublic     // the sandbox is public
)

// visit is a request whose sandbox is known.
type visit struct {
	target
	access engine.PreviewAccess
	way    way
	token  string // that revocation ends the visit; empty: none
	ours   bool   // the Authorization header held a key of this server

	key     engine.Principal // with wayKey
	expires time.Time        // of the link that let it in; zero: none did
}

// enter finds the sandbox and decides whether the request may pass. The order
// is the contract's: key, header, query, cookie, link.
func (p *Previews) enter(r *http.Request, t target, cookies bool) (*visit, error) {
	v := &visit{target: t}
	linked, err := p.find(r, v)
	if err != nil {
		return v, err
	}
	foreign, err := p.byKey(r, v)
	var denied error
	switch {
	case engine.KindOf(err) == engine.KindDenied:
		denied = err // another way may let it in
	case err != nil || v.way != wayNone:
		return v, err
	}
	switch {
	case p.byToken(r, v, r.Header.Get(tokenHeader)):
		v.way = wayHeader
	case p.byToken(r, v, queryToken(r.URL.RawQuery)):
		v.way = wayQuery
	case cookies && p.byCookie(r, v):
		v.way = wayCookie
	case !linked.ExpiresAt.IsZero():
		v.way, v.token, v.expires = wayLink, t.label, linked.ExpiresAt
	case v.access.Sandbox.Public && !engine.ReservedPort(t.port):
		v.way, v.token = wayPublic, publicToken(v.access.Sandbox.ID)
	case denied != nil:
		return v, denied
	case foreign:
		return v, noSandbox(t)
	default:
		return v, engine.Errorf(engine.KindUnauthenticated, "port %d of this sandbox is private", t.port).
			WithHint("send an API key, or the sandbox's preview token in the header %s, or use a signed preview URL", tokenHeader)
	}
	return v, nil
}

// publicToken stands for the public in the list of what is open. No secret has
// a space.
func publicToken(sandbox string) string { return "public " + sandbox }

// find looks the sandbox up and returns the link that led to it, if one did.
func (p *Previews) find(r *http.Request, v *visit) (link engine.PreviewLink, err error) {
	id := v.label
	if v.isLink() {
		link, err = p.links.Link(r.Context(), v.label)
		if engine.KindOf(err) == engine.KindNotFound || err == nil && link.Port != v.port {
			return engine.PreviewLink{}, engine.Errorf(engine.KindUnauthenticated, "this preview link has expired or was never made").
				WithHint("ask for a new one")
		}
		if err != nil {
			return engine.PreviewLink{}, err
		}
		id = link.SandboxID
	}
	v.access, err = p.links.AccessByID(r.Context(), id)
	if engine.KindOf(err) == engine.KindNotFound {
		err = noSandbox(v.target)
	}
	return link, err
}

func noSandbox(t target) error {
	return engine.Errorf(engine.KindNotFound, "there is no sandbox %s", t.label).
		WithHint("it may have been deleted; atoll ls lists those that are there")
}

// byKey looks at the Authorization header. One that is no key of this server is
// the guest's own business; a key of another organization is foreign. What a
// key may do here is what it may do to a toolbox: a service is a part of its
// sandbox, so that driving it takes the permission to write.
func (p *Previews) byKey(r *http.Request, v *visit) (foreign bool, err error) {
	if r.Header.Get("Authorization") == "" {
		return false, nil
	}
	who, err := p.guard.Authenticate(r)
	if engine.KindOf(err) == engine.KindUnauthenticated {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v.ours = true
	if who.OrganizationID != v.access.Sandbox.OrganizationID || !who.Scope.Sees(v.access.Sandbox.Labels) {
		return true, nil
	}
	if err := auth.PermitPort(who, v.access.Sandbox, r); err != nil {
		return false, err
	}
	v.way, v.key = wayKey, who
	return false, nil
}

// byToken compares with the sandbox's own token, or looks for a link to this
// very port of it.
func (p *Previews) byToken(r *http.Request, v *visit, given string) bool {
	if given == "" {
		return false
	}
	if same(given, v.access.Token) {
		v.token = v.access.Token
		return true
	}
	if t := (target{v.port, given}); !t.isLink() || !plain(given) {
		return false
	}
	link, err := p.links.Link(r.Context(), given)
	if err != nil || link.SandboxID != v.access.Sandbox.ID || link.Port != v.port {
		return false
	}
	v.token, v.expires = given, link.ExpiresAt
	return true
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// queryToken returns the token in a query, however its name is encoded.
func queryToken(raw string) string {
	token := ""
	eachPair(raw, func(name, value, _ string) {
		if name == tokenQuery && token == "" {
			token = value
		}
	})
	return token
}

// withoutToken returns the query as it was, but for the token.
func withoutToken(raw string) string {
	var kept []string
	eachPair(raw, func(name, _, pair string) {
		if name != tokenQuery {
			kept = append(kept, pair)
		}
	})
	return strings.Join(kept, "&")
}

func eachPair(raw string, f func(name, value, pair string)) {
	if raw == "" {
		return
	}
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if n, err := url.QueryUnescape(name); err == nil {
			name = n
		}
		if v, err := url.QueryUnescape(value); err == nil {
			value = v
		}
		f(name, value, pair)
	}
}

// strip takes from a request all that is meant for us and would give the guest
// power over its visitor, or a false idea of who that is.
func strip(r *http.Request, v *visit) {
	h := r.Header
	if v.ours || looksLikeKey(h.Get("Authorization")) {
		h.Del("Authorization")
	}
	for _, name := range []string{
		tokenHeader, skipActivity, disableCORS, skipWarning, "X-Daytona-Organization-Id",
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
		"X-Forwarded-Server", "X-Real-Ip", "Proxy-Authorization",
	} {
		h.Del(name)
	}
	stripCookies(h)
	r.URL.RawQuery = withoutToken(r.URL.RawQuery)
}

// looksLikeKey finds keys of this server that have expired or were revoked.
func looksLikeKey(header string) bool {
	_, secret, _ := strings.Cut(header, " ")
	return strings.HasPrefix(strings.TrimSpace(secret), "atl_")
}

// remote is the address that guests are told.
func remote(r *http.Request) string { return auth.RemoteIP(r) }
