package mcp

import (
	"context"
	"sync"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/reqstream"
	"github.com/atoll-sh/atoll/mcp/tools"
)

const (
	lookEvery    = time.Second
	maxWatches   = 64               // of one session or listener; further ones are not looked at
	undelivered  = 10 * time.Minute // a session without a stream for so long has gone
	updateMethod = mcpgo.MethodNotificationResourceUpdated
)

// watches look at resources that somebody subscribed to, and tell of changes.
// Looking does not count as activity of the sandbox.
type watches struct {
	server *Server
	kit    *tools.Kit

	mu  sync.Mutex
	all map[string]map[string]context.CancelFunc // by session and URI, of the older era
}

func newWatches(s *Server, kit *tools.Kit) *watches {
	return &watches{server: s, kit: kit, all: map[string]map[string]context.CancelFunc{}}
}

// listen watches until the listening request ends, and writes onto its stream.
func (w *watches) listen(ctx context.Context, id any, uris []string) {
	if w.server.mayShow(ctx) != nil {
		return
	}
	for _, uri := range uris[:min(len(uris), maxWatches)] {
		w.start(ctx, func() {}, uri, func() bool {
			ok, err := reqstream.Notify(ctx, updateMethod, map[string]any{"uri": uri, "_meta": map[string]any{mcpgo.MetaKeySubscriptionID: id}})
			return ok && err == nil
		})
	}
}

// subscribe watches for a session of the older era. What it is told goes onto
// the session's own stream; while it has none, it is told later.
func (w *watches) subscribe(ctx context.Context, uri string) {
	session := server.ClientSessionFromContext(ctx)
	if session == nil || w.server.mayShow(ctx) != nil {
		return
	}
	id := session.SessionID()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.mu.Lock()
	if w.all[id] == nil {
		w.all[id] = map[string]context.CancelFunc{}
	}
	_, known := w.all[id][uri]
	full := len(w.all[id]) >= maxWatches
	if !known && !full {
		w.all[id][uri] = cancel
	}
	w.mu.Unlock()
	if known || full {
		cancel()
		return
	}
	w.start(ctx, func() { cancel(); w.forget(id, uri) }, uri, func() bool {
		return w.server.inner.SendNotificationToSpecificClient(id, updateMethod, map[string]any{"uri": uri}) == nil
	})
}

func (w *watches) unsubscribe(ctx context.Context, uri string) {
	if session := server.ClientSessionFromContext(ctx); session != nil {
		w.forget(session.SessionID(), uri)
	}
}

// forget ends a watch of the older era.
func (w *watches) forget(session, uri string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cancel, ok := w.all[session][uri]; ok {
		cancel()
		delete(w.all[session], uri)
	}
	if len(w.all[session]) == 0 {
		delete(w.all, session)
	}
}

// start looks at the resource until ctx or the server ends, or nobody has taken
// what there was to tell for long. Then it calls end.
func (w *watches) start(ctx context.Context, end func(), uri string, tell func() bool) {
	if !w.server.begin() {
		end()
		return
	}
	go func() {
		defer w.server.calls.Done()
		defer end()
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		last, pending := w.state(ctx, uri, ""), time.Time{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.server.life.Done():
				return
			case <-tick.C:
			}
			now := w.state(ctx, uri, last)
			if now != last && pending.IsZero() {
				pending = time.Now()
			}
			last = now
			switch {
			case pending.IsZero():
			case tell():
				pending = time.Time{}
			case time.Since(pending) > undelivered:
				return
			}
		}
	}()
}

// state is that of the resource now. One that is not there has one too, so
// that its coming is a change. While the sandbox does not answer, the last
// state holds.
func (w *watches) state(ctx context.Context, uri, last string) string {
	ctx, cancel := context.WithTimeout(engine.WithoutActivity(withCaller(ctx)), 10*time.Second)
	defer cancel()
	state, err := w.kit.Look(ctx, principalOf(ctx).OrganizationID, uri)
	switch engine.KindOf(err) {
	case "":
		return state
	case engine.KindInvalid, engine.KindNotFound:
		return "none"
	}
	return last
}
