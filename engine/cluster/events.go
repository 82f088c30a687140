package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"

	"github.com/atoll-sh/atoll/engine"
)

// watchBuffer is how many events a watcher may lag behind.
const watchBuffer = 256

const flushLimit = 10 * time.Second

// Publish tells watchers everywhere of a change. It waits for nobody and
// cannot fail for the caller: events are hints, the store has the truth.
func (c *Cluster) Publish(e engine.Event) {
	e.ID = cmp.Or(e.ID, ulid.Make().String())
	data, err := json.Marshal(e)
	if err == nil {
		err = c.conn.Publish("events."+token(e.OrganizationID), data)
	}
	if err != nil {
		c.log.Warn("event lost", "type", e.Type, "error", err)
	}
}

// Watch returns the events of one organization, or of all when it is empty.
// The channel closes when ctx ends, the cluster closes, or the watcher is more
// than 256 events behind; it must then list again and watch anew.
func (c *Cluster) Watch(ctx context.Context, organizationID string) (<-chan engine.Event, error) {
	subject := "events.*"
	if organizationID != "" {
		subject = "events." + token(organizationID)
	}
	w := &watcher{out: make(chan engine.Event, watchBuffer), gone: make(chan struct{})}
	sub, err := c.conn.Subscribe(subject, func(m *nats.Msg) { w.hear(c, m) })
	if err != nil {
		return nil, engine.Errorf(engine.KindUnavailable, "events cannot be watched now").Wrap(err)
	}
	stop, err := c.own(func() {
		_ = sub.Unsubscribe()
		w.close()
	})
	if err != nil {
		_ = sub.Unsubscribe()
		return nil, err
	}
	// Events published after Watch returned are seen, also from elsewhere.
	flush, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	if err := c.conn.FlushWithContext(flush); err != nil {
		stop()
		return nil, fmt.Errorf("watch events: %w", engine.AsError(err))
	}
	go func() { // ends with the watcher, which ends with ctx or the cluster
		select {
		case <-ctx.Done():
		case <-w.gone:
		}
		stop()
	}()
	return w.out, nil
}

type watcher struct {
	out  chan engine.Event
	gone chan struct{}

	mu     sync.Mutex
	closed bool
}

func (w *watcher) hear(c *Cluster, m *nats.Msg) {
	var e engine.Event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		c.log.Warn("unreadable event", "subject", m.Subject, "error", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	select {
	case w.out <- e:
	default:
		w.closeLocked()
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeLocked()
}

func (w *watcher) closeLocked() {
	if !w.closed {
		w.closed = true
		close(w.gone)
		close(w.out)
	}
}
