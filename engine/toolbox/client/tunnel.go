package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Tunnel connects to a port inside the sandbox. The context bounds the
// connecting only. A quiet tunnel counts as no activity of the sandbox. The
// connection can be half closed (CloseWrite) but knows no deadlines.
//
// A *wire.Error with CodeBadGateway tells that nothing listens there.
func (c *Client) Tunnel(ctx context.Context, port int, quiet bool) (net.Conn, error) {
	q := url.Values{"port": {strconv.Itoa(port)}}
	if quiet {
		q.Set("quiet", "true")
	}
	open, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	body, err := c.upgrade(open, "/internal/tunnel?"+q.Encode())
	if !stop() { // too late: the connection is about to be cut
		if err == nil {
			_ = body.Close()
		}
		err = context.Cause(ctx)
	}
	if err != nil {
		end()
		return nil, err
	}
	return &tunnel{body, end, port}, nil
}

func (c *Client) upgrade(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("make a request to the toolbox: %w", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", wire.TunnelProtocol)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call the toolbox: %w", err)
	}
	stream, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode == http.StatusSwitchingProtocols && ok {
		return stream, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxInternal))
	return nil, wire.ParseError(res.StatusCode, b)
}

// tunnel is an upgraded connection.
type tunnel struct {
	io.ReadWriteCloser
	end  context.CancelFunc
	port int
}

// Close ends both directions.
func (t *tunnel) Close() error {
	defer t.end()
	return t.ReadWriteCloser.Close()
}

// CloseWrite tells the other side that no more comes.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// LocalAddr has nothing to tell.
func (t *tunnel) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr is the port, as seen from inside.
func (t *tunnel) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: t.port}
}

// SetDeadline is not supported.
func (t *tunnel) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline is not supported.
func (t *tunnel) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline is not supported.
func (t *tunnel) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
