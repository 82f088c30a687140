package api

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func bytesReader(b []byte) io.ReadSeeker { return bytes.NewReader(b) }

type apiKey struct {
	Name        string   `json:"name"`
	Value       string   `json:"value" doc:"masked"`
	CreatedAt   string   `json:"createdAt"`
	Permissions []string `json:"permissions" doc:"empty: all"`
	LastUsedAt  *string  `json:"lastUsedAt"`
	ExpiresAt   *string  `json:"expiresAt"`
	UserID      string   `json:"userId"`
}

type user struct {
	ID            string      `json:"id"`
	Name          string      `json:"name"`
	Email         string      `json:"email"`
	EmailVerified bool        `json:"emailVerified"`
	PublicKeys    []publicKey `json:"publicKeys"`
	CreatedAt     string      `json:"createdAt"`
}

type publicKey struct {
	Key  string `json:"key"`
	Name string `json:"name"`
}

type organization struct {
	ID                                 string            `json:"id"`
	Name                               string            `json:"name"`
	CreatedBy                          string            `json:"createdBy"`
	Personal                           bool              `json:"personal"`
	CreatedAt                          string            `json:"createdAt"`
	UpdatedAt                          string            `json:"updatedAt"`
	Suspended                          bool              `json:"suspended"`
	SuspendedAt                        string            `json:"suspendedAt"`
	SuspensionReason                   string            `json:"suspensionReason"`
	SuspendedUntil                     string            `json:"suspendedUntil"`
	SuspensionCleanupGracePeriodHours  float64           `json:"suspensionCleanupGracePeriodHours"`
	MaxCPUPerSandbox                   float64           `json:"maxCpuPerSandbox"`
	MaxMemoryPerSandbox                float64           `json:"maxMemoryPerSandbox"`
	MaxDiskPerSandbox                  float64           `json:"maxDiskPerSandbox"`
	SecretQuota                        float64           `json:"secretQuota"`
	MaxSecretsPerSandbox               float64           `json:"maxSecretsPerSandbox"`
	SnapshotDeactivationTimeoutMinutes float64           `json:"snapshotDeactivationTimeoutMinutes"`
	SandboxLimitedNetworkEgress        bool              `json:"sandboxLimitedNetworkEgress"`
	PreviewWarningEnabled              bool              `json:"previewWarningEnabled"`
	SSOEnabled                         bool              `json:"ssoEnabled"`
	DefaultRegionID                    string            `json:"defaultRegionId"`
	AuthenticatedRateLimit             *float64          `json:"authenticatedRateLimit"`
	SandboxCreateRateLimit             *float64          `json:"sandboxCreateRateLimit"`
	SandboxLifecycleRateLimit          *float64          `json:"sandboxLifecycleRateLimit"`
	ExperimentalConfig                 map[string]string `json:"experimentalConfig"`
	OtelConfig                         *string           `json:"otelConfig"`
	AuthenticatedRateLimitTTL          *float64          `json:"authenticatedRateLimitTtlSeconds"`
	SandboxCreateRateLimitTTL          *float64          `json:"sandboxCreateRateLimitTtlSeconds"`
	SandboxLifecycleRateLimitTTL       *float64          `json:"sandboxLifecycleRateLimitTtlSeconds"`
}

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
	handle(a, "GET", "/api-keys/current", "The key of this request", a.currentKey)
	handle(a, "GET", "/users/me", "The user of this request", a.me)
	handle(a, "GET", "/organizations", "The organizations of this request's user", a.organizations)
	handle(a, "GET", "/organizations/{organizationId}", "One organization", a.organization)
	handle(a, "GET", "/sandbox/{sandboxId}/organization", "A sandbox's organization", a.sandboxOrganization)
	handle(a, "GET", "/shared-regions", "The regions that everybody may use", a.regions)
	handle(a, "GET", "/regions", "The regions", a.regions)
	handle(a, "GET", "/regions/{id}", "One region", a.region)
}

// epoch stands for times that are not recorded but that the contract wants.
var epoch = wire.Time(time.Unix(0, 0))

func (a *API) currentKey(ctx context.Context, _ *struct{}) (apiKey, error) {
	p, _ := auth.From(ctx)
	permissions := p.Permissions
	if permissions == nil {
		permissions = []string{}
	}
	return apiKey{Name: p.KeyName, Value: "********", CreatedAt: epoch, Permissions: permissions, UserID: userID(p)}, nil
}

// userID: there are no users beside keys yet, so a key's id stands for one.
func userID(p engine.Principal) string { return p.KeyID }

func (a *API) me(ctx context.Context, _ *struct{}) (user, error) {
	p, _ := auth.From(ctx)
	return user{
		ID: userID(p), Name: p.KeyName, Email: p.KeyName + "@localhost",
		PublicKeys: []publicKey{}, CreatedAt: epoch,
	}, nil
}

func (a *API) organizations(ctx context.Context, _ *struct{}) ([]organization, error) {
	p, _ := auth.From(ctx)
	return []organization{a.describe(p.OrganizationID, userID(p))}, nil
}

type organizationInput struct {
	ID string `path:"organizationId"`
}

func (a *API) organization(ctx context.Context, in *organizationInput) (organization, error) {
	p, _ := auth.From(ctx)
	if in.ID != p.OrganizationID {
		return organization{}, engine.Errorf(engine.KindNotFound, "Organization with ID %s not found", in.ID)
	}
	return a.describe(in.ID, userID(p)), nil
}

func (a *API) sandboxOrganization(ctx context.Context, in *SandboxID) (organization, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.ID))
	if err != nil {
		return organization{}, err
	}
	p, _ := auth.From(ctx)
	return a.describe(s.OrganizationID, userID(p)), nil
}

// describe tells of an organization; limits of 0 mean that there is none.
func (a *API) describe(id, owner string) organization {
	name := id
	if id == engine.DefaultOrganization {
		name = "default"
	}
	return organization{
		ID: id, Name: name, CreatedBy: owner, Personal: true, CreatedAt: epoch, UpdatedAt: epoch,
		SuspendedAt: epoch, SuspendedUntil: epoch, SnapshotDeactivationTimeoutMinutes: 20160,
		DefaultRegionID: a.Region, ExperimentalConfig: map[string]string{},
	}
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
