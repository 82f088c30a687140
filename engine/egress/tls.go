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
)

// serve judges a connection by its first bytes: TLS on 443, HTTP on 80. Other
// protocols have no name that could be judged.
func (p *proxy) serve(c *conn) {
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	switch {
	case c.port == 443:
		p.serveTLS(c)
	case c.port == 80 && p.filter.open(c.slot):
		// It is here only because the sandbox has secrets, and none of them
		// goes out in the clear, or because it learns.
		defer p.forget(c)
		p.pass(c, p.noteRequest(c))
	case c.port == 80:
		_ = c.SetReadDeadline(time.Time{})
		p.web.give(&webConn{conn: c, closed: func() { p.forget(c) }})
	default:
		reset(c.Conn)
		p.forget(c)
	}
}

func (p *proxy) serveTLS(c *conn) {
	name, hello, err := readHello(p.ctx, c.Conn)
	open := p.filter.open(c.slot)
	if name != "" && (err == nil || open) {
		seal, serr := p.filter.sealFor(p.ctx, c.slot, name)
		if serr != nil {
			p.log.Warn("secrets of a sandbox cannot be read", "slot", c.slot, "err", serr)
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
	if open {
		if err == nil {
			p.noteName(c, name)
		}
		p.pass(c, hello)
		return
	}
	if err == nil {
		err = p.permit(c, name)
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
		reset(c.Conn)
		return
	}
	c.join(up)
	if err := p.permit(c, name); err != nil { // a policy that comes later ends both sides
		up.Close()
		alert(c.Conn)
		return
	}
	p.copy(c, up, hello)
}

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
// no proxy, when its policy and the host let it.
func (p *proxy) pass(c *conn, read []byte) {
	c.mu.Lock()
	c.passed = true
	c.mu.Unlock()
	// After it is noted: a policy that comes now sees it in recheck.
	policy := p.filter.policyOf(c.slot)
	if policy == nil || !allowsAddress(policy, c.to) || p.filter.refuses(policy, c.to.Addr()) {
		reset(c.Conn)
		return
	}
	d := net.Dialer{Timeout: dialTimeout}
	up, err := d.DialContext(p.ctx, "tcp", c.to.String())
	if err != nil {
		p.log.Debug("connection failed", "slot", c.slot, "address", c.to, "err", err)
		reset(c.Conn)
		return
	}
	c.join(up)
	if policy := p.filter.policyOf(c.slot); policy == nil || !allowsAddress(policy, c.to) { // it changed meanwhile
		up.Close()
		reset(c.Conn)
		return
	}
	p.copy(c, up, read)
}

// The encrypted hello hides the name that matters behind another one.
const extensionECH = 0xfe0d

var errRead = errors.New("the hello was read")

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
		return info.ServerName, rec.read.Bytes(), errors.New("the hello is encrypted, so the host that it is for is hidden")
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
