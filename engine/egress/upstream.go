package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// upstream is the proxy that a sandbox's web connections go through. Its
// credentials are known here only; the sandbox never sees them.
type upstream struct {
	url  *url.URL // http or https
	host string
	port uint16
}

// upstreamOf reads an outbound proxy's URL; nil for none.
func upstreamOf(text string) (*upstream, error) {
	if text == "" {
		return nil, nil
	}
	bad := func(why string) error {
		return engine.Errorf(engine.KindInvalid, "the outbound proxy URL %s", why).WithHint("use a form like http://user:password@proxy.example.com:3128")
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, bad("is no URL") // without err, which could hold a password
	}
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, bad("is neither http nor https")
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort("::", port))
	if err != nil || at.Port() == 0 {
		return nil, bad("has no proper port")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		if _, err := policies.CanonicalName(u.Hostname()); err != nil {
			return nil, bad("names no host")
		}
	}
	return &upstream{url: u, host: u.Hostname(), port: at.Port()}, nil
}

// address is what an HTTP transport dials for the proxy.
func (u *upstream) address() string { return net.JoinHostPort(u.host, fmt.Sprint(u.port)) }

func (u *upstream) same(v *upstream) bool {
	return u == v || u != nil && v != nil && u.url.String() == v.url.String()
}

// authorization is the value of Proxy-Authorization; empty without credentials.
func (u *upstream) authorization() string {
	if u.url.User == nil {
		return ""
	}
	password, _ := u.url.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.url.User.Username()+":"+password))
}

// refusesUpstream tells whether no sandbox may have its proxy at an address: a
// private one that the operator did not allow.
func (f *Filter) refusesUpstream(a netip.Addr) bool {
	a = a.Unmap()
	if slices.ContainsFunc(f.upstreams, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return false
	}
	_, blocked := policies.BlockedAddress(a)
	return blocked || f.host.Denied(a)
}

// upstreamOf returns the proxy of a slot's web connections; nil: there is none.
func (f *Filter) upstreamOf(slot int) *upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	if st := f.slots[slot]; st != nil {
		return st.upstream
	}
	return nil
}

// clear is the URL for an HTTP transport whose dialer has done the proxy's TLS.
func (u *upstream) clear() *url.URL {
	c := *u.url
	c.Scheme, c.Host = "http", u.address()
	return &c
}

// dialUpstream connects to the proxy itself, with TLS where its URL says so.
func (p *proxy) dialUpstream(ctx context.Context, u *upstream) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(u.host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = p.filter.lookup(ctx, u.host); err != nil {
		return nil, fmt.Errorf("the outbound proxy: %w", err)
	}
	addrs = slices.DeleteFunc(addrs, p.filter.refusesUpstream)
	if len(addrs) == 0 {
		return nil, errors.New("the outbound proxy is at an address that no sandbox may use")
	}
	c, err := dialAny(ctx, addrs, u.port)
	if err != nil {
		return nil, fmt.Errorf("the outbound proxy: %w", err)
	}
	if u.url.Scheme == "https" {
		c = tls.Client(c, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.host, RootCAs: p.roots})
	}
	return c, nil
}

// tunnel asks the proxy for a connection to target, which is host:port.
func (p *proxy) tunnel(ctx context.Context, u *upstream, target string) (net.Conn, error) {
	c, err := p.dialUpstream(ctx, u)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(deadline(ctx))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t, err := requestTunnel(c, u, target)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return t, nil
}

// maxAnswer bounds what a proxy says before the connection is the target's.
const maxAnswer = 16 << 10

func requestTunnel(c net.Conn, u *upstream, target string) (net.Conn, error) {
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{}}
	r.Header.Set("User-Agent", "") // none
	if a := u.authorization(); a != "" {
		r.Header.Set("Proxy-Authorization", a)
	}
	if err := r.Write(c); err != nil {
		return nil, fmt.Errorf("ask the outbound proxy: %w", err)
	}
	head := &limited{Conn: c, left: maxAnswer}
	b := bufio.NewReader(head)
	answer, err := http.ReadResponse(b, r)
	if err != nil {
		return nil, fmt.Errorf("the outbound proxy's answer: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the outbound proxy answers %s", answer.Status)
	}
	head.left = -1
	if b.Buffered() == 0 {
		return c, nil
	}
	return &ahead{Conn: c, read: b}, nil
}

// limited is a connection of which only so much may be read.
type limited struct {
	net.Conn
	left int // negative: no limit any more
}

// Read implements net.Conn.
func (l *limited) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, errors.New("it is too long")
	}
	if l.left > 0 {
		b = b[:min(len(b), l.left)]
	}
	n, err := l.Conn.Read(b)
	if l.left > 0 {
		l.left -= n
	}
	return n, err
}

// ahead is a connection of which some was read already.
type ahead struct {
	net.Conn
	read *bufio.Reader
}

// Read implements net.Conn.
func (a *ahead) Read(b []byte) (int, error) { return a.read.Read(b) }

// CloseWrite passes the end on where the connection can.
func (a *ahead) CloseWrite() error {
	if w, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
