package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func bytesReader(b []byte) io.ReadSeeker { return bytes.NewReader(b) }

type region struct {
	ID             string  `json:"id"`
	Name           string  `json:"name"`
	OrganizationID *string `json:"organizationId"`
	RegionType     string  `json:"regionType"`
	CreatedAt      string  `json:"createdAt"`
	UpdatedAt      string  `json:"updatedAt"`
}

type byID struct {
	ID string `path:"id"`
}

func (a *API) registerAccount() {
	handleCreated(a, "POST", "/api-keys", "Make a key; its value is shown once", a.createKey)
	handle(a, "GET", "/api-keys", "The user's keys, and for owners those of all members", a.keys)
	handle(a, "GET", "/api-keys/current", "The key of this request", a.currentKey)
	handle(a, "GET", "/api-keys/{name}", "One of the user's keys", a.key)
	handleEmpty(a, "DELETE", "/api-keys/{name}", "Revoke one of the user's keys", http.StatusNoContent, a.revokeOwnKey)
	handleEmpty(a, "DELETE", "/api-keys/{userId}/{name}", "Revoke a key of a user of the organization", http.StatusNoContent, a.revokeKey)
	handle(a, "GET", "/users/me", "The user of this request", a.me)
	handleCreated(a, "POST", "/admin/users", "Make a user with an organization and a key", a.createUser)
	handle(a, "GET", "/admin/users", "All users", a.users)
	handle(a, "GET", "/admin/users/{id}", "One user", a.user)
	handle(a, "GET", "/shared-regions", "The regions that everybody may use", a.regions)
	handle(a, "GET", "/regions", "The regions", a.regions)
	handle(a, "GET", "/regions/{id}", "One region", a.region)
}

// epoch stands for times that are not recorded but that the contract wants.
var epoch = wire.Moment(time.Time{})

// caller is who a request speaks for.
func caller(ctx context.Context) engine.Principal {
	p, _ := auth.From(ctx)
	return p
}

type createKeyInput struct{ Body wire.CreateAPIKey }

func (a *API) createKey(ctx context.Context, in *createKeyInput) (wire.NewAPIKey, error) {
	req, err := in.Body.Request()
	if err != nil {
		return wire.NewAPIKey{}, err
	}
	k, secret, err := a.Accounts.Keys.Create(ctx, caller(ctx), req)
	return wire.FromNewKey(k, secret), err
}

func (a *API) keys(ctx context.Context, _ *struct{}) ([]wire.APIKey, error) {
	all, err := a.Accounts.Keys.List(ctx, caller(ctx))
	return each(all, wire.FromKey), err
}

// each converts a list, which is never null.
func each[A, B any](all []A, convert func(A) B) []B {
	out := make([]B, len(all))
	for i, v := range all {
		out[i] = convert(v)
	}
	return out
}

func (a *API) currentKey(ctx context.Context, _ *struct{}) (wire.APIKey, error) {
	p := caller(ctx)
	k, err := a.Accounts.Keys.Key(ctx, p, p.KeyName)
	return wire.FromKey(k), err
}

type keyName struct {
	UserID string `path:"userId"`
	Name   string `path:"name"`
}

type ownKeyName struct {
	Name string `path:"name"`
}

func (a *API) key(ctx context.Context, in *ownKeyName) (wire.APIKey, error) {
	k, err := a.Accounts.Keys.Key(ctx, caller(ctx), in.Name)
	return wire.FromKey(k), err
}

func (a *API) revokeOwnKey(ctx context.Context, in *ownKeyName) error {
	return a.Accounts.Keys.Revoke(ctx, caller(ctx), "", in.Name)
}

func (a *API) revokeKey(ctx context.Context, in *keyName) error {
	return a.Accounts.Keys.Revoke(ctx, caller(ctx), in.UserID, in.Name)
}

func (a *API) me(ctx context.Context, _ *struct{}) (wire.User, error) {
	p := caller(ctx)
	u, err := a.Accounts.Users.User(ctx, p, p.UserID)
	return wire.FromUser(u), err
}

type createUserInput struct{ Body wire.CreateUser }

func (a *API) createUser(ctx context.Context, in *createUserInput) (wire.NewUser, error) {
	made, err := a.Accounts.Users.CreateUser(ctx, caller(ctx), in.Body.Request())
	return wire.NewUser{User: wire.FromUser(made.User), OrganizationID: made.Organization.ID, APIKey: made.Secret}, err
}

func (a *API) users(ctx context.Context, _ *struct{}) ([]wire.User, error) {
	all, err := a.Accounts.Users.Users(ctx, caller(ctx))
	return each(all, wire.FromUser), err
}

func (a *API) user(ctx context.Context, in *byID) (wire.User, error) {
	u, err := a.Accounts.Users.User(ctx, caller(ctx), in.ID)
	return wire.FromUser(u), err
}

func (a *API) regions(context.Context, *struct{}) ([]region, error) {
	return []region{a.theRegion()}, nil
}

func (a *API) theRegion() region {
	return region{ID: a.Region, Name: a.Region, RegionType: "shared", CreatedAt: epoch, UpdatedAt: epoch}
}

func (a *API) region(_ context.Context, in *byID) (region, error) {
	if in.ID != a.Region {
		return region{}, engine.Errorf(engine.KindNotFound, "Region %s not found", in.ID)
	}
	return a.theRegion(), nil
}
