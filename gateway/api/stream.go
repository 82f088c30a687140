package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// keepAlive is how often a stream says that it lives, and looks whether its
// key does, unless the server is told otherwise.
const keepAlive = 20 * time.Second

// events streams changes as server-sent events until the caller leaves, its
// key is no longer good, the server ends or the caller is too slow. Nothing is
// replayed: whoever connects again lists again.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	filter, err := newEventFilter(r.URL.Query())
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	changes, err := a.Events.Watch(ctx, auth.Organization(ctx))
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	fmt.Fprint(w, ": connected\n\n")
	tick := time.NewTicker(cmp.Or(a.KeepAlive, keepAlive))
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
			if _, err := a.Guard.Authenticate(r); engine.KindOf(err) == engine.KindUnauthenticated {
				return
			}
			fmt.Fprint(w, ": alive\n\n")
		case e, ok := <-changes:
			if !ok {
				return
			}
			if filter.wants(e) {
				writeEvent(w, e, toolboxURL(ctx))
			}
		}
	}
}

func writeEvent(w http.ResponseWriter, e engine.Event, toolboxURL string) {
	data, err := json.Marshal(wire.FromEvent(e, toolboxURL))
	if err != nil {
		return // a plain value always encodes
	}
	if e.ID != "" {
		fmt.Fprintf(w, "id: %s\n", e.ID)
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Type, data)
}

// eventFilter is what a stream is narrowed to. Empty lists let all pass.
type eventFilter struct{ sandboxes, types []string }

// maxFilter bounds each list of a filter.
const maxFilter = 64

func newEventFilter(q url.Values) (eventFilter, error) {
	f := eventFilter{sandboxes: list(q["sandbox"]), types: list(q["types"])}
	if len(f.sandboxes) > maxFilter || len(f.types) > maxFilter {
		return f, engine.Errorf(engine.KindInvalid, "sandbox and types hold at most %d entries", maxFilter)
	}
	for _, t := range f.types {
		if noun, _, _ := strings.Cut(t, "."); !slices.Contains([]string{"sandbox", "snapshot", "volume"}, noun) {
			return f, engine.Errorf(engine.KindInvalid, "types: %.80q is no type of an event", t).
				WithHint("use a form like sandbox.created, or sandbox.* for all of sandboxes")
		}
	}
	return f, nil
}

// list takes repeated values and values separated by commas.
func list(values []string) []string { return wire.SplitList(strings.Join(values, ",")) }

func (f eventFilter) wants(e engine.Event) bool {
	noun, _, _ := strings.Cut(e.Type, ".")
	if len(f.types) > 0 && !slices.Contains(f.types, e.Type) && !slices.Contains(f.types, noun+".*") {
		return false
	}
	return len(f.sandboxes) == 0 ||
		e.Sandbox != nil && (slices.Contains(f.sandboxes, e.Sandbox.ID) || slices.Contains(f.sandboxes, e.Sandbox.Name))
}
