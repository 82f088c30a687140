package auth

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Names of rate limits.
const (
	LimitAnonymous     = "anonymous"         // requests that need no key, by address
	LimitFailed        = "failed-auth"       // requests without a good key, by address
	LimitAuthenticated = "authenticated"     // by key, as the two below
	LimitCreate        = "sandbox-create"    // also counts as authenticated
	LimitLifecycle     = "sandbox-lifecycle" // also counts as authenticated
)

// limitNames lists them all.
func limitNames() []string {
	return []string{LimitAnonymous, LimitFailed, LimitAuthenticated, LimitCreate, LimitLifecycle}
}

// ParseLimits reads limits as NAME=REQUESTS/SECONDS, separated by commas.
func ParseLimits(text string) ([]engine.RateLimit, error) {
	var out []engine.RateLimit
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, rate, _ := strings.Cut(part, "=")
		count, seconds, _ := strings.Cut(rate, "/")
		n, err1 := strconv.Atoi(count)
		s, err2 := strconv.Atoi(seconds)
		if !slices.Contains(limitNames(), name) || err1 != nil || err2 != nil || n < 1 || s < 1 || s > 86400 {
			return nil, fmt.Errorf("%q is not NAME=REQUESTS/SECONDS with a name of %s", part, strings.Join(limitNames(), ", "))
		}
		out = append(out, engine.RateLimit{Name: name, Limit: n, Window: time.Duration(s) * time.Second})
	}
	return out, nil
}

// Allow counts a request against the limit of the name and tells in the
// headers what is left. It answers 429 and returns false when nothing is.
func (g *Guard) Allow(w http.ResponseWriter, r *http.Request, name string) bool {
	p, known := From(r.Context())
	key, counted := p.KeyID, g.callers
	if !known {
		key, counted = RemoteIP(r), g.strangers
	}
	l, on := g.limit(p, name)
	if !on {
		return true
	}
	left, reset := counted.hit(name+"\x00"+key, l.Limit, l.Window)
	setRate(w.Header(), l, left, reset)
	if left >= 0 {
		return true
	}
	refuseRate(w, r, reset, tooFast(l).WithHint("wait as long as Retry-After says"))
	return false
}

func tooFast(l engine.RateLimit) *engine.Error {
	return engine.Errorf(engine.KindExhausted, "more than %d requests in %v (%s)", l.Limit, l.Window, l.Name)
}

type guardKey struct{}

// Count counts what one request that passed Require asks for beside the request
// itself, as an agent's tool does, and fails when nothing is left of the limit.
func Count(ctx context.Context, name string) error {
	g, _ := ctx.Value(guardKey{}).(*Guard)
	p, known := From(ctx)
	if g == nil || !known {
		return nil
	}
	l, on := g.limit(p, name)
	if !on {
		return nil
	}
	left, reset := g.callers.hit(name+"\x00"+p.KeyID, l.Limit, l.Window)
	if left >= 0 {
		return nil
	}
	return tooFast(l).WithHint("try again in %s s", seconds(reset))
}

// limit returns the organization's own limit, else the server's.
func (g *Guard) limit(p engine.Principal, name string) (engine.RateLimit, bool) {
	for _, list := range [][]engine.RateLimit{p.Rates, g.limits} {
		for _, l := range list {
			if l.Name == name {
				return l, true
			}
		}
	}
	return engine.RateLimit{}, false
}

func refuseRate(w http.ResponseWriter, r *http.Request, reset time.Duration, err error) {
	w.Header().Set("Retry-After", seconds(reset))
	wire.WriteProblem(w, r, tooMany(err))
}

// tooMany makes the body of a 429.
func tooMany(err error) *wire.Problem {
	p := wire.NewProblem(err)
	p.StatusCode, p.Reason = http.StatusTooManyRequests, http.StatusText(http.StatusTooManyRequests)
	return p
}

func setRate(h http.Header, l engine.RateLimit, left int, reset time.Duration) {
	h.Set("X-RateLimit-Limit-"+l.Name, strconv.Itoa(l.Limit))
	h.Set("X-RateLimit-Remaining-"+l.Name, strconv.Itoa(max(left, 0)))
	h.Set("X-RateLimit-Reset-"+l.Name, seconds(reset))
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second) + 1) }

// recheck is how often a stream's key is looked at when nobody tells of a
// change, which may have come through another server.
const recheck = 5 * time.Second

// changer is what keys can do that tell of changes.
type changer interface{ Changed() <-chan struct{} }

// Lasting returns a context for a stream that ends when the key no longer is
// good, or belongs to somebody else. The caller calls cancel.
func (g *Guard) Lasting(ctx context.Context, p engine.Principal, secret string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx
		defer cancel()
		for {
			told := g.changes() // before the question, so that no change is missed
			now, err := g.keys.Authenticate(ctx, secret)
			if engine.KindOf(err) == engine.KindUnauthenticated || err == nil && less(now, p) || !wait(ctx, p, told) {
				return
			}
		}
	}()
	return ctx, cancel
}

// less tells whether a principal may no longer do what it could before.
func less(now, before engine.Principal) bool {
	if now.KeyID != before.KeyID || before.Admin && !now.Admin {
		return true
	}
	return slices.ContainsFunc(before.Permissions, func(s string) bool { return !slices.Contains(now.Permissions, s) })
}

// changes returns what tells of a change; nil when nothing does.
func (g *Guard) changes() <-chan struct{} {
	if c, ok := g.keys.(changer); ok {
		return c.Changed()
	}
	return nil
}

// wait waits until the key should be looked at again. It is false when ctx has
// ended.
func wait(ctx context.Context, p engine.Principal, told <-chan struct{}) bool {
	d := recheck
	if !p.ExpiresAt.IsZero() {
		d = max(min(d, time.Until(p.ExpiresAt)), time.Millisecond)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-told:
	}
	return true
}
