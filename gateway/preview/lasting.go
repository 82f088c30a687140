package preview

import (
	"context"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// recheck is how often what lasts is looked at again, because another server or
// a tool may have taken away what let it in. A change through this server's API
// ends it at once.
const recheck = 5 * time.Second

// lasting returns the context of a visit. It ends when what let the visit in
// does: the key is revoked, expires or may do less, the link or token is revoked
// or has expired, or the sandbox is made private.
func (p *Previews) lasting(r *http.Request, v *visit) (context.Context, context.CancelFunc) {
	ctx, done := p.live.add(r.Context(), v.token)
	ends := []context.CancelFunc{done}
	if v.way == wayKey {
		c, cancel := p.guard.LastingRequest(ctx, r, v.key)
		ctx, ends = c, append(ends, cancel)
	}
	if !v.expires.IsZero() {
		c, cancel := context.WithDeadline(ctx, v.expires)
		ctx, ends = c, append(ends, cancel)
	}
	if v.token != "" {
		c, cancel := context.WithCancel(ctx)
		p.watch(c, v, cancel)
		ctx, ends = c, append(ends, cancel)
	}
	return ctx, func() {
		for _, end := range ends {
			end()
		}
	}
}

// watch calls end once the visit no longer is good, and goes on until ctx ends.
// Most visits are over before the first look.
func (p *Previews) watch(ctx context.Context, v *visit, end func()) {
	timer := time.AfterFunc(recheck, func() {
		if !p.still(ctx, v) {
			end()
			return
		}
		p.watch(ctx, v, end)
	})
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// still tells whether what let a visit in is still good. It is when nobody can
// tell.
func (p *Previews) still(ctx context.Context, v *visit) bool {
	access, err := p.links.AccessByID(ctx, v.access.Sandbox.ID)
	switch {
	case err != nil:
		return engine.KindOf(err) != engine.KindNotFound
	case v.way == wayPublic:
		return access.Sandbox.Public
	case v.expires.IsZero():
		return same(access.Token, v.token)
	}
	_, err = p.links.Link(ctx, v.token)
	return engine.KindOf(err) != engine.KindNotFound
}

// refuse answers a request that was not let in. One that came with a secret
// which opens nothing counts as a failed authentication of its address.
func (p *Previews) refuse(w http.ResponseWriter, r *http.Request, t target, err error) {
	tried := t.isLink() || r.Header.Get(tokenHeader) != "" || queryToken(r.URL.RawQuery) != "" ||
		looksLikeKey(r.Header.Get("Authorization")) || r.URL.Query().Has("signature")
	if tried && engine.KindOf(err) == engine.KindUnauthenticated {
		if many := p.guard.CountFailure(w.Header(), r); many != nil {
			err = many
		}
	}
	p.fail(w, r, t.port, err)
}
