package core

import (
	"context"
	"sync"
	"time"
)

// flushEvery is how often last activity is written to the store. A crash
// forgets that much, which only lets a sandbox stop later than it would.
const flushEvery = 5 * time.Second

// activity is when sandboxes were last used through this server and how many
// calls are open now. It is kept in memory, because a write for every call
// would cost more than most calls.
type activity struct {
	mu   sync.Mutex
	last map[string]time.Time
	open map[string]int
	todo map[string]time.Time // not in the store yet
}

func newActivity() *activity {
	return &activity{last: map[string]time.Time{}, open: map[string]int{}, todo: map[string]time.Time{}}
}

func (a *activity) touchLocked(id string, now time.Time) {
	if now.After(a.last[id]) {
		a.last[id], a.todo[id] = now, now
	}
}

// begin counts an open call; end, which may be called twice, closes it.
func (a *activity) begin(id string, now func() time.Time) (end func()) {
	a.mu.Lock()
	a.open[id]++
	a.touchLocked(id, now())
	a.mu.Unlock()
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.open[id]--; a.open[id] <= 0 {
			delete(a.open, id)
		}
		if _, known := a.last[id]; known { // else the sandbox is gone
			a.touchLocked(id, now())
		}
	})
}

// latest is the later of stored and what is known here.
func (a *activity) latest(id string, stored time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.last[id]; t.After(stored) {
		return t.UTC()
	}
	return stored
}

func (a *activity) busy(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open[id] > 0
}

func (a *activity) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.last, id)
	delete(a.todo, id)
}

func (a *activity) take() map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	todo := a.todo
	a.todo = map[string]time.Time{}
	return todo
}

func (a *activity) putBack(todo map[string]time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, t := range todo {
		if t.After(a.todo[id]) {
			a.todo[id] = t
		}
	}
}

func (c *Core) flushActivity(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushEvery)
			defer cancel()
			c.flush(last)
			return
		}
	}
}

func (c *Core) flush(ctx context.Context) {
	todo := c.activity.take()
	if len(todo) == 0 {
		return
	}
	if err := c.Store.TouchSandboxes(ctx, todo); err != nil {
		c.activity.putBack(todo)
		c.Log.Warn("last activity not written", "error", err)
	}
}
