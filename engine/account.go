package engine

import (
	"context"
	"time"
)

// User is a person or program that holds keys. Users have no other login.
type User struct {
	ID            string
	Name          string
	Email         string // unique unless empty
	EmailVerified bool
	Admin         bool
	CreatedAt     time.Time
}

// CreateUser asks for a user with an organization of their own and an
// unrestricted key in it.
type CreateUser struct {
	ID            string // a UUID; empty: a new one
	Name, Email   string
	EmailVerified bool
	Admin         bool
	Region        string // of the organization; empty: the server's
	Quota         Quota  // of the organization
	RegionQuota   *RegionLimits
}

// NewUser is what came of CreateUser. The secret cannot be read again.
type NewUser struct {
	User         User
	Organization Organization
	Secret       string
}

// Organization owns sandboxes, snapshots and keys.
type Organization struct {
	ID             string
	Name           string
	CreatedBy      string // id of a user
	Personal       bool
	DefaultRegion  string // empty: the server's
	LimitedEgress  bool   // stored for policies; the default of new sandboxes
	PreviewWarning bool   // stored for previews
	Suspension     *Suspension
	Quota          Quota
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Suspension keeps an organization from making and starting sandboxes.
type Suspension struct {
	Reason            string    `json:"reason"`
	At                time.Time `json:"at"`
	Until             time.Time `json:"until"` // zero: until it is lifted
	CleanupGraceHours float64   `json:"cleanupGraceHours"`
}

// Suspended tells whether the organization is suspended at the time.
func (o Organization) Suspended(now time.Time) bool {
	return o.Suspension != nil && (o.Suspension.Until.IsZero() || now.Before(o.Suspension.Until))
}

// UpdateOrganization changes settings. Nil fields stay.
type UpdateOrganization struct {
	DefaultRegion  *string
	LimitedEgress  *bool
	PreviewWarning *bool
	Suspension     **Suspension // to nil: lifted
	Quota          *Quota
}

// Quota bounds what an organization uses. Nil fields do not bound. Memory and
// disk are in GiB.
type Quota struct {
	MaxCPUPerSandbox                   *float64 `json:"maxCpuPerSandbox"`
	MaxMemoryPerSandbox                *float64 `json:"maxMemoryPerSandbox"`
	MaxDiskPerSandbox                  *float64 `json:"maxDiskPerSandbox"`
	SnapshotQuota                      *float64 `json:"snapshotQuota"`
	MaxSnapshotSize                    *float64 `json:"maxSnapshotSize"`
	VolumeQuota                        *float64 `json:"volumeQuota"`
	SecretQuota                        *float64 `json:"secretQuota"`
	MaxSecretsPerSandbox               *float64 `json:"maxSecretsPerSandbox"`
	AuthenticatedRateLimit             *float64 `json:"authenticatedRateLimit"`
	SandboxCreateRateLimit             *float64 `json:"sandboxCreateRateLimit"`
	SandboxLifecycleRateLimit          *float64 `json:"sandboxLifecycleRateLimit"`
	AuthenticatedRateLimitTTLSeconds   *float64 `json:"authenticatedRateLimitTtlSeconds"`
	SandboxCreateRateLimitTTLSeconds   *float64 `json:"sandboxCreateRateLimitTtlSeconds"`
	SandboxLifecycleRateLimitTTL       *float64 `json:"sandboxLifecycleRateLimitTtlSeconds"`
	SnapshotDeactivationTimeoutMinutes *float64 `json:"snapshotDeactivationTimeoutMinutes"` // stored only
	MaxConcurrentSnapshotProcessing    *float64 `json:"maxConcurrentSnapshotProcessing"`    // stored only
}

// Rates returns the rate limits that the quota sets. Without a time a limit is
// for one minute.
func (q Quota) Rates() []RateLimit {
	var out []RateLimit
	add := func(name string, limit, seconds *float64) {
		if limit == nil {
			return
		}
		r := RateLimit{Name: name, Limit: int(*limit), Window: time.Minute}
		if seconds != nil && *seconds >= 1 {
			r.Window = time.Duration(*seconds) * time.Second
		}
		out = append(out, r)
	}
	add("authenticated", q.AuthenticatedRateLimit, q.AuthenticatedRateLimitTTLSeconds)
	add("sandbox-create", q.SandboxCreateRateLimit, q.SandboxCreateRateLimitTTLSeconds)
	add("sandbox-lifecycle", q.SandboxLifecycleRateLimit, q.SandboxLifecycleRateLimitTTL)
	return out
}

// RegionLimits bounds what an organization uses in one region with one class.
// Nil fields do not bound. Memory and disk are in GiB.
type RegionLimits struct {
	TotalCPU                      *float64 `json:"totalCpuQuota"`    // of started sandboxes
	TotalMemory                   *float64 `json:"totalMemoryQuota"` // of started sandboxes
	TotalDisk                     *float64 `json:"totalDiskQuota"`
	TotalGPU                      *float64 `json:"totalGpuQuota"` // of started sandboxes
	AllowedGPUTypes               []string `json:"allowedGpuTypes"`
	MaxCPUPerSandbox              *float64 `json:"maxCpuPerSandbox"`
	MaxMemoryPerSandbox           *float64 `json:"maxMemoryPerSandbox"`
	MaxDiskPerSandbox             *float64 `json:"maxDiskPerSandbox"`
	MaxDiskPerNonEphemeralSandbox *float64 `json:"maxDiskPerNonEphemeralSandbox"`
	MaxCPUPerGPU                  *float64 `json:"maxCpuPerGpu"`
	MaxMemoryPerGPU               *float64 `json:"maxMemoryPerGpu"`
	MaxDiskPerGPU                 *float64 `json:"maxDiskPerGpu"`
	MaxSandboxLifespan            *float64 `json:"maxSandboxLifespan"` // stored only
}

// RegionQuota is the RegionLimits of one organization, region and class.
type RegionQuota struct {
	OrganizationID, Region string
	Class                  Class
	Limits                 RegionLimits
}

// Usage is what an organization uses.
type Usage struct {
	Regions            []RegionUsage // at least one
	Quota              Quota
	Snapshots, Volumes int
}

// RegionUsage is what an organization uses in one region with one class.
type RegionUsage struct {
	RegionQuota
	CPU       float64 // of sandboxes that are not stopped
	MemoryMiB int64   // of sandboxes that are not stopped
	DiskMiB   int64
	GPU       int
}

// Users is who holds keys. Only administrators may call it, but for User with
// the caller's own id.
type Users interface {
	User(ctx context.Context, p Principal, id string) (User, error)
	CreateUser(ctx context.Context, p Principal, req CreateUser) (NewUser, error)
	Users(ctx context.Context, p Principal) ([]User, error)
}

// Organizations is the life of organizations. A user sees those that they are
// a member of, with an unrestricted key all and else that of the key, and
// administrators see all. Changes are the owners', except of suspensions and
// quotas, which are the administrators'.
type Organizations interface {
	CreateOrganization(ctx context.Context, p Principal, name, region, owner string) (Organization, error)
	Organizations(ctx context.Context, p Principal) ([]Organization, error)
	Organization(ctx context.Context, p Principal, id string) (Organization, error)
	UpdateOrganization(ctx context.Context, p Principal, id string, u UpdateOrganization) error
	DeleteOrganization(ctx context.Context, p Principal, id string) error
	Usage(ctx context.Context, p Principal, id string) (Usage, error)
}

// RegionQuotas is what administrators allow organizations region by region.
// KindNotFound tells that there is no such quota.
type RegionQuotas interface {
	RegionQuota(ctx context.Context, p Principal, organizationID, region string, class Class) (RegionQuota, error)
	// PutRegionQuota makes or replaces one. With create, one that exists is a conflict.
	PutRegionQuota(ctx context.Context, p Principal, q RegionQuota, create bool) error
	DeleteRegionQuota(ctx context.Context, p Principal, organizationID, region string, class Class) error
}
