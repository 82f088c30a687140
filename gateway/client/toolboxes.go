package client

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	tc "github.com/atoll-sh/atoll/engine/toolbox/client"
	tw "github.com/atoll-sh/atoll/engine/toolbox/wire"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type toolboxes struct{ c *Client }

// Toolbox asks the server for nothing yet; the first request tells whether the
// sandbox is there and runs.
func (t toolboxes) Toolbox(_ context.Context, ref engine.SandboxRef) (http.RoundTripper, error) {
	if ref.IDOrName == "" {
		return nil, engine.Errorf(engine.KindInvalid, "the id or name of a sandbox is missing")
	}
	return toolbox{c: t.c, prefix: "/toolbox/" + ref.IDOrName, rawPrefix: "/toolbox/" + escape(ref.IDOrName)}, nil
}

// DialPort connects through the server.
func (t toolboxes) DialPort(ctx context.Context, ref engine.SandboxRef, port int) (net.Conn, error) {
	rt, err := t.Toolbox(ctx, ref)
	if err != nil {
		return nil, err
	}
	conn, err := tc.New(rt).Tunnel(ctx, port, engine.Quiet(ctx))
	var (
		known   *engine.Error
		refused *tw.Error
	)
	switch {
	case err == nil:
		return conn, nil
	case errors.As(err, &known):
		return nil, known
	case errors.As(err, &refused):
		return nil, (&wire.Problem{
			StatusCode: refused.Status, Message: refused.Message, Kind: engine.Kind(refused.Kind), Hint: refused.Hint,
		}).Err()
	}
	return nil, engine.AsError(err)
}

// toolbox sends requests for toolbox paths to the server.
type toolbox struct {
	c                 *Client
	prefix, rawPrefix string
}

// RoundTrip implements http.RoundTripper.
func (t toolbox) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = t.c.base.Scheme, t.c.base.Host
	out.URL.RawPath = t.c.base.EscapedPath() + t.rawPrefix + req.URL.EscapedPath()
	out.URL.Path = t.c.base.Path + t.prefix + req.URL.Path
	out.Host = ""
	t.c.sign(out)
	res, err := t.c.http.RoundTrip(out)
	if err != nil {
		return nil, t.c.failed(req.Context(), err)
	}
	return res, nil
}
