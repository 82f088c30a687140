package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerExtensions() {
	handle(a, "GET", "/doctor", "What this host can and cannot do", a.doctor)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/stats", "A sample of a sandbox's use", a.stats)
	handle(a, "POST", "/snapshots/{id}/prepare", "Begin to build one of the server's own snapshots", a.prepareSnapshot)
	handleEmpty(a, "POST", "/admin/shutdown", "End the server; sandboxes go on", http.StatusAccepted, a.shutdown)
	a.registerActivity()
	a.registerAccess()
	a.route("GET", "/events", a.Guard.Stream(http.HandlerFunc(a.events)))
}

func (a *API) doctor(ctx context.Context, _ *struct{}) (wire.Report, error) {
	r, err := a.Inspector.Doctor(ctx)
	return wire.FromReport(r), err
}

func (a *API) stats(ctx context.Context, in *SandboxPath) (wire.Stats, error) {
	s, err := a.Inspector.Stats(ctx, ref(ctx, in.Sandbox))
	return wire.FromStats(s), err
}

func (a *API) prepareSnapshot(ctx context.Context, in *snapshotInput) (wire.Snapshot, error) {
	s, err := a.Snapshots.Prepare(ctx, snapshotRef(ctx, in.ID))
	return a.snapshotAnswer(s, err)
}

func (a *API) shutdown(context.Context, *struct{}) error {
	if a.Shutdown == nil {
		return wire.NotBuilt("shutdown over HTTP on this server")
	}
	a.Shutdown()
	return nil
}
