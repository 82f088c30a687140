package core

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

// WarmPoolStore keeps what is wanted of warm pools.
type WarmPoolStore interface {
	InsertWarmPool(ctx context.Context, p engine.WarmPool) error
	ResizeWarmPool(ctx context.Context, organizationID, id string, size int, at time.Time) error
	DeleteWarmPool(ctx context.Context, organizationID, id string) error
	WarmPools(ctx context.Context, organizationID string) ([]engine.WarmPool, error)
}

const (
	maxWarmPool = 1000
	// warmMemberMiB is how much memory of a runner a member is counted with,
	// as the runner itself does.
	warmMemberMiB = 64
	// warmEvery is how often runners are told, since one that restarted has
	// forgotten and another may be new.
	warmEvery = 10 * time.Second
)

// warm is what this process knows of warm pools.
type warm struct {
	poke chan struct{}

	mu   sync.Mutex // one telling at a time
	told bool       // runners may hold targets
}

func newWarm() *warm { return &warm{poke: make(chan struct{}, 1)} }

func (w *warm) nudge() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// TendPools tells runners what to keep warm until ctx ends.
func (c *Core) TendPools(ctx context.Context) {
	tick := time.NewTicker(warmEvery)
	defer tick.Stop()
	for {
		c.applyPools(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.warm.poke:
		}
	}
}

// applyPools tells every runner its share.
func (c *Core) applyPools(ctx context.Context) {
	c.warm.mu.Lock()
	defer c.warm.mu.Unlock()
	pools, err := c.Store.WarmPools(ctx, "")
	if err != nil {
		if ctx.Err() == nil {
			c.Log.Warn("warm pools not read", "error", err)
		}
		return
	}
	if len(pools) == 0 && !c.warm.told {
		return
	}
	c.warm.told = true
	runners := c.runnerIDs(ctx)
	for id, targets := range c.shares(ctx, pools, runners) {
		if err := c.Cluster.Client(id).SetPools(ctx, targets); err != nil && ctx.Err() == nil {
			c.Log.Warn("warm pools not set", "runner", id, "error", err)
		}
	}
}

func (c *Core) runnerIDs(ctx context.Context) []string {
	var ids []string
	for _, r := range c.Cluster.Runners(ctx) {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// shares spreads the pools over the runners. A saved disk is on one of them.
func (c *Core) shares(ctx context.Context, pools []engine.WarmPool, runners []string) map[string][]engine.PoolTarget {
	out := map[string][]engine.PoolTarget{}
	for _, id := range runners {
		out[id] = []engine.PoolTarget{}
	}
	for _, p := range pools {
		sn, err := c.Store.SnapshotByID(ctx, p.SnapshotID)
		if err != nil || sn.State != engine.SnapshotActive {
			continue
		}
		on := runners
		if sn.Disk != "" {
			on = []string{sn.Runner}
		}
		for i, id := range on {
			size := p.Size / len(on)
			if i < p.Size%len(on) {
				size++
			}
			if _, known := out[id]; known && size > 0 {
				out[id] = append(out[id], engine.PoolTarget{PoolKind: kindOf(sn), Size: size})
			}
		}
	}
	return out
}

// kindOf is what creates from the snapshot with its own disk size ask for.
func kindOf(sn engine.Snapshot) engine.PoolKind {
	return engine.PoolKind{Image: sn.Image, Disk: sn.Disk, DiskMiB: merge(sn.Resources, defaultResources).DiskMiB}
}

type warmPools struct{ *Core }

// WarmPools is the life of warm pools.
func (c *Core) WarmPools() engine.WarmPools { return warmPools{c} }

// Create begins to keep sandboxes of a snapshot started.
func (w warmPools) Create(ctx context.Context, req engine.CreateWarmPool) (engine.WarmPool, error) {
	target := cmp.Or(req.Target, w.Target)
	if err := firstError(ctx.Err(), undivided(ctx), checkOrganization(req.OrganizationID), checkName("target", target)); err != nil {
		return engine.WarmPool{}, public(err)
	}
	if req.Size < 1 {
		return engine.WarmPool{}, invalid("pool is %d", req.Size).WithHint("use 1 or more")
	}
	if req.Snapshot == "" {
		return engine.WarmPool{}, invalid("snapshot is empty").WithHint("name the snapshot to keep warm")
	}
	sn, err := w.usable(ctx, engine.SnapshotRef{OrganizationID: req.OrganizationID, IDOrName: req.Snapshot})
	if err != nil {
		return engine.WarmPool{}, public(err)
	}
	now := w.Now().UTC()
	p := engine.WarmPool{
		ID: uuid.NewString(), OrganizationID: req.OrganizationID, SnapshotID: sn.ID, Snapshot: sn.Name, Target: target,
		Size: req.Size, CreatedAt: now, UpdatedAt: now,
	}
	if err := w.roomForPool(ctx, "", req.Size); err != nil {
		return engine.WarmPool{}, public(err)
	}
	if err := w.Store.InsertWarmPool(ctx, p); err != nil {
		return engine.WarmPool{}, public(err)
	}
	return w.changed(ctx, p.OrganizationID, p.ID)
}

// roomForPool refuses more members than all runners together can have waiting.
func (w warmPools) roomForPool(ctx context.Context, except string, size int) error {
	if size > maxWarmPool {
		return invalid("pool is %d", size).WithHint("use at most %d", maxWarmPool)
	}
	pools, err := w.Store.WarmPools(ctx, "")
	if err != nil {
		return err
	}
	total, most := size, 0
	for _, p := range pools {
		if p.ID != except {
			total += p.Size
		}
	}
	for _, r := range w.Cluster.Runners(ctx) {
		most += max(int(r.MemoryMiB/warmMemberMiB), 16)
	}
	if total > most {
		return engine.Errorf(engine.KindExhausted, "the server has room for %d warm sandboxes, and %d would be wanted", most, total).
			WithHint("make this pool or another one smaller")
	}
	return nil
}

// changed tells runners at once and returns the pool as it is then.
func (w warmPools) changed(ctx context.Context, organizationID, id string) (engine.WarmPool, error) {
	w.applyPools(ctx)
	all, err := w.List(ctx, organizationID)
	if err != nil {
		return engine.WarmPool{}, err
	}
	for _, p := range all {
		if p.ID == id {
			return p, nil
		}
	}
	return engine.WarmPool{}, noPool(id)
}

func noPool(id string) error {
	return engine.Errorf(engine.KindNotFound, "warm pool %q does not exist", id)
}

// List returns an organization's pools with what waits in them now.
func (w warmPools) List(ctx context.Context, organizationID string) ([]engine.WarmPool, error) {
	pools, err := w.Store.WarmPools(ctx, organizationID)
	if err != nil || len(pools) == 0 {
		return nil, public(err)
	}
	ready, faults := w.poolStatus(ctx)
	for i := range pools {
		p := &pools[i]
		sn, err := w.Store.SnapshotByID(ctx, p.SnapshotID)
		switch {
		case engine.KindOf(err) == engine.KindNotFound:
			p.Error = "its snapshot was deleted"
			continue
		case err != nil:
			return nil, public(err)
		}
		p.Snapshot, p.Resources, p.User = sn.Name, merge(sn.Resources, defaultResources), cmp.Or(sn.User, defaultUser)
		if sn.State != engine.SnapshotActive {
			p.Error = "its snapshot is " + string(sn.State)
			continue
		}
		p.Ready = min(p.Size, ready[kindOf(sn)])
		if p.Ready < p.Size {
			p.Error = faults[kindOf(sn)]
		}
	}
	return pools, nil
}

// poolStatus adds up what runners tell. One that does not answer has nothing.
func (c *Core) poolStatus(ctx context.Context) (ready map[engine.PoolKind]int, faults map[engine.PoolKind]string) {
	ready, faults = map[engine.PoolKind]int{}, map[engine.PoolKind]string{}
	for _, id := range c.runnerIDs(ctx) {
		one, cancel := context.WithTimeout(ctx, limitInspect)
		list, err := c.Cluster.Client(id).Pools(one)
		cancel()
		if err != nil {
			c.Log.Warn("runner does not tell of its warm pool", "runner", id, "error", err)
			continue
		}
		for _, st := range list {
			ready[st.PoolKind] += st.Ready
			faults[st.PoolKind] = cmp.Or(faults[st.PoolKind], st.Error)
		}
	}
	return ready, faults
}

// Resize sets how many sandboxes shall wait.
func (w warmPools) Resize(ctx context.Context, organizationID, id string, size int) (engine.WarmPool, error) {
	if size < 0 {
		return engine.WarmPool{}, invalid("pool is %d", size).WithHint("use 0 or more")
	}
	err := undivided(ctx)
	if err == nil {
		err = w.ownPool(ctx, organizationID, id)
	}
	if err == nil {
		err = w.roomForPool(ctx, id, size)
	}
	if err == nil {
		err = w.Store.ResizeWarmPool(ctx, organizationID, id, size, w.Now().UTC())
	}
	if err != nil {
		return engine.WarmPool{}, public(err)
	}
	return w.changed(ctx, organizationID, id)
}

func (w warmPools) ownPool(ctx context.Context, organizationID, id string) error {
	pools, err := w.Store.WarmPools(ctx, organizationID)
	if err == nil && !slices.ContainsFunc(pools, func(p engine.WarmPool) bool { return p.ID == id }) {
		err = noPool(id)
	}
	return err
}

// Delete removes a pool and its members.
func (w warmPools) Delete(ctx context.Context, organizationID, id string) error {
	if err := undivided(ctx); err != nil {
		return err
	}
	if err := w.Store.DeleteWarmPool(ctx, organizationID, id); err != nil {
		return public(err)
	}
	w.applyPools(ctx)
	return nil
}
