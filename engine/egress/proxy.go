package egress

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Bounds of the proxy.
const (
	helloTimeout  = 10 * time.Second
	dialTimeout   = 10 * time.Second
	idleTimeout   = 15 * time.Minute
	maxConns      = 4096
	maxConnsSlot  = 256
	maxHelloBytes = 64 << 10
)

// proxy ends the web connections of sandboxes whose policy is about names. It
// reads the name from the TLS hello or from each HTTP request, asks the policy,
// resolves the name itself and connects to what it resolved to; the address
// that the sandbox had chosen does not matter.
type proxy struct {
	filter *Filter
	log    *slog.Logger
	http   *http.Server
	web    *handoff // connections for http
	https  *http.Server
	opened *handoff       // connections for https, which the proxy ends itself
	roots  *x509.CertPool // that hosts of secrets must answer to; nil: the system's

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener
	conns     map[*conn]bool
	perSlot   map[int]int
	closed    bool
}

// conn is one connection of a sandbox.
type conn struct {
	net.Conn
	slot int
	to   netip.AddrPort // that the sandbox connected to
	port uint16         // of to: 80 or 443

	mu     sync.Mutex
	name   string   // that the policy was asked for; empty before
	up     net.Conn // to the name's host; nil before, and for HTTP
	passed bool     // it may go on to the address, so that is judged
}

// local is the sandbox's end, as address:port.
func (c *conn) local() string {
	a := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// end closes both sides.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Conn.Close()
	if c.up != nil {
		c.up.Close()
	}
}

// join makes end close up, too.
func (c *conn) join(up net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = up
}

func newProxy(f *Filter) *proxy {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proxy{filter: f, log: f.log, conns: map[*conn]bool{}, perSlot: map[int]int{}, ctx: ctx, cancel: cancel, web: newHandoff(), opened: newHandoff()}
	p.http = &http.Server{
		Handler:           p.forwarder(),
		ReadHeaderTimeout: helloTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return withConn(ctx, c) },
	}
	p.wg.Go(func() { _ = p.http.Serve(p.web) })
	p.openSealed()
	return p
}

// listen binds one port on all gateway addresses.
func (p *proxy) listen(ctx context.Context, gateways []netip.Addr) (uint16, error) {
	var lc net.ListenConfig
	var port uint16
	for _, a := range gateways {
		l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err != nil {
			return 0, err
		}
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		p.mu.Lock()
		p.listeners = append(p.listeners, l)
		p.mu.Unlock()
		p.wg.Go(func() { p.accept(l) })
	}
	return port, nil
}

// close ends everything and waits.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.listeners {
		l.Close()
	}
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.cancel()
	p.http.Close()
	p.web.Close()
	p.https.Close()
	p.opened.Close()
	p.wg.Wait()
}

func (p *proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, most likely
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if k := p.admit(c); k != nil {
			p.wg.Go(func() { p.serve(k) })
		}
	}
}

// admit finds whose connection it is and whether it may have one more.
func (p *proxy) admit(c net.Conn) *conn {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	to, err := originalDestination(c.(*net.TCPConn))
	slot, ok := p.filter.host.SlotOf(from)
	if err != nil || !ok {
		reset(c)
		return nil
	}
	k := &conn{Conn: c, slot: slot, to: netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), port: to.Port()}
	if k.port == 80 && p.filter.sealed(slot) {
		k.Conn = &looked{Conn: c, found: func(placeholder string) { p.exposed(k, placeholder) }}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= maxConns || p.perSlot[slot] >= maxConnsSlot {
		reset(c)
		return nil
	}
	p.conns[k] = true
	p.perSlot[slot]++
	return k
}

// forget closes a connection and gives its place to others.
func (p *proxy) forget(c *conn) {
	c.Conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[c] {
		delete(p.conns, c)
		if p.perSlot[c.slot]--; p.perSlot[c.slot] == 0 {
			delete(p.perSlot, c.slot)
		}
	}
}

// reset ends a connection so that the client fails at once.
func reset(c net.Conn) {
	if in, ok := c.(*looked); ok {
		c = in.Conn
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

// recheck ends the connections of a slot whose names a new policy does not
// allow, and returns what there is to tell of them. HTTP connections are judged
// request by request; idle ones may stay.
func (p *proxy) recheck(slot int, policy *policies.Policy) (cut []engine.ActivityRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.slot != slot {
			continue
		}
		c.mu.Lock()
		name, passed := c.name, c.passed
		c.mu.Unlock()
		if passed && opens(policy, c.to) {
			continue
		}
		d := policies.Decide(policy, policies.ConnectRequest{Host: name, Protocol: policies.TCP, Port: c.port})
		if name == "" {
			d = policies.Decide(policy, policies.ConnectRequest{Address: c.to.Addr(), Protocol: policies.TCP, Port: c.port})
		} else if d.Allow {
			continue
		}
		c.end()
		cut = append(cut, engine.ActivityRecord{
			Kind: engine.ActivityCut, Protocol: "tcp", Host: name, Local: c.local(), Remote: c.to.String(), Rule: d.Rule, Reason: cmp.Or(d.Reason, "the policy changed"),
		})
	}
	return cut
}

// drop ends all connections of a slot.
func (p *proxy) drop(slot int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.slot == slot {
			c.end()
		}
	}
}

func allows(p *policies.Policy, name string, port uint16) bool {
	return policies.Decide(p, policies.ConnectRequest{Host: name, Protocol: policies.TCP, Port: port}).Allow
}

// opens tells whether a policy allows a web connection to an address, whatever
// the name: by a rule about the address, or because it is about no names and
// allows all. The kernel leads such connections to the proxy only for the sake
// of secrets or an outbound proxy.
func opens(p *policies.Policy, to netip.AddrPort) bool {
	strict := *p
	if aboutNames(p) {
		strict.Egress.Default = policies.Deny
	}
	return policies.Decide(&strict, policies.ConnectRequest{Address: to.Addr(), Protocol: policies.TCP, Port: to.Port()}).Allow
}

// byName tells whether a slot's policy is about names.
func (f *Filter) byName(slot int) bool {
	p := f.policyOf(slot)
	return p != nil && aboutNames(p)
}

// byAddress tells whether a slot may connect to an address, whatever the name.
func (f *Filter) byAddress(slot int, to netip.AddrPort) bool {
	p := f.policyOf(slot)
	return p != nil && opens(p, to) && !f.refuses(p, to.Addr())
}

// policyOf returns the policy of a slot, nil when it has none.
func (f *Filter) policyOf(slot int) *policies.Policy {
	f.mu.Lock()
	defer f.mu.Unlock()
	if st := f.slots[slot]; st != nil {
		return st.policy
	}
	return nil
}

// permit judges a name for a connection and notes it, in one step with
// recheck's view of it.
func (p *proxy) permit(c *conn, name string) error {
	canonical, err := policies.CanonicalName(name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.name = canonical
	c.mu.Unlock()
	// After the name is noted: a policy that comes now sees it in recheck.
	policy := p.filter.policyOf(c.slot)
	if policy == nil {
		return errors.New("the sandbox has no policy")
	}
	d := policies.Decide(policy, policies.ConnectRequest{Host: canonical, Protocol: policies.TCP, Port: c.port})
	if !d.Allow {
		return &refusal{host: canonical, port: c.port, decision: d}
	}
	return nil
}

// led tells where a connection for a host went: to up, or nowhere because of
// err. how says what the proxy did with it; host may be empty.
func (p *proxy) led(c *conn, host string, up net.Conn, how string, err error) {
	if p.filter.teller.Load() == nil {
		return
	}
	if errors.Is(err, errOutOfBounds) {
		p.refused(c, host, err)
		return
	}
	r := engine.ActivityRecord{
		Kind: engine.ActivityConnect, Operation: engine.Proxied, Protocol: "tcp", Host: host, Local: c.local(), Remote: c.to.String(), Detail: how,
	}
	switch {
	case p.filter.upstreamOf(c.slot) != nil: // what is known of it is not the sandbox's business
		r.Detail = strings.TrimPrefix(r.Detail+", by the outbound proxy", ", ")
		if err != nil {
			r.Reason = "the outbound proxy does not answer"
		}
	case err != nil:
		r.Reason = err.Error()
	default:
		r.Addresses = []string{up.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()}
	}
	if policy := p.filter.policyOf(c.slot); policy != nil {
		d := policies.Decide(policy, policies.ConnectRequest{Host: host, Protocol: policies.TCP, Port: c.port})
		if host == "" || !d.Allow { // then it went by its address
			d = policies.Decide(policy, policies.ConnectRequest{Address: c.to.Addr(), Protocol: policies.TCP, Port: c.port})
		}
		r.Rule = d.Rule
	}
	p.filter.tellOnce(c.slot, r)
}

// refused tells of a connection or request that was not let through.
func (p *proxy) refused(c *conn, host string, err error) {
	r := engine.ActivityRecord{
		Kind: engine.ActivityDeny, Protocol: "tcp", Host: host, Local: c.RemoteAddr().String(), Remote: ":" + strconv.Itoa(int(c.port)),
		Reason: err.Error(),
	}
	var by *refusal
	if errors.As(err, &by) {
		r.Host, r.Rule, r.Reason = by.host, by.decision.Rule, by.decision.Reason
	}
	if _, err := netip.ParseAddr(strings.Trim(r.Host, "[]")); err == nil || r.Host == "" {
		// It names no host, so the address decides, and no rule allows that.
		r.Remote, r.Rule = c.to.String(), "egress/default"
	}
	p.filter.tell(c.slot, r)
}

// refusal is a denial by policy.
type refusal struct {
	host     string
	port     uint16
	decision policies.Decision
}

// Error says it for people and models.
func (r *refusal) Error() string {
	return r.host + " port " + strconv.Itoa(int(r.port)) + " is not allowed by this sandbox's network policy (" + r.decision.Rule + ": " + r.decision.Reason + ")"
}

// refusal says why a connection may not go on to its address.
func (f *Filter) refusal(c *conn) error {
	r := &refusal{host: c.to.Addr().String(), port: c.port, decision: policies.Decision{Rule: "blocked", Reason: "no sandbox may reach it"}}
	policy := f.policyOf(c.slot)
	if policy == nil {
		return errors.New("the sandbox has no policy")
	}
	if d := policies.Decide(policy, policies.ConnectRequest{Address: c.to.Addr(), Protocol: policies.TCP, Port: c.port}); !d.Allow {
		r.decision = d
	}
	return r
}

// dial connects to a name, by the sandbox's outbound proxy when it has one,
// else at an address that the name resolves to and that sandboxes may reach.
// Since that takes a while, the policy is asked once more at the end.
func (p *proxy) dial(ctx context.Context, slot int, name string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	policy, up := p.filter.policyOf(slot), p.filter.upstreamOf(slot)
	if policy == nil {
		return nil, errors.New("the sandbox has no policy")
	}
	name, err := policies.CanonicalName(name)
	if err != nil {
		return nil, err
	}
	addrs, err := p.filter.resolve(ctx, policy, name)
	if up != nil && !errors.Is(err, errOutOfBounds) {
		// What does not resolve here may be known to the proxy.
		c, err := p.tunnel(ctx, up, net.JoinHostPort(name, strconv.Itoa(int(port))))
		return p.still(c, err, slot, up, func(now *policies.Policy) bool { return allows(now, name, port) })
	}
	if err != nil {
		return nil, err
	}
	c, err := dialAny(ctx, addrs, port)
	return p.still(c, err, slot, nil, func(now *policies.Policy) bool {
		return allows(now, name, port) && !p.filter.refuses(now, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
	})
}

// dialAddress connects to the very address that the sandbox chose, by its
// outbound proxy when it has one.
func (p *proxy) dialAddress(ctx context.Context, c *conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if !p.filter.byAddress(c.slot, c.to) {
		return nil, errors.New("the address is not allowed")
	}
	var k net.Conn
	var err error
	up := p.filter.upstreamOf(c.slot)
	if up != nil {
		k, err = p.tunnel(ctx, up, c.to.String())
	} else {
		k, err = dialAny(ctx, []netip.Addr{c.to.Addr()}, c.port)
	}
	return p.still(k, err, c.slot, up, func(*policies.Policy) bool { return p.filter.byAddress(c.slot, c.to) })
}

// still passes a new connection on when the slot's policy allows it yet, and
// its outbound proxy is the same.
func (p *proxy) still(c net.Conn, err error, slot int, up *upstream, allowed func(now *policies.Policy) bool) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	if now := p.filter.policyOf(slot); now == nil || !p.filter.upstreamOf(slot).same(up) || !allowed(now) {
		c.Close()
		return nil, errors.New("the sandbox's network policy changed meanwhile")
	}
	return c, nil
}

// dialAny connects to the first of some addresses that answers.
func dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var errs []error
	for i, a := range addrs {
		left := time.Until(deadline(ctx)) / time.Duration(len(addrs)-i)
		d := net.Dialer{Timeout: left}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// splice copies both ways until both sides have ended or the connection idles.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(pair[0], &idle{Conn: pair[1], limit: idleTimeout})
			if w, ok := pair[0].(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite()
			}
		})
	}
	wg.Wait()
}

// idle ends a read that waits too long.
type idle struct {
	net.Conn
	limit time.Duration
}

func (i *idle) Read(b []byte) (int, error) {
	_ = i.SetReadDeadline(time.Now().Add(i.limit))
	return i.Conn.Read(b)
}
