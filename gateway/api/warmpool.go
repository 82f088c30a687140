package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// warmPool is the contract's shape. Members are no sandboxes before somebody
// claims one: env is always empty, and no list shows them.
type warmPool struct {
	ID             string            `json:"id"`
	OrganizationID string            `json:"organizationId"`
	Snapshot       string            `json:"snapshot"`
	Target         string            `json:"target"`
	Pool           int               `json:"pool" doc:"wanted"`
	CurrentSize    int               `json:"currentSize" doc:"waiting now, at most pool"`
	CPU            float64           `json:"cpu"`
	Mem            float64           `json:"mem" doc:"GiB"`
	Disk           float64           `json:"disk" doc:"GiB"`
	OSUser         string            `json:"osUser"`
	Env            map[string]string `json:"env"`
	ErrorReason    *string           `json:"errorReason" doc:"why fewer wait than wanted"`
	CreatedAt      string            `json:"createdAt"`
	UpdatedAt      string            `json:"updatedAt"`
}

func fromWarmPool(p engine.WarmPool) warmPool {
	d := warmPool{
		ID: p.ID, OrganizationID: p.OrganizationID, Snapshot: p.Snapshot, Target: p.Target, Pool: p.Size, CurrentSize: p.Ready,
		CPU: p.Resources.CPU, Mem: wire.GiB(p.Resources.MemoryMiB), Disk: wire.GiB(p.Resources.DiskMiB),
		OSUser: p.User, Env: map[string]string{}, CreatedAt: wire.Time(p.CreatedAt), UpdatedAt: wire.Time(p.UpdatedAt),
	}
	if p.Error != "" {
		d.ErrorReason = &p.Error
	}
	return d
}

func (a *API) registerWarmPools() {
	handle(a, "GET", "/warm-pools", "List warm pools", a.warmPools)
	handleCreated(a, "POST", "/warm-pools", "Keep sandboxes of a snapshot started", a.createWarmPool)
	handle(a, "PATCH", "/warm-pools/{id}", "Change how many wait", a.resizeWarmPool)
	handleEmpty(a, "DELETE", "/warm-pools/{id}", "Delete a warm pool and what waits in it", http.StatusNoContent, a.deleteWarmPool)
}

func (a *API) warmPools(ctx context.Context, _ *struct{}) ([]warmPool, error) {
	list, err := a.Services.WarmPools.List(ctx, auth.Organization(ctx))
	out := make([]warmPool, len(list))
	for i, p := range list {
		out[i] = fromWarmPool(p)
	}
	return out, err
}

type createWarmPoolInput struct {
	Body struct {
		Snapshot string `json:"snapshot" doc:"id or name"`
		Pool     int    `json:"pool" minimum:"1"`
		Target   string `json:"target,omitempty"`
	}
}

func (a *API) createWarmPool(ctx context.Context, in *createWarmPoolInput) (warmPool, error) {
	p, err := a.Services.WarmPools.Create(ctx, engine.CreateWarmPool{
		OrganizationID: auth.Organization(ctx), Snapshot: in.Body.Snapshot, Target: in.Body.Target, Size: in.Body.Pool,
	})
	return fromWarmPool(p), err
}

type resizeWarmPoolInput struct {
	ID   string `path:"id"`
	Body struct {
		Pool int `json:"pool" minimum:"0"`
	}
}

func (a *API) resizeWarmPool(ctx context.Context, in *resizeWarmPoolInput) (warmPool, error) {
	p, err := a.Services.WarmPools.Resize(ctx, auth.Organization(ctx), in.ID, in.Body.Pool)
	return fromWarmPool(p), err
}

func (a *API) deleteWarmPool(ctx context.Context, in *byID) error {
	return a.Services.WarmPools.Delete(ctx, auth.Organization(ctx), in.ID)
}
