package preview

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
)

// cors answers preflights, and tells whether the request was one. They carry no
// credentials, so they cannot be let in as others. Any origin may ask with a
// token that its page knows; only pages of the same sandbox may with cookies,
// if the guest agrees.
func (p *Previews) cors(w http.ResponseWriter, r *http.Request, at place, v *visit) bool {
	origin := r.Header.Get("Origin")
	if r.Method != http.MethodOptions || origin == "" || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	asked := r.Header.Get("Access-Control-Request-Headers")
	if v.way == wayPublic && strings.Contains(strings.ToLower(asked), strings.ToLower(disableCORS)) {
		return false // the guest's own business
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	if p.sameSandbox(origin, at.target) {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	auth.Preflight(h, r)
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (p *Previews) sameSandbox(origin string, t target) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	from, ok := p.domain.parse(u.Host)
	return ok && from.label == t.label && !engine.ReservedPort(from.port) && !engine.ReservedPort(t.port)
}

// allow lets the page that asked read a guest's answer, unless the guest has
// rules of its own or the page wants none of ours.
func allow(h http.Header, origin string, off bool) {
	if origin == "" || off || h.Get("Access-Control-Allow-Origin") != "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", "*")
}
