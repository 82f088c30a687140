package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerServices() {
	a.registerSecrets()
	a.registerRegistries()
	a.registerCatalog()
	a.registerWarmPools()
	a.registerTelemetry()
	a.registerWebhooks()
	a.registerPolicies()
}

// offered answers for a service that this server does not have.
func (a *API) offered(o Operation, next http.Handler) http.Handler {
	if a.serves(o.Path) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire.WriteError(w, r, wire.NotBuilt(o.Method+" "+o.Path).WithHint("this server does not offer it"))
	})
}

func (a *API) serves(path string) bool {
	s := a.Services
	switch {
	case strings.HasPrefix(path, "/secret"), strings.HasSuffix(path, "/secrets"):
		return s.Secrets != nil
	case strings.HasPrefix(path, "/access-requests"):
		return s.Access != nil
	case strings.HasSuffix(path, "/learn"):
		return s.Learner != nil
	case strings.HasPrefix(path, "/docker-registry"):
		return s.Registries != nil
	case strings.HasSuffix(path, "activate"), strings.HasPrefix(path, "/admin/snapshots"):
		return s.Catalog != nil
	case strings.HasPrefix(path, "/warm-pools"):
		return s.WarmPools != nil
	case strings.Contains(path, "/telemetry/"):
		return s.History != nil
	case strings.HasPrefix(path, "/policies"), strings.Contains(path, "}/policy"):
		return s.Policies != nil
	case strings.Contains(path, "/webhooks/"):
		return s.Webhooks != nil && s.Messages != nil
	}
	return true
}

// ownOrganization lets keys name their own organization, by id or as
// "current"; administrators may name any.
func ownOrganization(ctx context.Context, id string) (string, error) {
	p, _ := auth.From(ctx)
	switch {
	case id == "current" || id == p.OrganizationID:
		return p.OrganizationID, nil
	case p.Admin:
		return id, nil
	}
	return "", engine.Errorf(engine.KindNotFound, "Organization with ID %s not found", id)
}

// ownedOrganization is ownOrganization for what only owners may do.
func ownedOrganization(ctx context.Context, id string) (string, error) {
	org, err := ownOrganization(ctx, id)
	if p, _ := auth.From(ctx); err == nil && !p.Admin && p.Role != engine.RoleOwner {
		return "", engine.Errorf(engine.KindDenied, "only owners of the organization may do this").WithHint("ask one of them")
	}
	return org, err
}
