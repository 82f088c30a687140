package client

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
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
