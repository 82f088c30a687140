package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// GrantSSH makes a token for SSH that is good for so long, in place of the one
// that the sandbox had.
func (c *Client) GrantSSH(ctx context.Context, ref engine.SandboxRef, validFor time.Duration) (wire.SSHAccess, error) {
	var out wire.SSHAccess
	path, err := sandboxPath(ref, "/ssh-access")
	if err != nil {
		return out, err
	}
	q := url.Values{"expiresInMinutes": {strconv.FormatFloat(validFor.Minutes(), 'f', -1, 64)}}
	err = c.do(ctx, call{method: http.MethodPost, path: path, query: q, out: &out})
	return out, err
}

// ValidateSSH tells whether a token is good, and for which sandbox.
func (c *Client) ValidateSSH(ctx context.Context, token string) (wire.SSHValidation, error) {
	var out wire.SSHValidation
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/sandbox/ssh-access/validate", query: url.Values{"token": {token}}, out: &out})
	return out, err
}

// SSHGateway tells where the SSH gateway is. An empty host: there is none.
func (c *Client) SSHGateway(ctx context.Context) (wire.SSHConfiguration, error) {
	var out wire.SSHConfiguration
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/config", out: &out})
	return out, err
}
