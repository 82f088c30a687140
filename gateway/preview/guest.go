package preview

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/proxy"
)

// Limits towards guests.
const (
	maxGuestHeader = 256 << 10
	maxGuestIdle   = 16 // connections kept for later, to one port
	guestIdle      = 30 * time.Second
)

// guests holds the connections to services in sandboxes.
type guests struct {
	transport *http.Transport
	closing   context.Context
	stop      context.CancelFunc
	open      sync.WaitGroup
}

type guestKey struct{}

// newGuests makes a transport whose addresses are a sandbox's id and a port. A
// connection that waits for its next request is no activity.
func newGuests(t engine.Toolboxes) *guests {
	g := &guests{}
	g.closing, g.stop = context.WithCancel(context.Background())
	g.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ref, _ := ctx.Value(guestKey{}).(engine.SandboxRef)
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(port)
			if err != nil {
				return nil, err
			}
			return t.DialPort(engine.WithoutActivity(ctx), ref, n)
		},
		DisableCompression: true, MaxIdleConnsPerHost: maxGuestIdle, IdleConnTimeout: guestIdle,
		MaxResponseHeaderBytes: maxGuestHeader, ExpectContinueTimeout: time.Second,
		ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10,
	}
	return g
}

func (g *guests) close(ctx context.Context) error {
	g.stop()
	done := make(chan struct{})
	go func() { g.open.Wait(); close(done) }()
	defer g.transport.CloseIdleConnections()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guest forwards to a service in the sandbox.
func (p *Previews) guest(w http.ResponseWriter, r *http.Request, at place, v *visit) {
	p.guests.open.Add(1)
	defer p.guests.open.Done()
	sb := v.access.Sandbox
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), guestKey{}, engine.SandboxRef{
		OrganizationID: sb.OrganizationID, IDOrName: sb.ID,
	}))
	defer cancel()
	if httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		defer context.AfterFunc(p.guests.closing, cancel)() // the HTTP server does not know of it
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // answers may begin before the body ends
	origin, noCORS := r.Header.Get("Origin"), at.noCORS
	body := proxy.Watch(r)
	rp := httputil.ReverseProxy{
		Rewrite:       func(pr *httputil.ProxyRequest) { p.rewrite(pr, at, sb.ID) },
		Transport:     p.guests.transport,
		FlushInterval: -1,
		BufferPool:    proxy.Buffers,
		ModifyResponse: func(res *http.Response) error {
			distrust(res.Header, at)
			if v.way == wayLink { // its token is in the host name or path
				res.Header.Set("Referrer-Policy", "same-origin")
			}
			if at.host {
				allow(res.Header, origin, noCORS)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if broken := body.Failure(); broken != nil && r.Context().Err() == nil {
				err = broken
			}
			p.fail(w, r, at.port, p.guestError(r, err, at.port))
		},
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	rp.ServeHTTP(proxy.Final(w), r.WithContext(ctx))
}

func (p *Previews) rewrite(pr *httputil.ProxyRequest, at place, sandbox string) {
	in, out := pr.In, pr.Out
	path, err := url.PathUnescape(at.path)
	if err != nil {
		path = at.path
	}
	out.URL = &url.URL{
		Scheme: "http", Host: net.JoinHostPort(sandbox, strconv.Itoa(at.port)),
		Path: path, RawPath: at.path, RawQuery: in.URL.RawQuery, ForceQuery: in.URL.ForceQuery,
	}
	scheme := "http"
	if p.secure {
		scheme = "https"
	}
	out.Header.Set("X-Forwarded-For", remote(in))
	out.Header.Set("X-Forwarded-Host", in.Host)
	out.Header.Set("X-Forwarded-Proto", scheme)
	if at.host {
		out.Host = in.Host
	} else {
		out.Host = "localhost:" + strconv.Itoa(at.port)
		out.Header.Set("X-Forwarded-Prefix", at.prefix())
		out.Header.Del("Cookie")
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // do not invent one
	}
}

// distrust takes from an answer what reaches beyond the guest's own origin.
// Below a path there is no own origin: the page is put into a sandbox of the
// browser, as a stranger to this server.
func distrust(h http.Header, at place) {
	for _, name := range []string{"Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "Public-Key-Pins", "Origin-Agent-Cluster"} {
		h.Del(name)
	}
	if at.host {
		hostOnly(h)
		return
	}
	for _, name := range []string{"Set-Cookie", "Service-Worker-Allowed", "Www-Authenticate", "Nel", "Report-To", "Reporting-Endpoints", "Refresh"} {
		h.Del(name)
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Content-Security-Policy", "sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads")
	if l := h.Get("Location"); strings.HasPrefix(l, "/") && !strings.HasPrefix(l, "//") {
		h.Set("Location", at.prefix()+l)
	}
}

func (p *Previews) guestError(r *http.Request, err error, port int) error {
	var known *engine.Error
	switch {
	case r.Context().Err() != nil:
		return engine.AsError(r.Context().Err())
	case errors.As(err, &known) && known.Kind == engine.KindUnavailable:
		return engine.Errorf(engine.KindUnavailable, "Nothing listens on port %d of this sandbox", port).
			WithHint("start a service there, listening on localhost or on 0.0.0.0, and reload").Wrap(err)
	case errors.As(err, &known):
		return known
	}
	p.log.DebugContext(r.Context(), "a guest broke off", "port", port, "error", err)
	return engine.Errorf(engine.KindUnavailable, "What listens on port %d broke off or does not speak HTTP", port).
		WithHint("look at the service's own output in the sandbox").Wrap(err)
}
