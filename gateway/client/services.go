package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Secrets returns the server's secrets.
func (c *Client) Secrets() engine.Secrets { return secrets{c} }

type secrets struct{ c *Client }

func secretPath(ref engine.SecretRef) (string, error) {
	if ref.IDOrName == "" {
		return "", engine.Errorf(engine.KindInvalid, "the id or name of a secret is missing")
	}
	return "/api/secret/" + escape(ref.IDOrName), nil
}

func (s secrets) one(ctx context.Context, method, path string, body any) (engine.Secret, error) {
	var d wire.Secret
	if err := s.c.do(ctx, call{method: method, path: path, in: body, out: &d}); err != nil {
		return engine.Secret{}, err
	}
	return d.Secret(), nil
}

func (s secrets) Create(ctx context.Context, req engine.CreateSecret) (engine.Secret, error) {
	return s.one(ctx, http.MethodPost, "/api/secret", wire.CreateSecret{
		Name: req.Name, Value: req.Value, Description: req.Description, Hosts: req.Hosts,
	})
}

func (s secrets) Secret(ctx context.Context, ref engine.SecretRef) (engine.Secret, error) {
	path, err := secretPath(ref)
	if err != nil {
		return engine.Secret{}, err
	}
	return s.one(ctx, http.MethodGet, path, nil)
}

func (s secrets) List(ctx context.Context, q engine.SecretQuery) (engine.SecretPage, error) {
	order := "desc"
	if q.Ascending {
		order = "asc"
	}
	v := url.Values{"order": {order}}
	for key, value := range map[string]string{"name": q.Name, "sort": q.Sort, "cursor": q.Cursor} {
		if value != "" {
			v.Set(key, value)
		}
	}
	var d wire.SecretPage
	if err := s.c.do(ctx, call{method: http.MethodGet, path: "/api/secret/paginated", query: v, out: &d}); err != nil {
		return engine.SecretPage{}, err
	}
	page := engine.SecretPage{Total: d.Total}
	if d.NextCursor != nil {
		page.Next = *d.NextCursor
	}
	for _, item := range d.Items {
		page.Items = append(page.Items, item.Secret())
	}
	return page, nil
}

func (s secrets) Update(ctx context.Context, ref engine.SecretRef, u engine.UpdateSecret) (engine.Secret, error) {
	path, err := secretPath(ref)
	if err != nil {
		return engine.Secret{}, err
	}
	return s.one(ctx, http.MethodPatch, path, wire.UpdateSecret(u))
}

func (s secrets) Delete(ctx context.Context, ref engine.SecretRef) error {
	path, err := secretPath(ref)
	if err != nil {
		return err
	}
	return s.c.do(ctx, call{method: http.MethodDelete, path: path})
}

func (s secrets) Attach(ctx context.Context, ref engine.SandboxRef, wanted map[string]string) (engine.Sandbox, error) {
	list := []map[string]string{}
	if len(wanted) > 0 {
		list = append(list, wanted)
	}
	return s.c.onSandbox(ctx, http.MethodPut, ref, "/secrets", nil, map[string]any{"secrets": list})
}

// webhookPath is for the organization of the client's key.
const webhookPath = "/api/webhooks/organizations/current"

// Endpoints lists the webhook endpoints of the key's organization.
func (c *Client) Endpoints(ctx context.Context) ([]wire.Endpoint, error) {
	var out []wire.Endpoint
	err := c.do(ctx, call{method: http.MethodGet, path: webhookPath + "/endpoints", out: &out})
	return out, err
}

// CreateEndpoint makes a webhook endpoint. The answer has its signing secret.
func (c *Client) CreateEndpoint(ctx context.Context, e wire.CreateEndpoint) (wire.Endpoint, error) {
	var out wire.Endpoint
	err := c.do(ctx, call{method: http.MethodPost, path: webhookPath + "/endpoints", in: e, out: &out})
	return out, err
}

// DeleteEndpoint deletes a webhook endpoint.
func (c *Client) DeleteEndpoint(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: webhookPath + "/endpoints/" + escape(id)})
}

// Messages lists the newest webhook messages of the key's organization.
func (c *Client) Messages(ctx context.Context) ([]wire.Message, error) {
	var out []wire.Message
	err := c.do(ctx, call{method: http.MethodGet, path: webhookPath + "/messages", out: &out})
	return out, err
}
