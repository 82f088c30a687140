package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerCatalog() {
	handle(a, "POST", "/snapshots/{id}/activate", "Make a snapshot usable again", a.activate)
	handleEmpty(a, "POST", "/snapshots/{id}/deactivate", "Refuse creates from a snapshot; its image may go", http.StatusNoContent, a.deactivate)
	handle(a, "PATCH", "/admin/snapshots/{id}/general", "Share a snapshot with every organization, or not", a.setGeneral)
	handle(a, "GET", "/admin/snapshots/can-cleanup-image", "Whether nothing needs an image", a.imageUnused)
}

func (a *API) activate(ctx context.Context, in *snapshotInput) (wire.Snapshot, error) {
	s, err := a.Services.Catalog.Activate(ctx, snapshotRef(ctx, in.ID))
	return a.snapshotAnswer(s, err)
}

func (a *API) deactivate(ctx context.Context, in *snapshotInput) error {
	return a.Services.Catalog.Deactivate(ctx, snapshotRef(ctx, in.ID))
}

type generalInput struct {
	ID   string `path:"id" maxLength:"255"`
	Body struct {
		General bool `json:"general"`
	}
}

func (a *API) setGeneral(ctx context.Context, in *generalInput) (wire.Snapshot, error) {
	s, err := a.Services.Catalog.SetGeneral(ctx, snapshotRef(ctx, in.ID), in.Body.General)
	return a.snapshotAnswer(s, err)
}

type imageInput struct {
	Name string `query:"imageName" required:"true" maxLength:"512"`
}

func (a *API) imageUnused(ctx context.Context, in *imageInput) (bool, error) {
	return a.Services.Catalog.ImageUnused(ctx, in.Name)
}
