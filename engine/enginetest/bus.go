package enginetest

import (
	"context"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Bus is a cluster in memory whose inventory is never stale.
type Bus struct {
	mu      sync.Mutex
	order   []string
	runners map[string]engine.Runner
	events  []engine.Event
	watches map[chan engine.Event]string
}

// NewBus makes a bus with these runners.
func NewBus(runners ...*Runner) *Bus {
	b := &Bus{runners: map[string]engine.Runner{}, watches: map[chan engine.Event]string{}}
	for _, r := range runners {
		b.Join(r.ID, r)
	}
	return b
}

// Join adds or replaces a runner.
func (b *Bus) Join(id string, r engine.Runner) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.runners[id]; !known {
		b.order = append(b.order, id)
	}
	b.runners[id] = r
}

// Leave takes a runner off the inventory; calls to it then fail.
func (b *Bus) Leave(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.runners, id)
}

// Client returns the runner itself.
func (b *Bus) Client(id string) engine.Runner {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, ok := b.runners[id]; ok {
		return r
	}
	return away{id}
}

// Runners asks every runner for its Info.
func (b *Bus) Runners(ctx context.Context) []engine.RunnerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []engine.RunnerInfo
	for _, id := range b.order {
		r, ok := b.runners[id]
		if !ok {
			continue
		}
		if info, err := r.Info(ctx); err == nil {
			out = append(out, info)
		}
	}
	return out
}

// Publish keeps the event and hands it to watchers.
func (b *Bus) Publish(e engine.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
	for ch, org := range b.watches {
		if org == "" || org == e.OrganizationID {
			select {
			case ch <- e:
			default:
			}
		}
	}
}

// Events returns all events so far.
func (b *Bus) Events() []engine.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]engine.Event(nil), b.events...)
}

// Watch hands out events until ctx ends.
func (b *Bus) Watch(ctx context.Context, organizationID string) (<-chan engine.Event, error) {
	ch := make(chan engine.Event, 256)
	b.mu.Lock()
	b.watches[ch] = organizationID
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watches, ch)
		close(ch)
	})
	return ch, nil
}

// Clock is a clock that tests move by hand.
type Clock struct {
	mu sync.Mutex
	t  time.Time
}

// NewClock starts at a time on a full second.
func NewClock() *Clock { return &Clock{t: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)} }

// Now returns the time, a millisecond later with each call, as time passes.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(time.Millisecond)
	return c.t
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// away is a runner that is not connected.
type away struct{ id string }

func (a away) err() error {
	return engine.Errorf(engine.KindUnavailable, "runner %s is not connected", a.id)
}

func (a away) Launch(context.Context, engine.Launch) (engine.Launched, error) {
	return engine.Launched{}, a.err()
}

func (a away) Start(context.Context, engine.Launch) (engine.Launched, error) {
	return engine.Launched{}, a.err()
}

func (a away) Stop(context.Context, string, engine.StopOptions) (engine.Instance, error) {
	return engine.Instance{}, a.err()
}
func (a away) Remove(context.Context, string) error { return a.err() }
func (a away) Resize(context.Context, string, engine.Resources) (engine.Instance, error) {
	return engine.Instance{}, a.err()
}
func (a away) SetNetwork(context.Context, string, engine.NetworkPolicy) error { return a.err() }
func (a away) SetRules(context.Context, string, *engine.ExecFileRules) error  { return a.err() }
func (a away) SetSecrets(context.Context, string, bool) error                 { return a.err() }
func (a away) SaveDisk(context.Context, string, string) (engine.SavedDisk, error) {
	return engine.SavedDisk{}, a.err()
}
func (a away) DropDisk(context.Context, string) error               { return a.err() }
func (a away) Instances(context.Context) ([]engine.Instance, error) { return nil, a.err() }
func (a away) Stats(context.Context, string) (engine.Stats, error)  { return engine.Stats{}, a.err() }
func (a away) Info(context.Context) (engine.RunnerInfo, error)      { return engine.RunnerInfo{}, a.err() }
func (a away) EnsureImage(context.Context, engine.EnsureImage) (engine.Image, error) {
	return engine.Image{}, a.err()
}
func (a away) DropImage(context.Context, engine.Image) error       { return a.err() }
func (a away) SetPools(context.Context, []engine.PoolTarget) error { return a.err() }
func (a away) Pools(context.Context) ([]engine.PoolStatus, error)  { return nil, a.err() }
func (a away) Samples(context.Context, engine.SampleQuery) ([]engine.Sample, error) {
	return nil, a.err()
}
