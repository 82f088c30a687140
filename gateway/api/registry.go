package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type registry struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	URL          string `json:"url"`
	Username     string `json:"username"`
	Project      string `json:"project"`
	RegistryType string `json:"registryType"`
	CreatedAt    string `json:"createdAt"`
	UpdatedAt    string `json:"updatedAt"`
}

func fromRegistry(r engine.Registry) registry {
	return registry{
		ID: r.ID, Name: r.Name, URL: r.URL, Username: r.Username, Project: r.Project, RegistryType: "organization",
		CreatedAt: wire.Time(r.CreatedAt), UpdatedAt: wire.Time(r.UpdatedAt),
	}
}

func (a *API) registerRegistries() {
	handleCreated(a, "POST", "/docker-registry", "Keep an account at a registry of images", a.createRegistry)
	handle(a, "GET", "/docker-registry", "List registries", a.registries)
	handle(a, "GET", "/docker-registry/{id}", "One registry, without its password", a.registry)
	handle(a, "PATCH", "/docker-registry/{id}", "Change a registry", a.updateRegistry)
	handleEmpty(a, "DELETE", "/docker-registry/{id}", "Forget a registry; images stay", http.StatusNoContent, a.deleteRegistry)
}

type createRegistryInput struct {
	Body struct {
		Name     string `json:"name"`
		URL      string `json:"url" doc:"its host decides which images the account is for"`
		Username string `json:"username"`
		Password string `json:"password"`
		Project  string `json:"project,omitempty" doc:"when set, only images below host/project use the account"`
	}
}

func (a *API) createRegistry(ctx context.Context, in *createRegistryInput) (registry, error) {
	b := in.Body
	r, err := a.Services.Registries.Create(ctx, engine.PutRegistry{
		OrganizationID: auth.Organization(ctx), Name: b.Name, URL: b.URL, Username: b.Username, Password: b.Password, Project: b.Project,
	})
	return fromRegistry(r), err
}

func (a *API) registries(ctx context.Context, _ *struct{}) ([]registry, error) {
	list, err := a.Services.Registries.List(ctx, auth.Organization(ctx))
	out := make([]registry, len(list))
	for i, r := range list {
		out[i] = fromRegistry(r)
	}
	return out, err
}

func (a *API) registry(ctx context.Context, in *byID) (registry, error) {
	r, err := a.Services.Registries.Registry(ctx, auth.Organization(ctx), in.ID)
	return fromRegistry(r), err
}

type updateRegistryInput struct {
	ID   string `path:"id"`
	Body struct {
		Name     string `json:"name"`
		URL      string `json:"url"`
		Username string `json:"username"`
		Password string `json:"password,omitempty" doc:"absent: as it is; needed when the url names another host"`
		Project  string `json:"project,omitempty"`
	}
}

func (a *API) updateRegistry(ctx context.Context, in *updateRegistryInput) (registry, error) {
	b := in.Body
	r, err := a.Services.Registries.Update(ctx, in.ID, engine.PutRegistry{
		OrganizationID: auth.Organization(ctx), Name: b.Name, URL: b.URL, Username: b.Username, Password: b.Password, Project: b.Project,
	})
	return fromRegistry(r), err
}

func (a *API) deleteRegistry(ctx context.Context, in *byID) error {
	return a.Services.Registries.Delete(ctx, auth.Organization(ctx), in.ID)
}
