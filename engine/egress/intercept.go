package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

const (
	maxUpstreams = 32 // connections to the host, for one of the sandbox
	maxStreams   = 64
)

// sealedConn is a connection whose TLS the proxy ends, because a secret is for
// its host.
type sealedConn struct {
	*webConn
	hello   *bytes.Reader // what was read already
	host    string        // canonical; the only one that it is for
	seal    *seal         // that it began with; its secrets may be others by now
	forward *httputil.ReverseProxy
}

// Read implements net.Conn.
func (s *sealedConn) Read(b []byte) (int, error) {
	if s.hello.Len() > 0 {
		return s.hello.Read(b)
	}
	return s.conn.Read(b)
}

// openSealed serves what intercept hands over.
func (p *proxy) openSealed() {
	p.https = &http.Server{
		Handler:           http.HandlerFunc(p.serveSealed),
		ReadHeaderTimeout: helloTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		TLSConfig:         &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, //nolint:gosec // each connection has its own
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return withConn(ctx, c.(*tls.Conn).NetConn())
		},
	}
	p.wg.Go(func() { _ = p.https.Serve(p.opened) })
}

// intercept ends the TLS of a connection that the policy allows. It closes the
// connection.
func (p *proxy) intercept(c *conn, s *seal, name string, hello []byte) {
	host, err := policies.CanonicalName(name)
	if err == nil {
		err = p.permit(c, host)
	}
	if err != nil && !(host != "" && p.filter.byAddress(c.slot, c.to)) {
		p.log.Debug("TLS connection refused", "slot", c.slot, "err", err)
		p.refused(c, name, err)
		alert(c.Conn)
		p.forget(c)
		return
	}
	p.noteName(c, host)
	_ = c.SetReadDeadline(time.Time{})
	transport := p.toHost(c, host)
	closed := func() {
		p.forget(c)
		transport.CloseIdleConnections()
	}
	k := &sealedConn{webConn: &webConn{conn: c, closed: closed}, hello: bytes.NewReader(hello), host: host, seal: s, forward: sealedForwarder(transport, host)}
	t := tls.Server(k, s.ca.server(host))
	ctx, cancel := context.WithTimeout(p.ctx, helloTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		if p.ctx.Err() == nil {
			p.ofSecret(c, engine.SecretUntrusted, "", host, "deny", "the client broke off TLS with its sandbox's own authority: "+err.Error())
		}
		k.Close()
		return
	}
	p.opened.give(t)
}

// toHost connects to one host, and believes nobody else. Where the policy
// allows the address that the sandbox chose and not the name, that is where it
// looks for the host.
func (p *proxy) toHost(c *conn, host string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dial := func() (net.Conn, error) { return p.dial(ctx, c.slot, host, c.port) }
			if policy := p.filter.policyOf(c.slot); policy != nil && !allows(policy, host, c.port) {
				dial = func() (net.Conn, error) { return p.dialAddress(ctx, c) }
			}
			k, err := dial()
			p.led(c, host, k, "opened for its secrets", err)
			return k, err
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: p.roots},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxConnsPerHost:        maxUpstreams,
		IdleConnTimeout:        time.Minute,
		ResponseHeaderTimeout:  idleTimeout,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

type swapKey struct{}

// sealedForwarder sends requests on. Its errors are told without what was sent.
func sealedForwarder(transport http.RoundTripper, host string) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // it could name what holds a value
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", host, host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came, even where it is odd
		},
		ModifyResponse: func(r *http.Response) error {
			s, _ := r.Request.Context().Value(swapKey{}).(*swap)
			if s == nil {
				return errors.New("the request has no secrets to look for")
			}
			return s.response(r)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if s, _ := r.Context().Value(swapKey{}).(*swap); s != nil {
				http.Error(w, replace("The host cannot be reached: "+err.Error(), s.redacted), http.StatusBadGateway)
				return
			}
			http.Error(w, "The host cannot be reached", http.StatusBadGateway)
		},
	}
}

// serveSealed puts the secrets of this moment into one request.
func (p *proxy) serveSealed(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*sealedConn)
	if c == nil {
		http.Error(w, "No connection to serve for", http.StatusInternalServerError)
		return
	}
	name, err := requestHost(r, c.webConn)
	if err == nil {
		name, err = policies.CanonicalName(name)
	}
	if err != nil || name != c.host {
		p.refused(c.conn, r.Host, errors.New("the connection is for another host"))
		http.Error(w, "This connection is for "+c.host+" only", http.StatusMisdirectedRequest)
		return
	}
	if err := p.permit(c.conn, name); err != nil && !p.filter.byAddress(c.slot, c.to) {
		p.refused(c.conn, name, err)
		http.Error(w, "Refused: "+err.Error(), http.StatusForbidden)
		return
	}
	leave, err := enter(r.Context(), c.seal.requests)
	if err != nil {
		return // the sandbox has gone
	}
	defer leave()
	_, bindings, err := p.filter.bindings(r.Context(), c.slot, name)
	if err != nil {
		p.log.Warn("secrets of a sandbox cannot be read", "slot", c.slot, "err", err)
		p.unreadable(c.conn, name)
		http.Error(w, "The sandbox's secrets cannot be read now", http.StatusBadGateway)
		return
	}
	s := newSwap(bindings, c.seal.bodies)
	s.tell = func(operation, secret string) { p.swapped(c.conn, operation, secret, name) }
	defer s.close()
	if err := s.request(r); err != nil {
		http.Error(w, err.Error(), engineStatus(err))
		return
	}
	c.forward.ServeHTTP(noHints{w}, r.WithContext(context.WithValue(r.Context(), swapKey{}, s)))
}

func engineStatus(err error) int {
	if engine.KindOf(err) == engine.KindExhausted {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// noHints leaves informational responses out: nothing has looked through them.
type noHints struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (n noHints) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols {
		n.ResponseWriter.WriteHeader(code)
	}
}

// Unwrap is for http.ResponseController.
func (n noHints) Unwrap() http.ResponseWriter { return n.ResponseWriter }
