package egress

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
)

// webConn is a connection that the HTTP server owns.
type webConn struct {
	*conn
	once   sync.Once
	closed func()
	read   atomic.Bool // something came
	judged atomic.Bool // a request was understood, and its host judged
}

// Read implements net.Conn.
func (w *webConn) Read(b []byte) (int, error) {
	n, err := w.conn.Read(b)
	if n > 0 {
		w.read.Store(true)
	}
	return n, err
}

// giveWeb hands a connection to the HTTP server, which by itself refuses what it
// does not understand.
func (p *proxy) giveWeb(c *conn) {
	w := &webConn{conn: c}
	w.closed = func() {
		if w.read.Load() && !w.judged.Load() {
			p.refused(c, "", errors.New("it was no request to one host"))
		}
		p.forget(c)
	}
	p.web.give(w)
}

func (w *webConn) Close() error {
	w.once.Do(w.closed)
	return nil
}

// handoff is a listener of connections that were accepted elsewhere.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff() *handoff { return &handoff{conns: make(chan net.Conn), done: make(chan struct{})} }

func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *webConn {
	c, _ := ctx.Value(connKey{}).(*webConn)
	return c
}

// way is where one request goes on.
type way struct {
	up   *upstream // the proxy that is asked for the host; nil: the host itself, or a tunnel to it
	host string    // empty: to the address that the sandbox chose
}

type wayKey struct{}

func wayOf(ctx context.Context) way {
	w, _ := ctx.Value(wayKey{}).(way)
	return w
}

// forwarder judges every request by its host and forwards it there. The HTTP
// server has refused requests with two hosts, none, or a broken one.
func (p *proxy) forwarder() http.Handler {
	transport := &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if w := wayOf(r.Context()); w.up != nil {
				return w.up.clear(), nil
			}
			return nil, nil
		},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, w := connOf(ctx), wayOf(ctx)
			switch {
			case c == nil:
				return nil, errors.New("no connection to forward for")
			case w.host == "":
				k, err := p.dialAddress(ctx, c.conn)
				p.led(c.conn, "", k, "", err)
				return k, err
			case w.up != nil:
				k, err := p.dialUpstream(ctx, w.up)
				p.led(c.conn, w.host, k, "", err)
				return k, err
			}
			k, err := p.dial(ctx, c.slot, w.host, c.port)
			p.led(c.conn, w.host, k, "", err)
			return k, err
		},
		DisableKeepAlives:     true, // one upstream connection belongs to one sandbox and request
		DisableCompression:    true,
		ResponseHeaderTimeout: idleTimeout,
	}
	forward := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", r.In.Host, r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came, even where it is odd
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if wayOf(r.Context()).up != nil { // what is known of it is not the sandbox's business
				p.log.Debug("outbound proxy failed", "err", err)
				err = errors.New("the outbound proxy does not answer")
			}
			http.Error(w, "The host cannot be reached: "+err.Error(), http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		c.judged.Store(true)
		name, err := requestHost(r, c)
		if err == nil {
			err = p.permit(c.conn, name)
		}
		to := way{host: name}
		switch {
		case err == nil:
			r.Host = name
			to.up, err = p.byUpstream(r.Context(), c.slot, name)
		case r.Method != http.MethodConnect && p.filter.byAddress(c.slot, c.to):
			to, err = way{}, nil
		}
		if err != nil {
			p.log.Debug("HTTP request refused", "slot", c.slot, "host", r.Host, "err", err)
			p.refused(c.conn, r.Host, err)
			w.Header().Set("Connection", "close")
			http.Error(w, "Refused: "+err.Error(), http.StatusForbidden)
			return
		}
		forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), wayKey{}, to)))
	})
}

// byUpstream returns the proxy that is asked for a host in the clear; nil: the
// host is asked itself. It fails where no sandbox may reach the host.
func (p *proxy) byUpstream(ctx context.Context, slot int, name string) (*upstream, error) {
	up := p.filter.upstreamOf(slot)
	if up == nil {
		return nil, nil
	}
	if policy := p.filter.policyOf(slot); policy != nil {
		if _, err := p.filter.resolve(ctx, policy, name); errors.Is(err, errOutOfBounds) {
			return nil, err
		}
	}
	return up, nil
}

// requestHost returns the one host that a request is for. A port that is not
// the connection's, a name in the request line that is not the host's, and
// CONNECT would all be ways to mean another one.
func requestHost(r *http.Request, c *webConn) (string, error) {
	if r.Method == http.MethodConnect {
		return "", errors.New("CONNECT is not served here")
	}
	if r.URL.IsAbs() && r.URL.Host != r.Host {
		return "", errors.New("the request line names another host than the Host header")
	}
	host := r.Host
	if name, port, err := net.SplitHostPort(host); err == nil {
		if port != strconv.Itoa(int(c.port)) {
			return "", errors.New("the Host header names another port")
		}
		host = name
	}
	return host, nil
}
