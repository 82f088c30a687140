package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// PreviewURL returns the address of a port, and the token that opens it unless
// the sandbox is public.
func (c *Client) PreviewURL(ctx context.Context, ref engine.SandboxRef, port int) (engine.PreviewURL, error) {
	return c.preview(ctx, ref, fmt.Sprintf("/ports/%d/preview-url", port), nil)
}

// SignedPreviewURL returns an address that needs no other token, for whole
// seconds up to a day.
func (c *Client) SignedPreviewURL(ctx context.Context, ref engine.SandboxRef, port int, lifetime time.Duration) (engine.PreviewURL, error) {
	return c.preview(ctx, ref, fmt.Sprintf("/ports/%d/signed-preview-url", port), url.Values{
		"expiresInSeconds": {strconv.FormatInt(int64(lifetime/time.Second), 10)},
	})
}

func (c *Client) preview(ctx context.Context, ref engine.SandboxRef, suffix string, q url.Values) (engine.PreviewURL, error) {
	path, err := sandboxPath(ref, suffix)
	if err != nil {
		return engine.PreviewURL{}, err
	}
	var p engine.PreviewURL
	err = c.do(ctx, call{method: http.MethodGet, path: path, query: q, out: &p})
	return p, err
}
