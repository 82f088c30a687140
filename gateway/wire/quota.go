package wire

import "github.com/atoll-sh/atoll/engine"

// Quota is the body that sets an organization's quota. Null and absent fields
// do not bound.
type Quota struct {
	MaxCPUPerSandbox                   *float64 `json:"maxCpuPerSandbox" required:"false"`
	MaxMemoryPerSandbox                *float64 `json:"maxMemoryPerSandbox" required:"false"`
	MaxDiskPerSandbox                  *float64 `json:"maxDiskPerSandbox" required:"false"`
	SnapshotQuota                      *float64 `json:"snapshotQuota" required:"false"`
	MaxSnapshotSize                    *float64 `json:"maxSnapshotSize" required:"false"`
	VolumeQuota                        *float64 `json:"volumeQuota" required:"false"`
	SecretQuota                        *float64 `json:"secretQuota" required:"false"`
	MaxSecretsPerSandbox               *float64 `json:"maxSecretsPerSandbox" required:"false"`
	AuthenticatedRateLimit             *float64 `json:"authenticatedRateLimit" required:"false"`
	SandboxCreateRateLimit             *float64 `json:"sandboxCreateRateLimit" required:"false"`
	SandboxLifecycleRateLimit          *float64 `json:"sandboxLifecycleRateLimit" required:"false"`
	AuthenticatedRateLimitTTLSeconds   *float64 `json:"authenticatedRateLimitTtlSeconds" required:"false"`
	SandboxCreateRateLimitTTLSeconds   *float64 `json:"sandboxCreateRateLimitTtlSeconds" required:"false"`
	SandboxLifecycleRateLimitTTL       *float64 `json:"sandboxLifecycleRateLimitTtlSeconds" required:"false"`
	SnapshotDeactivationTimeoutMinutes *float64 `json:"snapshotDeactivationTimeoutMinutes" required:"false"`
	MaxConcurrentSnapshotProcessing    *float64 `json:"maxConcurrentSnapshotProcessing" required:"false"`
}

// Quota returns the engine's, whose fields are the same.
func (q Quota) Quota() engine.Quota { return engine.Quota(q) }

// RegionLimits is the body that sets a quota for one class in a region. Null
// and absent fields do not bound.
type RegionLimits struct {
	SandboxClass                  string   `json:"sandboxClass,omitempty" enum:"linux-vm,container,android,windows,gvisor" doc:"container when absent"`
	TotalCPU                      *float64 `json:"totalCpuQuota" required:"false"`
	TotalMemory                   *float64 `json:"totalMemoryQuota" required:"false" doc:"GiB"`
	TotalDisk                     *float64 `json:"totalDiskQuota" required:"false" doc:"GiB"`
	TotalGPU                      *float64 `json:"totalGpuQuota" required:"false"`
	AllowedGPUTypes               []string `json:"allowedGpuTypes,omitempty" nullable:"true"`
	MaxCPUPerSandbox              *float64 `json:"maxCpuPerSandbox" required:"false"`
	MaxMemoryPerSandbox           *float64 `json:"maxMemoryPerSandbox" required:"false" doc:"GiB"`
	MaxDiskPerSandbox             *float64 `json:"maxDiskPerSandbox" required:"false" doc:"GiB"`
	MaxDiskPerNonEphemeralSandbox *float64 `json:"maxDiskPerNonEphemeralSandbox" required:"false" doc:"GiB"`
	MaxCPUPerGPU                  *float64 `json:"maxCpuPerGpu" required:"false"`
	MaxMemoryPerGPU               *float64 `json:"maxMemoryPerGpu" required:"false" doc:"GiB"`
	MaxDiskPerGPU                 *float64 `json:"maxDiskPerGpu" required:"false" doc:"GiB"`
	MaxSandboxLifespan            *float64 `json:"maxSandboxLifespan" required:"false"`
}

// Quota returns the engine's quota for an organization and region.
func (l RegionLimits) Quota(organizationID, region string) engine.RegionQuota {
	class := engine.Class(l.SandboxClass)
	if class == "" {
		class = engine.ClassContainer
	}
	return engine.RegionQuota{OrganizationID: organizationID, Region: region, Class: class, Limits: engine.RegionLimits{
		TotalCPU: l.TotalCPU, TotalMemory: l.TotalMemory, TotalDisk: l.TotalDisk, TotalGPU: l.TotalGPU, AllowedGPUTypes: l.AllowedGPUTypes,
		MaxCPUPerSandbox: l.MaxCPUPerSandbox, MaxMemoryPerSandbox: l.MaxMemoryPerSandbox, MaxDiskPerSandbox: l.MaxDiskPerSandbox,
		MaxDiskPerNonEphemeralSandbox: l.MaxDiskPerNonEphemeralSandbox, MaxCPUPerGPU: l.MaxCPUPerGPU, MaxMemoryPerGPU: l.MaxMemoryPerGPU,
		MaxDiskPerGPU: l.MaxDiskPerGPU, MaxSandboxLifespan: l.MaxSandboxLifespan,
	}}
}

// Limits is what is allowed in one region with one class, in answers. A total
// of -1 is no limit.
type Limits struct {
	RegionID                      string   `json:"regionId"`
	SandboxClass                  string   `json:"sandboxClass"`
	TotalCPU                      float64  `json:"totalCpuQuota"`
	TotalMemory                   float64  `json:"totalMemoryQuota" doc:"GiB"`
	TotalDisk                     float64  `json:"totalDiskQuota" doc:"GiB"`
	TotalGPU                      float64  `json:"totalGpuQuota"`
	AllowedGPUTypes               []string `json:"allowedGpuTypes"`
	MaxCPUPerSandbox              *float64 `json:"maxCpuPerSandbox"`
	MaxMemoryPerSandbox           *float64 `json:"maxMemoryPerSandbox" doc:"GiB"`
	MaxDiskPerSandbox             *float64 `json:"maxDiskPerSandbox" doc:"GiB"`
	MaxDiskPerNonEphemeralSandbox *float64 `json:"maxDiskPerNonEphemeralSandbox" doc:"GiB"`
	MaxCPUPerGPU                  *float64 `json:"maxCpuPerGpu"`
	MaxMemoryPerGPU               *float64 `json:"maxMemoryPerGpu" doc:"GiB"`
	MaxDiskPerGPU                 *float64 `json:"maxDiskPerGpu" doc:"GiB"`
}

func fromLimits(q engine.RegionQuota) Limits {
	l := q.Limits
	return Limits{
		RegionID: q.Region, SandboxClass: string(q.Class), TotalCPU: Unbounded(l.TotalCPU), TotalMemory: Unbounded(l.TotalMemory),
		TotalDisk: Unbounded(l.TotalDisk), TotalGPU: Unbounded(l.TotalGPU), AllowedGPUTypes: filledList(l.AllowedGPUTypes),
		MaxCPUPerSandbox: l.MaxCPUPerSandbox, MaxMemoryPerSandbox: l.MaxMemoryPerSandbox, MaxDiskPerSandbox: l.MaxDiskPerSandbox,
		MaxDiskPerNonEphemeralSandbox: l.MaxDiskPerNonEphemeralSandbox,
		MaxCPUPerGPU:                  l.MaxCPUPerGPU, MaxMemoryPerGPU: l.MaxMemoryPerGPU, MaxDiskPerGPU: l.MaxDiskPerGPU,
	}
}

// RegionQuota is the quota of one organization, region and class.
type RegionQuota struct {
	OrganizationID string `json:"organizationId"`
	Limits
	MaxSandboxLifespan *float64 `json:"maxSandboxLifespan"`
}

// FromRegionQuota makes the body for q.
func FromRegionQuota(q engine.RegionQuota) RegionQuota {
	return RegionQuota{OrganizationID: q.OrganizationID, Limits: fromLimits(q), MaxSandboxLifespan: q.Limits.MaxSandboxLifespan}
}

// Usage is what an organization uses of what it may. Totals of -1 are no limit.
type Usage struct {
	RegionUsage          []RegionUsage `json:"regionUsage"`
	TotalSnapshotQuota   float64       `json:"totalSnapshotQuota"`
	CurrentSnapshotUsage float64       `json:"currentSnapshotUsage"`
	TotalVolumeQuota     float64       `json:"totalVolumeQuota"`
	CurrentVolumeUsage   float64       `json:"currentVolumeUsage"`
}

// RegionUsage is what an organization uses in one region with one class.
type RegionUsage struct {
	Limits
	CurrentCPU    float64 `json:"currentCpuUsage"`
	CurrentMemory float64 `json:"currentMemoryUsage" doc:"GiB"`
	CurrentDisk   float64 `json:"currentDiskUsage" doc:"GiB"`
	CurrentGPU    float64 `json:"currentGpuUsage"`
}

// FromUsage makes the body for u.
func FromUsage(u engine.Usage) Usage {
	out := Usage{
		RegionUsage: []RegionUsage{}, TotalSnapshotQuota: Unbounded(u.Quota.SnapshotQuota), CurrentSnapshotUsage: float64(u.Snapshots),
		TotalVolumeQuota: Unbounded(u.Quota.VolumeQuota), CurrentVolumeUsage: float64(u.Volumes),
	}
	for _, r := range u.Regions {
		out.RegionUsage = append(out.RegionUsage, RegionUsage{
			Limits: fromLimits(r.RegionQuota), CurrentCPU: r.CPU, CurrentMemory: GiB(r.MemoryMiB), CurrentDisk: GiB(r.DiskMiB), CurrentGPU: float64(r.GPU),
		})
	}
	return out
}

// Usage is the reverse of FromUsage.
func (d Usage) Usage(organizationID string) engine.Usage {
	u := engine.Usage{
		Snapshots: int(d.CurrentSnapshotUsage), Volumes: int(d.CurrentVolumeUsage),
		Quota: engine.Quota{SnapshotQuota: Bound(d.TotalSnapshotQuota), VolumeQuota: Bound(d.TotalVolumeQuota)},
	}
	for _, r := range d.RegionUsage {
		l := r.Limits
		u.Regions = append(u.Regions, engine.RegionUsage{
			RegionQuota: engine.RegionQuota{OrganizationID: organizationID, Region: l.RegionID, Class: engine.Class(l.SandboxClass), Limits: engine.RegionLimits{
				TotalCPU: Bound(l.TotalCPU), TotalMemory: Bound(l.TotalMemory), TotalDisk: Bound(l.TotalDisk), TotalGPU: Bound(l.TotalGPU),
				AllowedGPUTypes: l.AllowedGPUTypes, MaxCPUPerSandbox: l.MaxCPUPerSandbox, MaxMemoryPerSandbox: l.MaxMemoryPerSandbox,
				MaxDiskPerSandbox: l.MaxDiskPerSandbox, MaxDiskPerNonEphemeralSandbox: l.MaxDiskPerNonEphemeralSandbox,
				MaxCPUPerGPU: l.MaxCPUPerGPU, MaxMemoryPerGPU: l.MaxMemoryPerGPU, MaxDiskPerGPU: l.MaxDiskPerGPU,
			}},
			CPU: r.CurrentCPU, MemoryMiB: MiB(r.CurrentMemory), DiskMiB: MiB(r.CurrentDisk), GPU: int(r.CurrentGPU),
		})
	}
	return u
}
