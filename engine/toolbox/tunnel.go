package toolbox

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Limits of tunnels.
const (
	maxTunnels = 512 // open at once
	tunnelDial = 10 * time.Second
)

// tunnel connects the caller to a port of the sandbox and copies bytes both
// ways. Each side may end its own direction first. A quiet tunnel counts as
// activity only in the eyes of who opened it.
func (t *Toolbox) tunnel(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), wire.TunnelProtocol) {
		return wire.BadRequest("this path needs the headers Connection: Upgrade and Upgrade: %s", wire.TunnelProtocol)
	}
	port, err := parsePort(r.URL.Query().Get("port"))
	if err != nil {
		return err
	}
	if t.tunnels.Add(1) > maxTunnels {
		t.tunnels.Add(-1)
		return wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "there are %d open connections to ports of this sandbox; close some first", maxTunnels)
	}
	defer t.tunnels.Add(-1)
	if r.URL.Query().Get("quiet") != "true" {
		defer t.activity.begin(true)()
	}
	inner, err := dialPort(r.Context(), port)
	if err != nil {
		return err
	}
	defer inner.Close()
	outer, err := switchProtocols(w)
	if err != nil {
		return err
	}
	defer outer.Close()
	stop := context.AfterFunc(t.closing, func() { outer.Close(); inner.Close() })
	defer stop()
	splice(outer, inner)
	return nil
}

func dialPort(ctx context.Context, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tunnelDial)
	defer cancel()
	conn, err := dialLocal(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, wire.Errorf(http.StatusBadGateway, wire.CodeBadGateway, "nothing listens on port %d; start the service first", port)
	}
	if err != nil {
		return nil, wire.Errorf(http.StatusBadGateway, wire.CodeBadGateway, "connect to port %d: %v", port, err)
	}
	return conn, nil
}

// switchProtocols takes the connection out of the HTTP server's hands and
// tells the caller so.
func switchProtocols(w http.ResponseWriter) (*upgraded, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if w, ok := w.(*writer); ok {
		w.begun = true
	}
	_ = conn.SetDeadline(time.Time{})
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+wire.TunnelProtocol+"\r\n\r\n")
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &upgraded{conn, buf.Reader}, nil
}

// upgraded is a connection whose first bytes may have been read already.
type upgraded struct {
	net.Conn
	early *bufio.Reader
}

// WriteTo lets the kernel move what was not read yet.
func (u *upgraded) WriteTo(w io.Writer) (int64, error) {
	early, err := io.CopyN(w, u.early, int64(u.early.Buffered()))
	if err != nil {
		return early, err
	}
	rest, err := io.Copy(w, u.Conn)
	return early + rest, err
}

// CloseWrite ends our direction.
func (u *upgraded) CloseWrite() error { return closeWrite(u.Conn) }

func closeWrite(c io.Closer) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// splice copies both ways until both have ended or one is broken.
func splice(a *upgraded, b net.Conn) {
	done := make(chan error, 2)
	go func() {
		_, err := a.WriteTo(b)
		done <- errors.Join(err, closeWrite(b))
	}()
	go func() {
		_, err := io.Copy(a.Conn, b)
		done <- errors.Join(err, a.CloseWrite())
	}()
	if err := <-done; err != nil {
		a.Close()
		b.Close()
	}
	<-done
}
