// Package auth decides who a request speaks for and whether a browser's page
// may speak to this server at all. Every route passes through it once; what a
// principal may do is decided by Permit, also in one place.
package auth

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Guard authenticates requests.
type Guard struct {
	keys   engine.Keys
	failed *limiter
}

// Limits of failed authentication from one address. Requests with a good key
// are never counted and never refused.
const (
	failedLimit  = 30
	failedWindow = time.Minute
)

// New returns a Guard that asks keys. now is the clock.
func New(keys engine.Keys, now func() time.Time) *Guard {
	return &Guard{keys: keys, failed: newLimiter(failedLimit, failedWindow, now)}
}

type principalKey struct{}

// With returns a context that carries the principal.
func With(ctx context.Context, p engine.Principal) context.Context {
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

// Require lets only requests with a good key pass, and hands the principal on
// in the context.
func (g *Guard) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := g.Authenticate(r)
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(With(r.Context(), p)))
	})
}

// Authenticate returns whom the request's key belongs to.
func (g *Guard) Authenticate(r *http.Request) (engine.Principal, error) {
	secret, err := bearer(r)
	if err != nil {
		return engine.Principal{}, err
	}
	return g.keys.Authenticate(r.Context(), secret)
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
		if left, _ := g.failed.hit(remote); left < 0 {
			return engine.Principal{}, tooMany().Err()
		}
	}
	return engine.Principal{}, err
}

// maxSecret bounds what is taken for a key.
const maxSecret = 4096

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
		wire.WriteError(w, r, err)
		return
	}
	left, reset := g.failed.hit(RemoteIP(r))
	setRate(w.Header(), left, reset)
	if left < 0 {
		w.Header().Set("Retry-After", seconds(reset))
		wire.WriteProblem(w, r, tooMany())
		return
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="atoll"`)
	wire.WriteError(w, r, err)
}

func tooMany() *wire.Problem {
	p := wire.NewProblem(engine.Errorf(engine.KindExhausted, "too many requests without a valid API key").
		WithHint("wait a minute, then try with a valid key"))
	p.StatusCode, p.Reason = http.StatusTooManyRequests, http.StatusText(http.StatusTooManyRequests)
	return p
}

func setRate(h http.Header, left int, reset time.Duration) {
	h.Set("X-RateLimit-Limit-failed-auth", strconv.Itoa(failedLimit))
	h.Set("X-RateLimit-Remaining-failed-auth", strconv.Itoa(max(left, 0)))
	h.Set("X-RateLimit-Reset-failed-auth", seconds(reset))
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second) + 1) }

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

// Permit tells whether p may do what needs the permission. An empty
// permission needs a key only; PermissionAdmin needs an administrator's.
func Permit(p engine.Principal, permission string) error {
	switch {
	case permission == "", p.Admin:
		return nil
	case permission != PermissionAdmin && (len(p.Permissions) == 0 || slices.Contains(p.Permissions, permission)):
		return nil
	}
	return engine.Errorf(engine.KindDenied, "this API key lacks the permission %s", permission).
		WithHint("use a key that has it")
}

// PermissionAdmin is what operations on the server itself need.
const PermissionAdmin = "admin"
