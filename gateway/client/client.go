// Package client speaks to a server over HTTP and satisfies the same
// interfaces as the engine does, with the same errors, so that the command
// line and the MCP server work on either. Organizations in requests are
// ignored: the key decides.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Options are what a client may be told beside the address and key.
type Options struct {
	HTTP      http.RoundTripper // nil: an own transport
	UserAgent string            // empty: atoll
}

// Client reaches one server. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	key   string
	agent string
	http  http.RoundTripper
}

// New returns a client of the server at base, as http://127.0.0.1:7777. A
// trailing /api is taken off, because other clients want it there.
func New(base, key string, o Options) (*Client, error) {
	u, err := url.Parse(strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/api"))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, engine.Errorf(engine.KindInvalid, "%q is no URL of a server", base).
			WithHint("write it as http://127.0.0.1:7777")
	}
	c := &Client{base: u, key: key, agent: o.UserAgent, http: o.HTTP}
	if c.agent == "" {
		c.agent = "atoll"
	}
	if c.http == nil {
		c.http = transport()
	}
	return c, nil
}

// transport has no limit on the time of an answer: creates and transfers take
// as long as they take, and the caller's context ends them.
func transport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
	}
}

// URL is the server's address.
func (c *Client) URL() string { return c.base.String() }

// Sandboxes returns the server's sandboxes.
func (c *Client) Sandboxes() engine.Sandboxes { return sandboxes{c} }

// Snapshots returns the server's snapshots.
func (c *Client) Snapshots() engine.Snapshots { return snapshots{c} }

// Toolboxes reaches into sandboxes through the server.
func (c *Client) Toolboxes() engine.Toolboxes { return toolboxes{c} }

// Events watches the server's changes.
func (c *Client) Events() engine.Events { return events{c} }

// Inspector asks for samples and the host's abilities.
func (c *Client) Inspector() engine.Inspector { return inspector{c} }

// Keys returns the keys of the client's user.
func (c *Client) Keys() engine.KeyRing { return keys{c} }

// Users returns who may use the server.
func (c *Client) Users() engine.Users { return users{c} }

// Ready returns nil when the server can make sandboxes.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodGet, path: "/readyz"})
}

// Shutdown asks the server's process to end. Sandboxes go on.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/api/admin/shutdown"})
}

// call is one request.
type call struct {
	method string
	path   string // escaped, below the base
	query  url.Values
	in     any // JSON body; nil: none
	out    any // where the answer goes; nil: nowhere
}

func (c *Client) do(ctx context.Context, k call) error {
	res, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return problem(res)
	}
	if k.out == nil {
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(k.out); err != nil {
		return c.failed(ctx, fmt.Errorf("decode the answer of %s %s: %w", k.method, k.path, err))
	}
	return nil
}

func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	var body io.Reader
	if k.in != nil {
		b, err := json.Marshal(k.in)
		if err != nil {
			return nil, fmt.Errorf("encode the request of %s: %w", k.path, err)
		}
		body = bytes.NewReader(b)
	}
	u := c.base.String() + k.path
	if len(k.query) > 0 {
		u += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u, body)
	if err != nil {
		return nil, engine.Errorf(engine.KindInvalid, "cannot make a request for %q", k.path).Wrap(err)
	}
	c.sign(req)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	return res, nil
}

func (c *Client) sign(req *http.Request) {
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("X-Daytona-Source", "atoll")
	// The toolbox chooses the newer of its answer formats by this.
	req.Header.Set("X-Daytona-SDK-Version", "0.999.0")
}

// failed turns an error of the transport into one for people.
func (c *Client) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return engine.AsError(ctx.Err())
	}
	e := engine.Errorf(engine.KindUnavailable, "no answer from the server at %s", c.base.String()).Wrap(err)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return e.WithHint("is it running? start it with atoll up, or name another with --url")
	}
	return e
}

// maxProblem bounds how much of an error body is read.
const maxProblem = 1 << 20

func problem(res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	return wire.ParseProblem(res.StatusCode, body)
}

func escape(s string) string {
	if s == "." || s == ".." { // no name; keep the path from being cleaned
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}
