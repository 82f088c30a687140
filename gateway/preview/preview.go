// Package preview serves the ports of sandboxes to browsers and programs: under
// host names of their own, {port}-{sandbox}.{domain}, or below a path where
// such names are impossible. Everything that comes from a guest is taken for
// hostile to its visitor, to other guests and to this server, and no credential
// of this server reaches a guest.
package preview

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/proxy"
)

// Config is what previews need.
type Config struct {
	Links     engine.Previews
	Toolboxes engine.Toolboxes
	Guard     *auth.Guard
	Proxy     *proxy.Proxy // to toolboxes
	Domain    Domain       // empty: no previews by host name
	Secure    bool         // clients speak TLS
	Paths     bool         // hand out URLs of paths, and serve them
	Now       func() time.Time
	Log       *slog.Logger
}

// Previews serves previews. Close ends it.
type Previews struct {
	links  engine.Previews
	guard  *auth.Guard
	proxy  *proxy.Proxy
	domain Domain
	secure bool
	paths  bool
	now    func() time.Time
	log    *slog.Logger
	guests *guests
	live   *live
}

// New returns Previews.
func New(c Config) *Previews {
	return &Previews{
		links: c.Links, guard: c.Guard, proxy: c.Proxy, domain: c.Domain, secure: c.Secure,
		paths: c.Paths || c.Domain == "", now: c.Now, log: c.Log, guests: newGuests(c.Toolboxes), live: newLive(),
	}
}

// Close cuts what was upgraded and waits for all requests, or until ctx ends.
func (p *Previews) Close(ctx context.Context) error { return p.guests.close(ctx) }

// URL is where a port is seen. label is a sandbox's id or a link's token, base
// the server's own URL for this caller.
func (p *Previews) URL(base string, port int, label string) string {
	t := target{port, label}
	switch {
	case p.paths:
		return base + pathPrefix + strings.Replace(t.String(), "-", "/", 1) + "/"
	case p.secure:
		return "https://" + p.domain.host(t)
	}
	return "http://" + p.domain.host(t)
}

// Template is the pattern of preview URLs, for clients that make their own.
func (p *Previews) Template(base string) string {
	switch {
	case p.paths:
		return base + pathPrefix + "{{PORT}}/{{sandboxId}}/"
	case p.secure:
		return "https://{{PORT}}-{{sandboxId}}." + string(p.domain)
	}
	return "http://{{PORT}}-{{sandboxId}}." + string(p.domain)
}

// Below tells whether a host name belongs to previews.
func (p *Previews) Below(host string) bool { return p.domain.Below(host) }

// Cut ends the requests and connections that a token let in.
func (p *Previews) Cut(token string) { p.live.cut(token) }

// CutPublic ends those that are open because a sandbox was public.
func (p *Previews) CutPublic(sandbox string) { p.live.cut(publicToken(sandbox)) }

// routeName stands for previews in the metrics and the log.
const routeName = "/preview"

// Hosts serves the requests whose host is a preview's, whatever their path, and
// passes on all others. So the API is never at a preview's origin.
func (p *Previews) Hosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.domain.Below(r.Host) {
			next.ServeHTTP(w, r)
			return
		}
		if rc := chi.RouteContext(r.Context()); rc != nil {
			rc.RoutePatterns = append(rc.RoutePatterns, routeName)
		}
		t, ok := p.domain.parse(r.Host)
		if !ok {
			p.fail(w, r, 0, engine.Errorf(engine.KindNotFound, "%q names no preview", r.Host).
				WithHint("the form is {port}-{sandbox id}.%s", p.domain))
			return
		}
		p.serve(w, r, place{target: t, host: true, path: r.URL.EscapedPath()})
	})
}

// pathPrefix begins the paths of previews.
const pathPrefix = "/preview/"

// Paths serves /preview/{port}/{label}/…, if that form is on.
func (p *Previews) Paths() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, ok := parsePath(r.URL.EscapedPath())
		switch {
		case !p.paths || !ok:
			p.fail(w, r, 0, engine.Errorf(engine.KindNotFound, "Cannot %s %s", r.Method, routeName).
				WithHint("the form is /preview/{port}/{sandbox id}/, where it is on"))
		case at.path == "": // so that relative links stay inside
			u := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
			http.Redirect(w, r, u.String(), http.StatusPermanentRedirect)
		default:
			p.serve(w, r, at)
		}
	})
}

// place is where a request goes.
type place struct {
	target
	host bool   // by host name, with an origin of its own
	path string // as the guest sees it, escaped; begins with a slash

	noCORS bool // the page wants the guest's own rules alone
}

// prefix is what the guest's root is called outside.
func (at place) prefix() string {
	if at.host {
		return ""
	}
	return pathPrefix + strings.Replace(at.String(), "-", "/", 1)
}

// parsePath takes the escaped path of a preview apart. Parts that climb are
// refused: they would leave the prefix for whoever reads the path later.
func parsePath(escaped string) (place, bool) {
	rest, ok := strings.CutPrefix(escaped, pathPrefix)
	number, rest, found := strings.Cut(rest, "/")
	label, path, deeper := strings.Cut(rest, "/")
	t, good := newTarget(number, label)
	if !ok || !found || !good || climbs(path) {
		return place{}, false
	}
	at := place{target: t}
	if deeper {
		at.path = "/" + path
	}
	return at, true
}

func climbs(escaped string) bool {
	flat := strings.NewReplacer("%2e", ".", "%2E", ".", "%2f", "/", "%2F", "/", "%5c", "/", "%5C", "/", `\`, "/").Replace(escaped)
	for part := range strings.SplitSeq(flat, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// Headers of the contract that steer us.
const (
	skipActivity = "X-Daytona-Skip-Last-Activity-Update"
	disableCORS  = "X-Daytona-Disable-Cors"
	skipWarning  = "X-Daytona-Skip-Preview-Warning" // there is no warning to skip
)

func (p *Previews) serve(w http.ResponseWriter, r *http.Request, at place) {
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace || !strings.HasPrefix(at.path, "/") {
		p.fail(w, r, at.port, engine.Errorf(engine.KindInvalid, "%s %s is not for previews", r.Method, r.URL.Path))
		return
	}
	v, err := p.enter(r, at.target, at.host)
	if at.host {
		if preflight := p.cors(w, r, at, v); preflight {
			return
		}
	}
	if err != nil {
		if at.host {
			allow(w.Header(), r.Header.Get("Origin"), false)
		}
		p.refuse(w, r, at.target, err)
		return
	}
	if at.host && v.way == wayQuery && p.remember(w, r, v) {
		return
	}
	ctx, done := p.lasting(r, v)
	defer done()
	if v.token != "" && r.Header.Get("Upgrade") != "" {
		// What lasts must not slip in beside a revocation: it was either seen
		// by now, or will end us.
		if _, err := p.enter(r, at.target, at.host); err != nil {
			p.fail(w, r, at.port, err)
			return
		}
	}
	ctx = engine.WithCaller(ctx, engine.Caller{Door: "preview", Principal: engine.CallerOf(ctx).Principal})
	quiet := r.Header.Get(skipActivity) == "true"
	at.noCORS = r.Header.Get(disableCORS) == "true"
	strip(r, v)
	if quiet {
		ctx = engine.WithoutActivity(ctx)
	} else {
		defer p.links.Hold(v.access.Sandbox.ID)()
	}
	p.dispatch(w, r.WithContext(ctx), at, v)
}

// remember sets the cookie for a token that came in the URL. A page that a
// browser goes to is asked for again without it, so that the token stays out of
// what the page's scripts and other sites get to see. It tells whether that
// was the answer.
func (p *Previews) remember(w http.ResponseWriter, r *http.Request, v *visit) bool {
	if r.Header.Get("Upgrade") != "" {
		return false // programs keep the token
	}
	http.SetCookie(w, p.cookieFor(v))
	if !safe(r.Method) || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
		return false
	}
	w.Header().Set("Cache-Control", "no-store")
	u := *r.URL
	u.Scheme, u.Host, u.RawQuery = "", "", withoutToken(u.RawQuery)
	w.Header().Set("Location", relative(u.RequestURI()))
	w.WriteHeader(http.StatusFound)
	return true
}

// relative keeps a path from naming another host, as //evil.example would.
func relative(uri string) string { return "/" + strings.TrimLeft(uri, `/\`) }

func (p *Previews) dispatch(w http.ResponseWriter, r *http.Request, at place, v *visit) {
	switch at.port {
	case engine.PortTerminal:
		p.terminal(w, r, at, v)
	case engine.PortRecordings:
		p.recordings(w, r, at, v)
	case engine.PortToolbox:
		if at.host {
			allow(w.Header(), r.Header.Get("Origin"), at.noCORS)
		}
		p.toolbox(w, r, at.path, v)
	default:
		p.guest(w, r, at, v)
	}
}

// toolbox hands the request to the sandbox's toolbox.
func (p *Previews) toolbox(w http.ResponseWriter, r *http.Request, path string, v *visit) {
	sb := v.access.Sandbox
	who := engine.Principal{OrganizationID: sb.OrganizationID}
	p.proxy.Forward(w, r.WithContext(auth.With(r.Context(), who)), sb.ID, path)
}
