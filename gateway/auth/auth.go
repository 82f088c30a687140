// Package auth decides who a request speaks for and whether a browser's page
// may speak to this server at all. Every route passes through it once; what a
// principal may do is decided by Permit, also in one place.
package auth

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Guard authenticates requests and counts them.
type Guard struct {
	keys      engine.Keys
	limits    []engine.RateLimit
	callers   *limiter // by key
	strangers *limiter // by address, apart from callers whom their number shall not harm
	issuer    *Issuer  // nil: keys only
}

// Limits of failed authentication from one address, unless others are given.
// Requests with a good key are never counted as such.
const (
	failedLimit  = 30
	failedWindow = time.Minute
)

// New returns a Guard that asks keys. now is the clock. Only failed
// authentication is limited unless limits say more.
func New(keys engine.Keys, now func() time.Time, limits ...engine.RateLimit) *Guard {
	limits = append(slices.Clone(limits), engine.RateLimit{Name: LimitFailed, Limit: failedLimit, Window: failedWindow})
	return &Guard{keys: keys, limits: limits, callers: newLimiter(now), strangers: newLimiter(now)}
}

type principalKey struct{}

// With returns a context that carries the principal, who is then also the
// caller of toolboxes.
func With(ctx context.Context, p engine.Principal) context.Context {
	ctx = engine.WithCaller(ctx, engine.Caller{Door: "api", Principal: p})
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the principal of a request that passed Require.
func From(ctx context.Context) (engine.Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(engine.Principal)
	return p, ok
}

// Organization returns the organization of the request's principal. It is
// empty for public routes.
func Organization(ctx context.Context) string {
	p, _ := From(ctx)
	return p.OrganizationID
}

// Origin is where a request came from, for the audit trail.
type Origin struct{ IP, UserAgent, Source string }

type (
	originKey struct{}
	secretKey struct{}
)

// OriginOf returns where a request that passed Require came from.
func OriginOf(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}

// Require lets only requests with a good key pass that are not too many, and
// hands the principal on in the context.
func (g *Guard) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, err := bearer(r)
		asked := wanting(r.Context(), r)
		var p engine.Principal
		if err == nil {
			p, err = g.keys.Authenticate(asked, secret)
		}
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		ctx := context.WithValue(With(asked, p), guardKey{}, g)
		ctx = context.WithValue(ctx, secretKey{}, secret)
		ctx = context.WithValue(ctx, originKey{}, Origin{IP: RemoteIP(r), UserAgent: r.UserAgent(), Source: r.Header.Get("X-Daytona-Source")})
		if r = r.WithContext(ctx); g.Allow(w, r, LimitAuthenticated) {
			next.ServeHTTP(w, r)
		}
	})
}

// Stream ends the context of a request that passed Require as soon as its key
// is revoked, expires or may do less. It is for requests that last.
func (g *Guard) Stream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := From(r.Context())
		secret, _ := r.Context().Value(secretKey{}).(string)
		ctx, cancel := g.Lasting(r.Context(), p, secret)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Toolbox lets requests pass that may do what they want to a toolbox: looking
// needs a key alone, anything else write:sandboxes. An upgrade may be a
// terminal.
func Toolbox(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := From(r.Context())
		err := Permit(p, ToolboxPermission(r))
		if err == nil {
			err = engine.AuthorizeTool(p, toolboxTool(r))
		}
		if err != nil {
			wire.WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ToolboxPermission is what a request to something in a sandbox needs.
func ToolboxPermission(r *http.Request) string {
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Upgrade") == "" {
		return ""
	}
	return engine.WriteSandboxes
}

// CountFailure counts a request with a bad secret of another kind as a failed
// authentication, and tells in the headers what is left. It returns an error
// when there were too many from the address.
func (g *Guard) CountFailure(h http.Header, r *http.Request) error {
	l, left, reset := g.fail(RemoteIP(r))
	setRate(h, l, left, reset)
	if left >= 0 {
		return nil
	}
	h.Set("Retry-After", seconds(reset))
	return errTooMany
}

// LastingRequest is Lasting for a request whose key Authenticate took.
func (g *Guard) LastingRequest(ctx context.Context, r *http.Request, p engine.Principal) (context.Context, context.CancelFunc) {
	secret, _ := bearer(r)
	return g.Lasting(wanting(ctx, r), p, secret)
}

// Authenticate returns whom the request's key belongs to.
func (g *Guard) Authenticate(r *http.Request) (engine.Principal, error) {
	secret, err := bearer(r)
	if err != nil {
		return engine.Principal{}, err
	}
	return g.keys.Authenticate(wanting(r.Context(), r), secret)
}

// wanting notes the organization that a request names, as the contract's
// clients do beside an access token.
func wanting(ctx context.Context, r *http.Request) context.Context {
	return engine.WithOrganization(ctx, r.Header.Get("X-Daytona-Organization-ID"))
}

// AuthenticateToken returns whom a key belongs to that came in another way than
// a request's header. It counts and refuses as Require does; remote is the
// address of the peer.
func (g *Guard) AuthenticateToken(ctx context.Context, remote, secret string) (engine.Principal, error) {
	err := error(engine.Errorf(engine.KindUnauthenticated, "no API key was sent"))
	if secret != "" && len(secret) <= maxSecret {
		p, known := g.keys.Authenticate(ctx, secret)
		if known == nil {
			return p, nil
		}
		err = known
	}
	if engine.KindOf(err) == engine.KindUnauthenticated {
		if _, left, _ := g.fail(remote); left < 0 {
			return engine.Principal{}, errTooMany
		}
	}
	return engine.Principal{}, err
}

// maxSecret bounds what is taken for a key or an access token.
const maxSecret = 16 << 10

func bearer(r *http.Request) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", engine.Errorf(engine.KindUnauthenticated, "no API key was sent").
			WithHint("send the header Authorization: Bearer <key>")
	}
	scheme, secret, _ := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || len(secret) > maxSecret {
		return "", engine.Errorf(engine.KindUnauthenticated, "the Authorization header is not of the form Bearer <key>")
	}
	return secret, nil
}

func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if engine.KindOf(err) != engine.KindUnauthenticated {
		if engine.KindOf(err) == engine.KindDenied {
			w.Header().Set("WWW-Authenticate", g.challenge(r, err))
		}
		wire.WriteError(w, r, err)
		return
	}
	l, left, reset := g.fail(RemoteIP(r))
	setRate(w.Header(), l, left, reset)
	if left < 0 {
		refuseRate(w, r, reset, errTooMany)
		return
	}
	w.Header().Set("WWW-Authenticate", g.challenge(r, err))
	wire.WriteError(w, r, err)
}

// fail counts a failed authentication.
func (g *Guard) fail(remote string) (l engine.RateLimit, left int, reset time.Duration) {
	l, _ = g.limit(engine.Principal{}, LimitFailed)
	left, reset = g.strangers.hit(LimitFailed+"\x00"+remote, l.Limit, l.Window)
	return l, left, reset
}

var errTooMany = engine.Errorf(engine.KindExhausted, "too many requests without a valid API key").
	WithHint("wait a minute, then try with a valid key")

// RemoteIP returns the address of the peer, without its port.
func RemoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Local tells whether the peer is on this machine and no proxy stands between.
func Local(r *http.Request) bool {
	ip := net.ParseIP(RemoteIP(r))
	return ip != nil && ip.IsLoopback() && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
}

// Permit tells whether p may do what needs the permission. It is
// engine.Authorize for operations that name no object yet.
func Permit(p engine.Principal, permission string) error { return engine.Authorize(p, permission, "") }

// PermissionAdmin is what operations on the server itself need.
const PermissionAdmin = engine.PermissionAdmin
