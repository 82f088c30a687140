package container

import (
	"context"
	"slices"
	"sync"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"

	"github.com/atoll-sh/atoll/engine/driver"
)

// Watch tells of toolboxes that end and of processes killed for memory, without
// having been asked to. Exits come from the kernel and need no containerd. A
// watcher that is 256 events behind loses the newest; Inspect has the facts.
func (d *Driver) Watch(ctx context.Context) (<-chan driver.Event, error) {
	return d.events.subscribe(ctx), nil
}

// broadcaster passes events on to all watchers.
type broadcaster struct {
	mu       sync.Mutex
	watchers []chan driver.Event
}

func (b *broadcaster) subscribe(ctx context.Context) <-chan driver.Event {
	ch := make(chan driver.Event, 256)
	b.mu.Lock()
	b.watchers = append(b.watchers, ch)
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.watchers = slices.DeleteFunc(b.watchers, func(c chan driver.Event) bool { return c == ch })
		close(ch)
	})
	return ch
}

func (b *broadcaster) send(e driver.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ch := range b.watchers {
		select {
		case ch <- e:
		default:
		}
	}
}

// watchMemory follows containerd's out-of-memory events, one subscription for
// all instances. After each break it compares the counters, so that none is
// missed while containerd was away.
func (d *Driver) watchMemory() {
	for d.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(d.ctx)
		envelopes, errs := d.client.EventService().Subscribe(ctx, `topic=="/tasks/oom",namespace==`+d.cfg.Namespace)
		d.compareAll()
		open := true
		for open {
			select {
			case e := <-envelopes:
				if e == nil {
					continue
				}
				if v, err := typeurl.UnmarshalAny(e.Event); err == nil {
					if oom, ok := v.(*eventtypes.TaskOOM); ok {
						d.wg.Go(func() { d.awaitMemoryKill(oom.ContainerID, e.Timestamp) })
					}
				}
			case <-errs:
				open = false
			}
		}
		cancel()
		if sleep(d.ctx, 100*time.Millisecond) != nil {
			return
		}
	}
}

// compareAll looks for kills that no event told of.
func (d *Driver) compareAll() {
	d.mu.Lock()
	ids := make([]string, 0, len(d.instances))
	for id := range d.instances {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	for _, id := range ids {
		d.memoryKill(id, time.Now())
	}
}

// awaitMemoryKill gives the kernel time for the kill: version 1 tells of the
// lack of memory first and kills then, or finds memory after all.
func (d *Driver) awaitMemoryKill(id string, at time.Time) {
	for range 100 {
		if d.memoryKill(id, at) || sleep(d.ctx, 2*time.Millisecond) != nil {
			return
		}
	}
}

// memoryKill tells watchers when the kernel's counter went up.
func (d *Driver) memoryKill(id string, at time.Time) bool {
	d.mu.Lock()
	in := d.instances[id]
	d.mu.Unlock()
	if in == nil {
		return false
	}
	u, err := d.cgroups.usage(d.template.cgroupPath(id))
	if err != nil {
		return false // it ended meanwhile, which the exit tells
	}
	in.mu.Lock()
	more := u.oomKills > in.oomKills
	if more {
		in.oomKills, in.lastOOM = u.oomKills, at
	}
	in.mu.Unlock()
	if more {
		d.events.send(driver.Event{ID: id, Kind: driver.EventOOM, Time: at})
	}
	return more
}
