package auth

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Browsers guards against pages in a browser on this machine that reach the
// server under a name of their own (DNS rebinding).
type Browsers struct {
	hosts   []string
	foreign func(host string) bool // nil: none
}

// NewBrowsers returns a guard for a server that is known by the given host
// names, beside addresses and localhost. Names may carry a port.
func NewBrowsers(hosts ...string) *Browsers {
	b := &Browsers{}
	for _, h := range hosts {
		if h = hostname(h); h != "" {
			b.hosts = append(b.hosts, h)
		}
	}
	return b
}

// Without makes names strangers that would be ours otherwise: those of pages
// that are not by us. It returns b.
func (b *Browsers) Without(foreign func(host string) bool) *Browsers {
	b.foreign = foreign
	return b
}

// CheckHost refuses requests of browsers under a host name that is not ours.
// Programs send what they like; they hold a key or get nowhere.
func (b *Browsers) CheckHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromBrowser(r) && !b.ours(r.Host) {
			wire.WriteError(w, r, engine.Errorf(engine.KindDenied, "this server is not known as %q", r.Host).
				WithHint("start it with --public-url if browsers shall reach it under that name"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// CheckOrigin refuses requests that a page of another site makes. It is for
// routes that no foreign page ever needs.
func (b *Browsers) CheckOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o := r.Header.Get("Origin"); o != "" && !b.originOurs(o) {
			wire.WriteError(w, r, engine.Errorf(engine.KindDenied, "pages of %q may not use this", o))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (b *Browsers) originOurs(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && b.ours(u.Host) && !foreignAddress(u.Hostname())
}

// foreignAddress tells whether an origin names an address that is not of this
// machine. As a Host header any address is fine, as an origin it is a stranger.
func foreignAddress(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && !ip.IsLoopback()
}

func (b *Browsers) ours(hostport string) bool {
	if b.foreign != nil && b.foreign(hostport) {
		return false
	}
	h := hostname(hostport)
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	return h == "localhost" || strings.HasSuffix(h, ".localhost") || slices.Contains(b.hosts, h)
}

func hostname(hostport string) string {
	h := hostport
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		h = host
	}
	return strings.ToLower(strings.Trim(h, "[]"))
}

// fromBrowser does not look at Sec-Fetch-Mode, which programs on Node send too.
func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
}

// CORS answers browsers as the contract wants it: any origin may call, because
// the key travels in a header that only the page's own code can set. No
// cookies or other ambient credentials are ever accepted.
func CORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origin)
		h.Add("Vary", "Origin")
		h.Set("Access-Control-Expose-Headers", "*")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			Preflight(h, r)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Preflight grants what a browser asks for ahead of a request.
func Preflight(h http.Header, r *http.Request) {
	h.Set("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS")
	h.Set("Access-Control-Max-Age", "600")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
}
