package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/policies"
)

// serve judges a connection by its first bytes: TLS on 443, HTTP on 80. Other
// protocols have no name that could be judged.
func (p *proxy) serve(c *conn) {
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	byAddress := p.filter.byAddress(c.slot, c.to)
	c.mu.Lock()
	c.passed = byAddress
	c.mu.Unlock()
	switch {
	case !byAddress && !p.filter.byName(c.slot):
		p.refused(c, "", p.filter.refusal(c))
		reset(c.Conn)
		p.forget(c)
	case c.port == 443:
		p.serveTLS(c, byAddress)
	case c.port == 80 && byAddress && p.filter.upstreamOf(c.slot) == nil:
		// It is here only because the sandbox has secrets, and none of them
		// goes out in the clear, or because it learns.
		defer p.forget(c)
		host, read := p.noteRequest(c)
		p.pass(c, host, read)
	case c.port == 80:
		_ = c.SetReadDeadline(time.Time{})
		p.giveWeb(c)
	default:
		reset(c.Conn)
		p.forget(c)
	}
}

// serveTLS sends a TLS connection to the host that its hello names, or, where
// the policy allows its address by itself, to that.
func (p *proxy) serveTLS(c *conn, byAddress bool) {
	name, hello, err := readHello(p.ctx, c.Conn)
	if errors.Is(err, errEncrypted) && p.filter.takesEncrypted(c.slot) {
		err = nil
	}
	if name != "" && (err == nil || byAddress) {
		seal, serr := p.filter.sealFor(p.ctx, c.slot, name)
		if serr != nil {
			p.log.Warn("secrets of a sandbox cannot be read", "slot", c.slot, "err", serr)
			p.unreadable(c, name)
			reset(c.Conn)
			p.forget(c)
			return
		}
		if seal != nil {
			p.intercept(c, seal, name, hello)
			return
		}
	}
	defer p.forget(c)
	if byAddress && err == nil {
		p.noteName(c, name)
	}
	if byAddress && p.filter.upstreamOf(c.slot) == nil {
		p.pass(c, name, hello)
		return
	}
	if err == nil {
		err = p.permit(c, name)
	}
	if err != nil && byAddress {
		p.pass(c, name, hello)
		return
	}
	if err != nil {
		p.log.Debug("TLS connection refused", "slot", c.slot, "err", err)
		p.refused(c, name, err)
		alert(c.Conn)
		return
	}
	up, err := p.dial(p.ctx, c.slot, name, c.port)
	if err != nil {
		p.log.Debug("TLS connection failed", "slot", c.slot, "name", name, "err", err)
		p.led(c, name, nil, unread, err)
		reset(c.Conn)
		return
	}
	c.join(up)
	if err := p.permit(c, name); err != nil { // a policy that comes later ends both sides
		up.Close()
		alert(c.Conn)
		return
	}
	p.led(c, name, up, unread, nil)
	p.copy(c, up, hello)
}

// unread is what the proxy does with TLS whose host no secret is for: nobody
// here sees what is in it, so that placeholders stay what they are.
const unread = "unread"

// copy sends what was read already and then copies both ways.
func (p *proxy) copy(c *conn, up net.Conn, read []byte) {
	defer up.Close()
	_ = c.SetReadDeadline(time.Time{})
	if _, err := up.Write(read); err != nil {
		return
	}
	// Ends with the proxy, too: close closes the sandbox's side.
	stop := context.AfterFunc(p.ctx, func() { up.Close() })
	defer stop()
	splice(up, c.Conn)
}

// pass connects to the very address that the sandbox chose, as if there were
// no proxy, when its policy and the host let it. name is what it names; it may
// be empty.
func (p *proxy) pass(c *conn, name string, read []byte) {
	up, err := p.dialAddress(p.ctx, c)
	if err != nil {
		p.log.Debug("connection failed", "slot", c.slot, "address", c.to, "err", err)
		p.led(c, name, nil, unread, err)
		reset(c.Conn)
		return
	}
	c.join(up)
	if !p.filter.byAddress(c.slot, c.to) { // it changed meanwhile; a policy that comes later ends both sides
		up.Close()
		reset(c.Conn)
		return
	}
	p.led(c, name, up, unread, nil)
	p.copy(c, up, read)
}

// The encrypted hello hides the name that matters behind another one. Browsers
// send one that hides nothing where they know no keys, which looks the same.
const extensionECH = 0xfe0d

var (
	errRead      = errors.New("the hello was read")
	errEncrypted = errors.New("the hello is encrypted, so the host that it is for is hidden")
)

// takesEncrypted tells whether a slot's policy judges an encrypted hello by the
// name outside. The connection goes to that name's own host, so that a name
// inside reaches what that host serves, and nothing else.
func (f *Filter) takesEncrypted(slot int) bool {
	p := f.policyOf(slot)
	return p != nil && p.Egress.ECH == policies.ECHOuter
}

// readHello reads a TLS client's hello, in whatever pieces it comes, and
// returns the name it asks for and the bytes that were read, which it also does
// with an error, as far as there are any. Nothing is written.
func readHello(ctx context.Context, c net.Conn) (name string, hello []byte, err error) {
	rec := &recorder{Conn: c}
	var info *tls.ClientHelloInfo
	err = tls.Server(rec, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			info = i
			return nil, errRead
		},
	}).HandshakeContext(ctx)
	switch {
	case info == nil && err != nil:
		return "", rec.read.Bytes(), err
	case info == nil || info.ServerName == "":
		return "", rec.read.Bytes(), errors.New("the hello names no host")
	case slices.Contains(info.Extensions, extensionECH):
		return info.ServerName, rec.read.Bytes(), errEncrypted
	}
	return info.ServerName, rec.read.Bytes(), nil
}

// recorder keeps what is read and writes nothing.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	if r.read.Len() > maxHelloBytes {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := r.Conn.Read(b)
	r.read.Write(b[:n])
	return n, err
}

func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) Close() error                { return nil }

// alert tells a TLS client that its name is not served here.
func alert(c net.Conn) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 112}) // fatal, unrecognized_name
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
