package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerQuotas() {
	handle(a, "GET", "/organizations/{organizationId}/usage", "What an organization uses of what it may", a.usage)
	handleEmpty(a, "PATCH", "/organizations/{organizationId}/quota", "Set an organization's quota", http.StatusNoContent, a.setQuota)
	handleEmpty(a, "PATCH", "/organizations/{organizationId}/quota/{regionId}", "Set the quota of a class in a region", http.StatusNoContent, a.setRegionQuota)
	handle(a, "GET", "/sandbox/{sandboxId}/region-quota", "The quota that a sandbox counts towards", a.sandboxQuota)
	handleCreated(a, "POST", "/admin/organizations/{organizationId}/quota/{regionId}", "Make the quota of a class in a region", a.createRegionQuota)
	handleEmpty(a, "PATCH", "/admin/organizations/{organizationId}/quota/{regionId}", "Change the quota of a class in a region", http.StatusNoContent, a.setRegionQuota)
	handle(a, "GET", "/admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}", "The quota of a class in a region", a.regionQuota)
	handleEmpty(a, "DELETE", "/admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}", "Lift the quota of a class in a region", http.StatusNoContent, a.deleteRegionQuota)
}

func (a *API) usage(ctx context.Context, in *OrganizationPath) (wire.Usage, error) {
	u, err := a.Accounts.Organizations.Usage(ctx, caller(ctx), in.Organization)
	return wire.FromUsage(u), err
}

type quotaInput struct {
	OrganizationPath
	Body wire.Quota
}

func (a *API) setQuota(ctx context.Context, in *quotaInput) error {
	q := in.Body.Quota()
	return a.updateOrganization(ctx, in.Organization, engine.UpdateOrganization{Quota: &q})
}

// RegionPath names a region of an organization.
type RegionPath struct {
	OrganizationPath
	Region string `path:"regionId" maxLength:"255"`
}

type regionQuotaInput struct {
	RegionPath
	Body wire.RegionLimits
}

func (a *API) setRegionQuota(ctx context.Context, in *regionQuotaInput) error {
	return a.Accounts.RegionQuotas.PutRegionQuota(ctx, caller(ctx), in.Body.Quota(in.Organization, in.Region), false)
}

func (a *API) createRegionQuota(ctx context.Context, in *regionQuotaInput) (wire.RegionQuota, error) {
	q := in.Body.Quota(in.Organization, in.Region)
	err := a.Accounts.RegionQuotas.PutRegionQuota(ctx, caller(ctx), q, true)
	return wire.FromRegionQuota(q), err
}

// ClassPath names a class in a region of an organization.
type ClassPath struct {
	RegionPath
	Class string `path:"sandboxClass" enum:"linux-vm,container,android,windows,gvisor"`
}

func (a *API) regionQuota(ctx context.Context, in *ClassPath) (wire.RegionQuota, error) {
	q, err := a.Accounts.RegionQuotas.RegionQuota(ctx, caller(ctx), in.Organization, in.Region, engine.Class(in.Class))
	return wire.FromRegionQuota(q), err
}

func (a *API) deleteRegionQuota(ctx context.Context, in *ClassPath) error {
	return a.Accounts.RegionQuotas.DeleteRegionQuota(ctx, caller(ctx), in.Organization, in.Region, engine.Class(in.Class))
}

// sandboxQuota shows what bounds the sandbox; -1 and null are no limit.
func (a *API) sandboxQuota(ctx context.Context, in *SandboxID) (wire.RegionQuota, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.ID))
	if err != nil {
		return wire.RegionQuota{}, err
	}
	u, err := a.Accounts.Organizations.Usage(ctx, caller(ctx), s.OrganizationID)
	if err != nil {
		return wire.RegionQuota{}, err
	}
	for _, r := range u.Regions {
		if r.Class == s.Class {
			return wire.FromRegionQuota(r.RegionQuota), nil
		}
	}
	return wire.FromRegionQuota(engine.RegionQuota{OrganizationID: s.OrganizationID, Region: a.Region, Class: s.Class}), nil
}
