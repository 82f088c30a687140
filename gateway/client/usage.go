package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// organization returns the one of the client's key.
func (c *Client) organization(ctx context.Context) (string, error) {
	var d wire.APIKey
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/api-keys/current", out: &d})
	return d.OrganizationID, err
}

// Usage returns what the organization of the client's key uses. Principal and
// id are ignored: the key decides.
func (c *Client) Usage(ctx context.Context, _ engine.Principal, _ string) (engine.Usage, error) {
	id, err := c.organization(ctx)
	if err != nil {
		return engine.Usage{}, err
	}
	var d wire.Usage
	if err := c.do(ctx, call{method: http.MethodGet, path: "/api/organizations/" + escape(id) + "/usage", out: &d}); err != nil {
		return engine.Usage{}, err
	}
	return d.Usage(id), nil
}

// Audit returns the audit log of the organization of the client's key. Principal
// and the query's organization are ignored, and filters are not offered here.
func (c *Client) Audit(ctx context.Context, _ engine.Principal, q engine.AuditQuery) (engine.AuditPage, error) {
	if len(q.Filters) > 0 {
		return engine.AuditPage{}, engine.Errorf(engine.KindUnsupported, "the audit log cannot be filtered from here")
	}
	id, err := c.organization(ctx)
	if err != nil {
		return engine.AuditPage{}, err
	}
	v := url.Values{}
	if q.Page > 0 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Next != "" {
		v.Set("nextToken", q.Next)
	}
	var d wire.AuditPage
	if err := c.do(ctx, call{method: http.MethodGet, path: "/api/audit/organizations/" + escape(id), query: v, out: &d}); err != nil {
		return engine.AuditPage{}, err
	}
	return d.AuditPage(), nil
}
