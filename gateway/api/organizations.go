package api

import (
	"context"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// OrganizationPath names the organization of a request. It is exported because
// huma looks only into exported embedded types.
type OrganizationPath struct {
	Organization string `path:"organizationId" maxLength:"255"`
}

func (a *API) registerOrganizations() {
	handleCreated(a, "POST", "/organizations", "Make an organization", a.createOrganization)
	handle(a, "GET", "/organizations", "The organizations that this key reaches", a.organizations)
	handle(a, "GET", "/organizations/{organizationId}", "One organization", a.organization)
	handleEmpty(a, "DELETE", "/organizations/{organizationId}", "Delete an organization without sandboxes and snapshots", http.StatusNoContent, a.deleteOrganization)
	handleEmpty(a, "PATCH", "/organizations/{organizationId}/default-region", "Set the region of new sandboxes", http.StatusNoContent, a.setDefaultRegion)
	handleEmpty(a, "POST", "/organizations/{organizationId}/preview-warning", "Set whether previews warn", http.StatusNoContent, a.setPreviewWarning)
	handleEmpty(a, "POST", "/organizations/{organizationId}/sandbox-default-limited-network-egress", "Set whether new sandboxes have limited egress", http.StatusNoContent, a.setLimitedEgress)
	handleEmpty(a, "POST", "/organizations/{organizationId}/suspend", "Refuse creates and starts", http.StatusNoContent, a.suspend)
	handleEmpty(a, "POST", "/organizations/{organizationId}/unsuspend", "Allow creates and starts again", http.StatusNoContent, a.unsuspend)
	handle(a, "GET", "/organizations/{organizationId}/available-sandbox-classes", "The classes that sandboxes can have", a.classes)
	handle(a, "GET", "/sandbox/{sandboxId}/organization", "A sandbox's organization", a.sandboxOrganization)
	handleCreated(a, "POST", "/admin/organizations", "Make an organization of a user", a.adminCreateOrganization)
	handleEmpty(a, "POST", "/admin/organizations/{organizationId}/preview-warning", "Set whether previews warn", http.StatusNoContent, a.setPreviewWarning)
}

func (a *API) describe(o engine.Organization) wire.Organization {
	return wire.FromOrganization(o, a.Region, time.Now())
}

type createOrganizationInput struct {
	Body struct {
		Name   string `json:"name" minLength:"1" maxLength:"128"`
		Region string `json:"defaultRegionId,omitempty" doc:"the server's when absent"`
	}
}

func (a *API) createOrganization(ctx context.Context, in *createOrganizationInput) (wire.Organization, error) {
	o, err := a.Accounts.Organizations.CreateOrganization(ctx, caller(ctx), in.Body.Name, in.Body.Region, "")
	return a.describe(o), err
}

type adminCreateOrganizationInput struct {
	Body struct {
		UserID string `json:"userId" minLength:"1"`
		Name   string `json:"name" minLength:"1" maxLength:"128"`
		Region string `json:"defaultRegionId,omitempty" doc:"the server's when absent"`
	}
}

func (a *API) adminCreateOrganization(ctx context.Context, in *adminCreateOrganizationInput) (wire.Organization, error) {
	o, err := a.Accounts.Organizations.CreateOrganization(ctx, caller(ctx), in.Body.Name, in.Body.Region, in.Body.UserID)
	return a.describe(o), err
}

func (a *API) organizations(ctx context.Context, _ *struct{}) ([]wire.Organization, error) {
	all, err := a.Accounts.Organizations.Organizations(ctx, caller(ctx))
	return each(all, a.describe), err
}

func (a *API) organization(ctx context.Context, in *OrganizationPath) (wire.Organization, error) {
	o, err := a.Accounts.Organizations.Organization(ctx, caller(ctx), in.Organization)
	return a.describe(o), err
}

// sandboxOrganization is answered to whoever sees the sandbox.
func (a *API) sandboxOrganization(ctx context.Context, in *SandboxID) (wire.Organization, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.ID))
	if err != nil {
		return wire.Organization{}, err
	}
	return a.organization(ctx, &OrganizationPath{s.OrganizationID})
}

func (a *API) deleteOrganization(ctx context.Context, in *OrganizationPath) error {
	return a.Accounts.Organizations.DeleteOrganization(ctx, caller(ctx), in.Organization)
}

func (a *API) updateOrganization(ctx context.Context, id string, u engine.UpdateOrganization) error {
	return a.Accounts.Organizations.UpdateOrganization(ctx, caller(ctx), id, u)
}

type defaultRegionInput struct {
	OrganizationPath
	Body struct {
		Region string `json:"defaultRegionId" minLength:"1"`
	}
}

func (a *API) setDefaultRegion(ctx context.Context, in *defaultRegionInput) error {
	return a.updateOrganization(ctx, in.Organization, engine.UpdateOrganization{DefaultRegion: &in.Body.Region})
}

type previewWarningInput struct {
	OrganizationPath
	Body struct {
		Enabled bool `json:"previewWarningEnabled"`
	}
}

func (a *API) setPreviewWarning(ctx context.Context, in *previewWarningInput) error {
	return a.updateOrganization(ctx, in.Organization, engine.UpdateOrganization{PreviewWarning: &in.Body.Enabled})
}

type limitedEgressInput struct {
	OrganizationPath
	Body struct {
		Limited bool `json:"sandboxDefaultLimitedNetworkEgress"`
	}
}

func (a *API) setLimitedEgress(ctx context.Context, in *limitedEgressInput) error {
	return a.updateOrganization(ctx, in.Organization, engine.UpdateOrganization{LimitedEgress: &in.Body.Limited})
}

type suspendInput struct {
	OrganizationPath
	Body struct {
		Reason     string     `json:"reason" minLength:"1" maxLength:"1024"`
		Until      *time.Time `json:"until,omitempty" nullable:"true" doc:"until it is lifted, when absent"`
		GraceHours float64    `json:"suspensionCleanupGracePeriodHours,omitempty" minimum:"0"`
	}
}

func (a *API) suspend(ctx context.Context, in *suspendInput) error {
	s := &engine.Suspension{Reason: in.Body.Reason, CleanupGraceHours: in.Body.GraceHours}
	if in.Body.Until != nil {
		s.Until = in.Body.Until.UTC()
	}
	return a.updateOrganization(ctx, in.Organization, engine.UpdateOrganization{Suspension: &s})
}

func (a *API) unsuspend(ctx context.Context, in *OrganizationPath) error {
	var none *engine.Suspension
	return a.updateOrganization(ctx, in.Organization, engine.UpdateOrganization{Suspension: &none})
}

type sandboxClass struct {
	RegionID        string   `json:"regionId"`
	SandboxClass    string   `json:"sandboxClass"`
	GPUAvailable    bool     `json:"gpuAvailable"`
	AllowedGPUTypes []string `json:"allowedGpuTypes"`
}

func (a *API) classes(ctx context.Context, in *OrganizationPath) ([]sandboxClass, error) {
	if _, err := a.Accounts.Organizations.Organization(ctx, caller(ctx), in.Organization); err != nil {
		return nil, err
	}
	return []sandboxClass{{RegionID: a.Region, SandboxClass: string(engine.ClassContainer), AllowedGPUTypes: []string{}}}, nil
}
