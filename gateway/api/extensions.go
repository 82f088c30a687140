package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerExtensions() {
	handle(a, "GET", "/doctor", "What this host can and cannot do", a.doctor)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/stats", "A sample of a sandbox's use", a.stats)
	handle(a, "POST", "/snapshots/{id}/prepare", "Begin to build one of the server's own snapshots", a.prepareSnapshot)
	handleEmpty(a, "POST", "/admin/shutdown", "End the server; sandboxes go on", http.StatusAccepted, a.shutdown)
	a.route("GET", "/events", http.HandlerFunc(a.events))
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

// keepAlive is how often a silent stream says that it lives.
const keepAlive = 20 * time.Second

// events streams changes as server-sent events until the caller leaves, the
// server ends or the caller is too slow.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	changes, err := a.Events.Watch(ctx, auth.Organization(ctx))
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	fmt.Fprint(w, ": connected\n\n")
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		if out.Flush() != nil {
			return
		}
		select {
		case <-a.Closing:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			fmt.Fprint(w, ": alive\n\n")
		case e, ok := <-changes:
			if !ok {
				return
			}
			writeEvent(w, e, toolboxURL(ctx))
		}
	}
}

func writeEvent(w http.ResponseWriter, e engine.Event, toolboxURL string) {
	data, err := json.Marshal(wire.FromEvent(e, toolboxURL))
	if err != nil {
		return // a plain value always encodes
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Type, data)
}
