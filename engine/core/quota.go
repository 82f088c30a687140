package core

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// standing is what an organization may use. The zero value, which also stands
// for one that is not recorded, is not bounded.
type standing struct {
	engine.Organization
	regions []engine.RegionQuota
}

// standings remembers them, since every create and every key asks.
type standings struct {
	mu  sync.Mutex
	gen uint64 // counts forgets, so that an answer read before one is not kept
	m   map[string]cachedStanding
}

type cachedStanding struct {
	s  standing
	at time.Time
}

func newStandings() *standings { return &standings{m: map[string]cachedStanding{}} }

func (c *standings) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	clear(c.m)
}

func (c *standings) look(id string, now time.Time) (standing, uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.m[id]
	return got.s, c.gen, ok && now.Sub(got.at) < keyTTL
}

func (c *standings) keep(id string, gen uint64, s standing, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen {
		return
	}
	if len(c.m) >= maxCached {
		clear(c.m)
	}
	c.m[id] = cachedStanding{s, now}
}

func (c *Core) standing(ctx context.Context, id string) (standing, error) {
	now := c.Now()
	s, gen, ok := c.standings.look(id, now)
	if ok {
		return s, nil
	}
	var err error
	s.Organization, err = c.Store.Organization(ctx, id)
	if err != nil && engine.KindOf(err) != engine.KindNotFound {
		return s, err
	}
	if s.regions, err = c.Store.RegionQuotas(ctx, id); err != nil {
		return s, err
	}
	c.standings.keep(id, gen, s, now)
	return s, nil
}

// active refuses what makes or starts something while the organization is
// suspended.
func (c *Core) active(ctx context.Context, id string) error {
	s, err := c.standing(ctx, id)
	if err != nil {
		return err
	}
	if !s.Suspended(c.Now()) {
		return nil
	}
	e := engine.Errorf(engine.KindDenied, "the organization is suspended: %s", s.Suspension.Reason)
	if until := s.Suspension.Until; !until.IsZero() {
		return e.WithHint("until %s", until.UTC().Format(time.RFC3339))
	}
	return e.WithHint("ask the server's administrator")
}

// within refuses a sandbox that would exceed a quota once it has the resources
// that want names. Until the caller calls end, nobody else of the organization
// gets an answer, so that two at once cannot both take the rest. Servers that
// share a database do not wait for one another.
func (c *Core) within(ctx context.Context, sb *store.Sandbox, want engine.Resources, runs bool) (end func(), err error) {
	if err := c.active(ctx, sb.OrganizationID); err != nil {
		return nil, err
	}
	s, err := c.standing(ctx, sb.OrganizationID)
	if err != nil {
		return nil, err
	}
	limits := s.limits(sb.Class)
	if err := single(limits, sb, want); err != nil {
		return nil, err
	}
	if limits.TotalCPU == nil && limits.TotalMemory == nil && limits.TotalDisk == nil && limits.TotalGPU == nil {
		return func() {}, nil
	}
	end, err = c.ops.keys.lock(ctx, "quota\x00"+sb.OrganizationID)
	if err != nil {
		return nil, err
	}
	if err := c.total(ctx, limits, sb, want, runs); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// limits returns those of the class. What both the organization and the region
// bound is bounded by the lower. The server is one region, whatever a caller
// calls it.
func (s standing) limits(class engine.Class) engine.RegionLimits {
	var l engine.RegionLimits
	if i := slices.IndexFunc(s.regions, func(q engine.RegionQuota) bool { return q.Class == class }); i >= 0 {
		l = s.regions[i].Limits
	}
	l.MaxCPUPerSandbox = lower(l.MaxCPUPerSandbox, s.Quota.MaxCPUPerSandbox)
	l.MaxMemoryPerSandbox = lower(l.MaxMemoryPerSandbox, s.Quota.MaxMemoryPerSandbox)
	l.MaxDiskPerSandbox = lower(l.MaxDiskPerSandbox, s.Quota.MaxDiskPerSandbox)
	return l
}

func lower(a, b *float64) *float64 {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}

const mibPerGiB = 1024

func gib(mib int64) float64 { return float64(mib) / mibPerGiB }

// single checks what bounds one sandbox.
func single(l engine.RegionLimits, sb *store.Sandbox, want engine.Resources) error {
	disk, gpu := gib(want.DiskMiB), float64(want.GPU)
	kept := 0.0
	if !sb.Lifecycle.Ephemeral() {
		kept = disk
	}
	for _, q := range []struct {
		what string
		want float64
		most *float64
	}{
		{"cpu of a sandbox", want.CPU, l.MaxCPUPerSandbox},
		{"memory of a sandbox, in GiB,", gib(want.MemoryMiB), l.MaxMemoryPerSandbox},
		{"disk of a sandbox, in GiB,", disk, l.MaxDiskPerSandbox},
		{"disk of a sandbox that is not ephemeral, in GiB,", kept, l.MaxDiskPerNonEphemeralSandbox},
		{"cpu of a sandbox", want.CPU, perGPU(l.MaxCPUPerGPU, gpu)},
		{"memory of a sandbox, in GiB,", gib(want.MemoryMiB), perGPU(l.MaxMemoryPerGPU, gpu)},
		{"disk of a sandbox, in GiB,", disk, perGPU(l.MaxDiskPerGPU, gpu)},
	} {
		if q.most != nil && q.want > *q.most {
			return exceeded(q.what, q.want, *q.most)
		}
	}
	return nil
}

func perGPU(most *float64, gpus float64) *float64 {
	if most == nil || gpus == 0 {
		return nil
	}
	all := *most * gpus
	return &all
}

func exceeded(what string, want, most float64) error {
	return engine.Errorf(engine.KindExhausted, "the organization's quota for %s is %g, this would make it %g", what, most, want).
		WithHint("ask for less, delete what is not needed, or have the quota raised")
}

// total checks what bounds all sandboxes of the organization together.
func (c *Core) total(ctx context.Context, l engine.RegionLimits, sb *store.Sandbox, want engine.Resources, runs bool) error {
	all, err := c.Store.Usage(ctx, sb.OrganizationID, sb.ID)
	if err != nil {
		return err
	}
	use := store.Use{DiskMiB: want.DiskMiB}
	if runs {
		use.CPU, use.MemoryMiB, use.GPU = want.CPU, want.MemoryMiB, want.GPU
	}
	for _, u := range all {
		if u.Class == sb.Class {
			use.CPU, use.MemoryMiB, use.GPU, use.DiskMiB = use.CPU+u.CPU, use.MemoryMiB+u.MemoryMiB, use.GPU+u.GPU, use.DiskMiB+u.DiskMiB
		}
	}
	for _, q := range []struct {
		what      string
		has, most float64
		bound     bool
	}{
		{"cpu of running sandboxes", use.CPU, value(l.TotalCPU), runs && l.TotalCPU != nil},
		{"memory of running sandboxes, in GiB,", gib(use.MemoryMiB), value(l.TotalMemory), runs && l.TotalMemory != nil},
		{"gpus of running sandboxes", float64(use.GPU), value(l.TotalGPU), runs && want.GPU > 0 && l.TotalGPU != nil},
		{"disk, in GiB,", gib(use.DiskMiB), value(l.TotalDisk), l.TotalDisk != nil},
	} {
		if q.bound && q.has > q.most {
			return exceeded(q.what, q.has, q.most)
		}
	}
	return nil
}

func value(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}

// withinSnapshots refuses one more snapshot than the quota allows. It is held
// as within is.
func (c *Core) withinSnapshots(ctx context.Context, organizationID string) (end func(), err error) {
	if err := c.active(ctx, organizationID); err != nil {
		return nil, err
	}
	s, err := c.standing(ctx, organizationID)
	if err != nil || s.Quota.SnapshotQuota == nil {
		return func() {}, err
	}
	end, err = c.ops.keys.lock(ctx, "quota\x00"+organizationID)
	if err != nil {
		return nil, err
	}
	n, err := c.Store.CountSnapshots(ctx, organizationID)
	if err == nil && float64(n+1) > *s.Quota.SnapshotQuota {
		err = exceeded("snapshots", float64(n+1), *s.Quota.SnapshotQuota)
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// snapshotFits refuses a snapshot that turned out too large.
func (c *Core) snapshotFits(ctx context.Context, organizationID string, bytes int64) error {
	s, err := c.standing(ctx, organizationID)
	if err != nil || s.Quota.MaxSnapshotSize == nil {
		return err
	}
	if size := float64(bytes) / (1 << 30); size > *s.Quota.MaxSnapshotSize {
		return exceeded("the size of a snapshot, in GiB,", size, *s.Quota.MaxSnapshotSize)
	}
	return nil
}

func checkNumbers(all map[string]*float64) error {
	for name, n := range all {
		if n != nil && (math.IsNaN(*n) || *n < 0 || *n > 1e12) {
			return invalid("%s is %g", name, *n).WithHint("use a number from 0 on, or null for no limit")
		}
	}
	return nil
}

func checkQuota(q engine.Quota) error {
	return checkNumbers(map[string]*float64{
		"maxCpuPerSandbox": q.MaxCPUPerSandbox, "maxMemoryPerSandbox": q.MaxMemoryPerSandbox, "maxDiskPerSandbox": q.MaxDiskPerSandbox,
		"snapshotQuota": q.SnapshotQuota, "maxSnapshotSize": q.MaxSnapshotSize, "volumeQuota": q.VolumeQuota, "secretQuota": q.SecretQuota,
		"maxSecretsPerSandbox": q.MaxSecretsPerSandbox, "authenticatedRateLimit": q.AuthenticatedRateLimit,
		"sandboxCreateRateLimit": q.SandboxCreateRateLimit, "sandboxLifecycleRateLimit": q.SandboxLifecycleRateLimit,
		"authenticatedRateLimitTtlSeconds":    q.AuthenticatedRateLimitTTLSeconds,
		"sandboxCreateRateLimitTtlSeconds":    q.SandboxCreateRateLimitTTLSeconds,
		"sandboxLifecycleRateLimitTtlSeconds": q.SandboxLifecycleRateLimitTTL,
		"snapshotDeactivationTimeoutMinutes":  q.SnapshotDeactivationTimeoutMinutes,
		"maxConcurrentSnapshotProcessing":     q.MaxConcurrentSnapshotProcessing,
	})
}

func checkRegionLimits(l engine.RegionLimits) error {
	if len(l.AllowedGPUTypes) > 16 {
		return invalid("allowedGpuTypes has %d types", len(l.AllowedGPUTypes)).WithHint("use at most 16")
	}
	for _, t := range l.AllowedGPUTypes {
		if err := checkText("allowedGpuTypes", t, 64); err != nil {
			return err
		}
	}
	return checkNumbers(map[string]*float64{
		"totalCpuQuota": l.TotalCPU, "totalMemoryQuota": l.TotalMemory, "totalDiskQuota": l.TotalDisk, "totalGpuQuota": l.TotalGPU,
		"maxCpuPerSandbox": l.MaxCPUPerSandbox, "maxMemoryPerSandbox": l.MaxMemoryPerSandbox, "maxDiskPerSandbox": l.MaxDiskPerSandbox,
		"maxDiskPerNonEphemeralSandbox": l.MaxDiskPerNonEphemeralSandbox, "maxCpuPerGpu": l.MaxCPUPerGPU,
		"maxMemoryPerGpu": l.MaxMemoryPerGPU, "maxDiskPerGpu": l.MaxDiskPerGPU, "maxSandboxLifespan": l.MaxSandboxLifespan,
	})
}

// Usage returns what an organization uses to those who see it and its limits.
func (a accounts) Usage(ctx context.Context, p engine.Principal, id string) (engine.Usage, error) {
	org, err := a.permitted(ctx, p, engine.ReadLimits, id)
	if err != nil {
		return engine.Usage{}, err
	}
	quotas, err := a.Store.RegionQuotas(ctx, id)
	if err != nil {
		return engine.Usage{}, public(err)
	}
	used, err := a.Store.Usage(ctx, id, "")
	if err != nil {
		return engine.Usage{}, public(err)
	}
	u := engine.Usage{Quota: org.Quota, Regions: a.regionUsage(org, quotas, used)}
	u.Snapshots, err = a.Store.CountSnapshots(ctx, id)
	return u, public(err)
}

func (a accounts) regionUsage(org engine.Organization, quotas []engine.RegionQuota, used []store.Use) []engine.RegionUsage {
	classes := []engine.Class{engine.ClassContainer}
	for _, q := range quotas {
		classes = append(classes, q.Class)
	}
	for _, u := range used {
		classes = append(classes, u.Class)
	}
	slices.Sort(classes)
	var out []engine.RegionUsage
	for _, class := range slices.Compact(classes) {
		r := engine.RegionUsage{RegionQuota: engine.RegionQuota{
			OrganizationID: org.ID, Region: a.Target, Class: class, Limits: standing{org, quotas}.limits(class),
		}}
		for _, u := range used {
			if u.Class == class {
				r.CPU, r.MemoryMiB, r.GPU, r.DiskMiB = u.CPU, u.MemoryMiB, u.GPU, u.DiskMiB
			}
		}
		out = append(out, r)
	}
	return out
}

// RegionQuota returns one quota.
func (a accounts) RegionQuota(ctx context.Context, p engine.Principal, organizationID, region string, class engine.Class) (engine.RegionQuota, error) {
	if err := a.administrate(ctx, p, organizationID, region); err != nil {
		return engine.RegionQuota{}, err
	}
	all, err := a.Store.RegionQuotas(ctx, organizationID)
	if err != nil {
		return engine.RegionQuota{}, public(err)
	}
	for _, q := range all {
		if q.Region == region && q.Class == class {
			return q, nil
		}
	}
	return engine.RegionQuota{}, engine.Errorf(engine.KindNotFound, "the organization has no quota for region %s and class %s", quote(region), quote(string(class)))
}

func (a accounts) administrate(ctx context.Context, p engine.Principal, organizationID, region string) error {
	if err := engine.Authorize(p, engine.PermissionAdmin, ""); err != nil {
		return err
	}
	if _, _, err := a.reach(ctx, p, organizationID); err != nil {
		return err
	}
	return a.checkRegion(region)
}

// PutRegionQuota makes or replaces a quota. It acts on what is made from then on.
func (a accounts) PutRegionQuota(ctx context.Context, p engine.Principal, q engine.RegionQuota, create bool) error {
	if err := a.administrate(ctx, p, q.OrganizationID, q.Region); err != nil {
		return err
	}
	if err := checkRegionLimits(q.Limits); err != nil {
		return err
	}
	put := a.Store.PutRegionQuota
	if create {
		put = a.Store.InsertRegionQuota
	}
	err := put(ctx, q)
	a.rethink()
	return public(err)
}

// DeleteRegionQuota removes a quota: nothing is bounded then.
func (a accounts) DeleteRegionQuota(ctx context.Context, p engine.Principal, organizationID, region string, class engine.Class) error {
	if err := a.administrate(ctx, p, organizationID, region); err != nil {
		return err
	}
	err := a.Store.DeleteRegionQuota(ctx, organizationID, region, class)
	a.rethink()
	return public(err)
}
