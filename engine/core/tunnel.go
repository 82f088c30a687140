package core

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// DialPort connects to a port inside a started sandbox. The connection ends
// with the sandbox's run.
func (t toolboxes) DialPort(ctx context.Context, ref engine.SandboxRef, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, engine.Errorf(engine.KindInvalid, "port %d is not between 1 and 65535", port)
	}
	tb, err := t.reach(ctx, ref)
	if err != nil {
		return nil, err
	}
	quiet := engine.Quiet(ctx)
	conn, err := client.New(&direct{tb, quiet}).Tunnel(ctx, port, quiet)
	if err != nil {
		return nil, tb.refused(err, port)
	}
	return conn, nil
}

// direct is a toolbox without the bar before its internal paths.
type direct struct {
	*toolbox
	quiet bool
}

// RoundTrip sends a request of the server's own.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	end := func() {}
	if !d.quiet {
		end = d.core.activity.begin(d.id, d.core.Now)
	}
	return d.send(req, end)
}

// refused says why there is no connection to a port, in our words: the
// toolbox's are not to be believed.
func (t *toolbox) refused(err error, port int) error {
	var (
		known   *engine.Error
		refusal *wire.Error
	)
	switch {
	case errors.As(err, &known):
		return known
	case !errors.As(err, &refusal):
		return public(err)
	case refusal.Code == wire.CodeBadGateway:
		return engine.Errorf(engine.KindUnavailable, "nothing listens on port %d of sandbox %s", port, t.name).
			WithHint("start the service first; it must listen on localhost or on all addresses").Wrap(err)
	case refusal.Code == wire.CodeTooMany:
		return engine.Errorf(engine.KindExhausted, "sandbox %s has too many open connections", t.name).
			WithHint("close some first").Wrap(err)
	}
	return engine.Errorf(engine.KindUnavailable, "the toolbox of sandbox %s does not connect to ports", t.name).
		WithHint("stop and start the sandbox, which renews its toolbox").Wrap(err)
}

// CloseWrite ends one direction of an upgraded connection.
func (b *watchedStream) CloseWrite() error { return closeWrite(b.ReadWriteCloser) }

// CloseWrite ends one direction.
func (c *trackedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c io.Closer) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
