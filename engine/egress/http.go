package egress

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
)

// webConn is a connection that the HTTP server owns.
type webConn struct {
	*conn
	once   sync.Once
	closed func()
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

// forwarder judges every request by its host and forwards it there. The HTTP
// server has refused requests with two hosts, none, or a broken one.
func (p *proxy) forwarder() http.Handler {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			c := connOf(ctx)
			host, _, err := net.SplitHostPort(address)
			if err != nil || c == nil {
				return nil, errors.New("no connection to forward for")
			}
			return p.dial(ctx, c.slot, host, c.port)
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
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "The host cannot be reached: "+err.Error(), http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		name, err := requestHost(r, c)
		if err == nil {
			err = p.permit(c.conn, name)
		}
		if err != nil {
			p.log.Debug("HTTP request refused", "slot", c.slot, "host", r.Host, "err", err)
			p.refused(c.conn, r.Host, err)
			w.Header().Set("Connection", "close")
			http.Error(w, "Refused: "+err.Error(), http.StatusForbidden)
			return
		}
		r.Host = name
		forward.ServeHTTP(w, r)
	})
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
