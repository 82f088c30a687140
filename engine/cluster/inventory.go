package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/atoll-sh/atoll/engine"
)

const (
	beatEvery = 2 * time.Second
	beatSoon  = 100 * time.Millisecond // after a call that changed something
	beatTTL   = 10 * time.Second       // a runner silent for this long is gone
)

const (
	subjectAsk  = "inventory"
	subjectBeat = "inventory."
)

// inventory is what this process knows of all runners.
type inventory struct {
	subs []*nats.Subscription
	log  *slog.Logger

	mu      sync.Mutex
	runners map[string]entry
}

type entry struct {
	info engine.RunnerInfo
	seen time.Time // by our own clock, since clocks of hosts differ
}

// heartbeat is one message of a runner. Gone is its farewell.
type heartbeat struct {
	Info engine.RunnerInfo `json:"info"`
	Gone bool              `json:"gone,omitempty"`
}

func watchInventory(conn *nats.Conn, log *slog.Logger) (*inventory, error) {
	v := &inventory{log: log, runners: map[string]entry{}}
	sub, err := conn.Subscribe(subjectBeat+"*", v.hear)
	if err != nil {
		return nil, fmt.Errorf("watch runners: %w", err)
	}
	v.subs = append(v.subs, sub)
	if err := conn.Publish(subjectAsk, nil); err != nil {
		return nil, fmt.Errorf("ask for runners: %w", err)
	}
	return v, nil
}

func (v *inventory) hear(m *nats.Msg) {
	var b heartbeat
	if err := json.Unmarshal(m.Data, &b); err != nil || b.Info.ID == "" {
		v.log.Warn("unreadable heartbeat", "subject", m.Subject, "error", err)
		return
	}
	v.apply(b)
}

func (v *inventory) apply(b heartbeat) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b.Gone {
		delete(v.runners, b.Info.ID)
		return
	}
	v.runners[b.Info.ID] = entry{b.Info, time.Now()}
}

func (v *inventory) list() []engine.RunnerInfo {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]engine.RunnerInfo, 0, len(v.runners))
	for id, e := range v.runners {
		if time.Since(e.seen) > beatTTL {
			delete(v.runners, id)
			continue
		}
		out = append(out, e.info)
	}
	slices.SortFunc(out, func(a, b engine.RunnerInfo) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (v *inventory) close() { unsubscribe(v.subs) }

// Runners returns the runners heard of in the last ten seconds, sorted by id.
// It asks nobody, so it costs nothing on the way of a create.
func (c *Cluster) Runners(context.Context) []engine.RunnerInfo { return c.inv.list() }

// heart sends one runner's heartbeats.
type heart struct {
	conn   *nats.Conn
	inv    *inventory // of this process, which need not wait for the message
	id     string
	r      engine.Runner
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
	poke   chan struct{}
	ask    *nats.Subscription
}

// startHeart sends the first heartbeat before it returns.
func (c *Cluster) startHeart(ctx context.Context, id string, r engine.Runner, log *slog.Logger) (*heart, error) {
	ctx, cancel := context.WithCancel(ctx)
	h := &heart{conn: c.conn, inv: c.inv, id: id, r: r, log: log, cancel: cancel, done: make(chan struct{}), poke: make(chan struct{}, 1)}
	var err error
	if h.ask, err = c.conn.Subscribe(subjectAsk, func(*nats.Msg) { h.soon() }); err != nil {
		cancel()
		return nil, fmt.Errorf("subscribe to questions: %w", err)
	}
	if err := h.beat(ctx); err != nil {
		cancel()
		_ = h.ask.Unsubscribe()
		return nil, err
	}
	go h.run(ctx)
	return h, nil
}

func (h *heart) run(ctx context.Context) {
	defer close(h.done)
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.poke:
			// Calls come in bursts; one heartbeat serves them all.
			if !sleep(ctx, beatSoon) {
				return
			}
		}
		if err := h.beat(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("heartbeat", "error", err)
		}
	}
}

// soon asks for a heartbeat without waiting for it.
func (h *heart) soon() {
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

func (h *heart) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTTL/2)
	defer cancel()
	info, err := h.r.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the runner for its inventory: %w", err)
	}
	info.ID, info.UpdatedAt = h.id, time.Now()
	return h.send(heartbeat{Info: info})
}

func (h *heart) send(b heartbeat) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("write a heartbeat: %w", err)
	}
	h.inv.apply(b)
	return h.conn.Publish(subjectBeat+token(h.id), data)
}

func (h *heart) stop() {
	_ = h.ask.Unsubscribe()
	h.cancel()
	<-h.done
	_ = h.send(heartbeat{Info: engine.RunnerInfo{ID: h.id}, Gone: true})
}

// sleep waits for d and tells whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
