package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func sortSnapshots(all []engine.Snapshot, field string, ascending bool) {
	by := map[string]func(a, b engine.Snapshot) int{
		"name":       func(a, b engine.Snapshot) int { return strings.Compare(a.Name, b.Name) },
		"state":      func(a, b engine.Snapshot) int { return cmp.Compare(a.State, b.State) },
		"createdAt":  func(a, b engine.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) },
		"lastUsedAt": func(a, b engine.Snapshot) int { return a.LastUsedAt.Compare(b.LastUsedAt) },
	}[field]
	slices.SortStableFunc(all, func(a, b engine.Snapshot) int {
		if ascending {
			return by(a, b)
		}
		return by(b, a)
	})
}

func (a *API) buildLogsURL(ctx context.Context, in *SandboxPath) (link, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	if err != nil {
		return link{}, err
	}
	return link{baseURL(ctx) + "/api/sandbox/" + url.PathEscape(s.ID) + "/build-logs"}, nil
}

func (a *API) snapshotLogsURL(ctx context.Context, in *snapshotInput) (link, error) {
	s, err := a.Snapshots.Snapshot(ctx, snapshotRef(ctx, in.ID))
	if err != nil {
		return link{}, err
	}
	return link{baseURL(ctx) + "/api/snapshots/" + url.PathEscape(s.ID) + "/build-logs"}, nil
}

// buildLogs answers with an empty log: sandboxes are made of ready images.
func (a *API) buildLogs(w http.ResponseWriter, r *http.Request) {
	if _, err := a.Sandboxes.Sandbox(r.Context(), ref(r.Context(), chi.URLParam(r, "sandboxIdOrName"))); err != nil {
		wire.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
}

// snapshotLogs tells how the making of a snapshot goes. With follow it stays
// open until that is over, because clients take the end of the stream for it.
func (a *API) snapshotLogs(w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), snapshotRef(r.Context(), chi.URLParam(r, "id"))
	s, err := a.Snapshots.Snapshot(ctx, id)
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	follow := r.URL.Query().Get("follow") == "true"
	for last := ""; err == nil; s, err = a.Snapshots.Snapshot(ctx, id) {
		last = tell(w, s, last)
		if !follow || !inProgress(s.State) || !a.pause(ctx) {
			return
		}
	}
}

func tell(w http.ResponseWriter, s engine.Snapshot, last string) string {
	line := fmt.Sprintf("%s: %s", s.Name, s.State)
	if s.Error != "" {
		line += ": " + s.Error
	}
	if line != last {
		fmt.Fprintln(w, line)
		_ = http.NewResponseController(w).Flush()
	}
	return line
}

func inProgress(s engine.SnapshotState) bool {
	switch s {
	case engine.SnapshotBuilding, engine.SnapshotPending, engine.SnapshotPulling, engine.SnapshotSnapshotting:
		return true
	}
	return false
}

// pause waits a moment; false means that the caller or the server goes away.
func (a *API) pause(ctx context.Context) bool {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-a.Closing:
	}
	return false
}
