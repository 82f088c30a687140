package client

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Principals in calls of this file are ignored: the key decides.

type keys struct{ c *Client }

func (k keys) Create(ctx context.Context, _ engine.Principal, req engine.CreateKey) (engine.APIKey, string, error) {
	var d wire.NewAPIKey
	err := k.c.do(ctx, call{method: http.MethodPost, path: "/api/api-keys", in: wire.FromCreateKey(req), out: &d})
	if err != nil {
		return engine.APIKey{}, "", err
	}
	listed := wire.APIKey{
		Name: d.Name, CreatedAt: d.CreatedAt, Permissions: d.Permissions, ExpiresAt: d.ExpiresAt, UserID: d.UserID,
		Unrestricted: d.Unrestricted, Policy: d.Policy, OrganizationID: d.OrganizationID, Scope: d.Scope,
	}
	return listed.Key(), d.Value, nil
}

func (k keys) List(ctx context.Context, _ engine.Principal) ([]engine.APIKey, error) {
	var all []wire.APIKey
	if err := k.c.do(ctx, call{method: http.MethodGet, path: "/api/api-keys", out: &all}); err != nil {
		return nil, err
	}
	out := make([]engine.APIKey, len(all))
	for i, d := range all {
		out[i] = d.Key()
	}
	return out, nil
}

func (k keys) Key(ctx context.Context, _ engine.Principal, name string) (engine.APIKey, error) {
	if name == "" {
		return engine.APIKey{}, noName()
	}
	var d wire.APIKey
	err := k.c.do(ctx, call{method: http.MethodGet, path: "/api/api-keys/" + escape(name), out: &d})
	return d.Key(), err
}

// CurrentKey returns the key that the client itself uses.
func (c *Client) CurrentKey(ctx context.Context) (engine.APIKey, error) {
	var d wire.APIKey
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/api-keys/current", out: &d})
	return d.Key(), err
}

func (k keys) Revoke(ctx context.Context, _ engine.Principal, userID, name string) error {
	if name == "" {
		return noName()
	}
	path := "/api/api-keys/" + escape(name)
	if userID != "" {
		path = "/api/api-keys/" + escape(userID) + "/" + escape(name)
	}
	return k.c.do(ctx, call{method: http.MethodDelete, path: path})
}

func noName() error { return engine.Errorf(engine.KindInvalid, "the name of a key is missing") }

type users struct{ c *Client }

// User returns the user of the client's key for an empty id.
func (u users) User(ctx context.Context, _ engine.Principal, id string) (engine.User, error) {
	path := "/api/users/me"
	if id != "" {
		path = "/api/admin/users/" + escape(id)
	}
	var d wire.User
	err := u.c.do(ctx, call{method: http.MethodGet, path: path, out: &d})
	return d.User(), err
}

func (u users) CreateUser(ctx context.Context, _ engine.Principal, req engine.CreateUser) (engine.NewUser, error) {
	in := wire.CreateUser{ID: req.ID, Name: req.Name, Email: req.Email, EmailVerified: req.EmailVerified, Region: req.Region, Role: "user"}
	if req.Admin {
		in.Role = "admin"
	}
	if req.Quota != (engine.Quota{}) || req.RegionQuota != nil {
		return engine.NewUser{}, engine.Errorf(engine.KindUnsupported, "quotas of new users cannot be set from here").WithHint("set the organization's quota")
	}
	var d wire.NewUser
	if err := u.c.do(ctx, call{method: http.MethodPost, path: "/api/admin/users", in: in, out: &d}); err != nil {
		return engine.NewUser{}, err
	}
	return engine.NewUser{User: d.User.User(), Organization: engine.Organization{ID: d.OrganizationID, Name: d.Name}, Secret: d.APIKey}, nil
}

func (u users) Users(ctx context.Context, _ engine.Principal) ([]engine.User, error) {
	var all []wire.User
	if err := u.c.do(ctx, call{method: http.MethodGet, path: "/api/admin/users", out: &all}); err != nil {
		return nil, err
	}
	out := make([]engine.User, len(all))
	for i, d := range all {
		out[i] = d.User()
	}
	return out, nil
}

// Organizations returns those that the client's key reaches.
func (c *Client) Organizations(ctx context.Context) ([]engine.Organization, error) {
	var all []wire.Organization
	if err := c.do(ctx, call{method: http.MethodGet, path: "/api/organizations", out: &all}); err != nil {
		return nil, err
	}
	out := make([]engine.Organization, len(all))
	for i, d := range all {
		out[i] = d.Organization()
	}
	return out, nil
}

// CreateOrganization makes an organization of the key's user. A key in it is
// made with CreateKey.OrganizationID.
func (c *Client) CreateOrganization(ctx context.Context, name string) (engine.Organization, error) {
	var d wire.Organization
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/organizations", in: map[string]string{"name": name}, out: &d})
	return d.Organization(), err
}

// DeleteOrganization removes an organization without sandboxes and snapshots.
func (c *Client) DeleteOrganization(ctx context.Context, id string) error {
	if id == "" {
		return engine.Errorf(engine.KindInvalid, "the id of an organization is missing")
	}
	return c.do(ctx, call{method: http.MethodDelete, path: "/api/organizations/" + escape(id)})
}
