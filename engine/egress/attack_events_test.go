package egress

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
)

// told is the ledger of what the filter tells while it is attacked.
type told struct {
	ledger *activity.Ledger

	mu   sync.Mutex
	seen map[string]uint64 // by sandbox, the last record before the attack
}

// eventWait is how long the record of a refusal is waited for. Much is refused
// without one: what is no proper packet, and what comes in masses.
const eventWait = 250 * time.Millisecond

// watchEvents keeps what the filter tells until the test ends.
func watchEvents(t testing.TB, f *Filter) *told {
	t.Helper()
	l, err := activity.Open(activity.Config{Dir: t.TempDir(), Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))})
	must(t, err)
	w := &told{ledger: l, seen: map[string]uint64{}}
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { _ = f.Watch(ctx, w.record) })
	t.Cleanup(func() {
		stop()
		watching.Wait()
		l.Close()
	})
	return w
}

func (w *told) record(h Holding, r engine.ActivityRecord) {
	r.Sandbox = fmt.Sprintf("slot-%d", h.Number)
	w.mu.Lock()
	if _, known := w.seen[r.Sandbox]; !known {
		w.seen[r.Sandbox] = 0
	}
	w.mu.Unlock()
	w.ledger.Record(r)
}

// mark forgets what was told so far.
func (w *told) mark(ctx context.Context) {
	w.each(ctx, func(engine.ActivityRecord) bool { return false })
}

// each visits what was told since, until it is taken.
func (w *told) each(ctx context.Context, take func(engine.ActivityRecord) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, after := range w.seen {
		for more := true; more; {
			page, err := w.ledger.Query(ctx, id, engine.ActivityQuery{After: after, Limit: 1000})
			if err != nil {
				break
			}
			for _, r := range page.Items {
				if take(r) {
					return true
				}
			}
			after, more = page.Next, page.More
		}
		w.seen[id] = after
	}
	return false
}

// refusal returns the record of what was refused since mark, as
// SANDBOX/SEQUENCE; empty when there is none.
func (w *told) refusal(ctx context.Context) (event string) {
	refused := func(r engine.ActivityRecord) bool {
		if r.Kind == engine.ActivityDeny || r.Kind == engine.ActivityCut || r.Verdict == "deny" {
			event = fmt.Sprintf("%s/%d", r.Sandbox, r.Sequence)
		}
		return event != ""
	}
	for end := time.Now().Add(eventWait); !w.each(ctx, refused) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return event
}
