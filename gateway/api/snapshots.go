package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerSnapshots() {
	handle(a, "POST", "/snapshots", "Make a snapshot of an image", a.createSnapshot)
	handle(a, "GET", "/snapshots", "List snapshots", a.snapshots)
	handle(a, "GET", "/snapshots/{id}", "One snapshot", a.snapshot)
	handleEmpty(a, "DELETE", "/snapshots/{id}", "Delete a snapshot", http.StatusOK, a.deleteSnapshot)
	handle(a, "GET", "/snapshots/{id}/build-logs-url", "Where the build log is read", a.snapshotLogsURL)
	a.route("GET", "/snapshots/{id}/build-logs", http.HandlerFunc(a.snapshotLogs))
}

func snapshotRef(ctx context.Context, idOrName string) engine.SnapshotRef {
	return engine.SnapshotRef{OrganizationID: auth.Organization(ctx), IDOrName: idOrName}
}

func (a *API) snapshotAnswer(s engine.Snapshot, err error) (wire.Snapshot, error) {
	if err != nil {
		return wire.Snapshot{}, err
	}
	d := wire.FromSnapshot(s)
	d.RegionIDs = []string{a.Region}
	return d, nil
}

type createSnapshotInput struct{ Body wire.CreateSnapshot }

func (a *API) createSnapshot(ctx context.Context, in *createSnapshotInput) (wire.Snapshot, error) {
	req, err := in.Body.Request(auth.Organization(ctx))
	if err != nil {
		return wire.Snapshot{}, err
	}
	s, err := a.Snapshots.Create(ctx, req)
	return a.snapshotAnswer(s, err)
}

type snapshotsInput struct {
	Page   int    `query:"page" minimum:"1" default:"1"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"100"`
	Name   string `query:"name" doc:"part of the name"`
	Source string `query:"sourceSandboxId"`
	Sort   string `query:"sort" enum:"name,state,lastUsedAt,createdAt" default:"lastUsedAt"`
	Order  string `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *API) snapshots(ctx context.Context, in *snapshotsInput) (wire.SnapshotPage, error) {
	if in.Source != "" || in.Sort != "lastUsedAt" || in.Order != "desc" {
		return a.sortedSnapshots(ctx, in)
	}
	p, err := a.Snapshots.List(ctx, engine.SnapshotQuery{
		OrganizationID: auth.Organization(ctx), Name: in.Name, Page: in.Page, Limit: in.Limit,
	})
	if err != nil {
		return wire.SnapshotPage{}, err
	}
	return a.snapshotPage(p.Items, p.Total, in), nil
}

// sortedSnapshots serves what the engine's list cannot, by reading all of it.
func (a *API) sortedSnapshots(ctx context.Context, in *snapshotsInput) (wire.SnapshotPage, error) {
	all, err := a.allSnapshots(ctx, in)
	if err != nil {
		return wire.SnapshotPage{}, err
	}
	sortSnapshots(all, in.Sort, in.Order == "asc")
	begin := min((in.Page-1)*in.Limit, len(all))
	return a.snapshotPage(all[begin:min(begin+in.Limit, len(all))], len(all), in), nil
}

func (a *API) allSnapshots(ctx context.Context, in *snapshotsInput) ([]engine.Snapshot, error) {
	var all []engine.Snapshot
	for page := 1; ; page++ {
		p, err := a.Snapshots.List(ctx, engine.SnapshotQuery{
			OrganizationID: auth.Organization(ctx), Name: in.Name, Page: page, Limit: 200,
		})
		if err != nil {
			return nil, err
		}
		for _, s := range p.Items {
			if in.Source == "" || s.SourceSandbox == in.Source {
				all = append(all, s)
			}
		}
		if len(p.Items) < 200 {
			return all, nil
		}
	}
}

func (a *API) snapshotPage(items []engine.Snapshot, total int, in *snapshotsInput) wire.SnapshotPage {
	page := wire.SnapshotPage{
		Items: []wire.Snapshot{}, Total: total, Page: in.Page, TotalPages: (total + in.Limit - 1) / in.Limit,
	}
	for _, s := range items {
		d, _ := a.snapshotAnswer(s, nil)
		page.Items = append(page.Items, d)
	}
	return page
}

type snapshotInput struct {
	ID string `path:"id" maxLength:"255" doc:"id or name"`
}

func (a *API) snapshot(ctx context.Context, in *snapshotInput) (wire.Snapshot, error) {
	s, err := a.Snapshots.Snapshot(ctx, snapshotRef(ctx, in.ID))
	return a.snapshotAnswer(s, err)
}

func (a *API) deleteSnapshot(ctx context.Context, in *snapshotInput) error {
	return a.Snapshots.Delete(ctx, snapshotRef(ctx, in.ID))
}
