package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// poolKey is what cannot be changed after an instance was made. Everything
// else (name, environment, labels, limits, policy, user) is bound at claim.
type poolKey struct {
	image   string
	diskMiB int64
}

func keyOf(l engine.Launch) poolKey {
	if l.Disk != "" || (l.Class != "" && l.Class != engine.ClassContainer) {
		return poolKey{}
	}
	return poolKey{l.Image, l.Resources.DiskMiB}
}

// Refilling waits for a pause between launches, so that a burst has the
// machine to itself. A kind that was missed keeps one member for a while.
const (
	refillQuiet  = 150 * time.Millisecond
	refillRetry  = 5 * time.Second
	adaptiveTime = 10 * time.Minute
	adaptiveMax  = 4 // kinds beside the configured ones
	rehearseTime = 5 * time.Second
)

// pool keeps started instances that belong to nobody yet.
type pool struct {
	r     *Runner
	nudge chan struct{}

	mu     sync.Mutex
	want   map[poolKey]int
	recent map[poolKey]time.Time // kinds asked for and missed
	ready  map[poolKey][]*instance
	last   time.Time // of the last launch
	closed bool
}

func newPool(r *Runner, targets []PoolTarget) *pool {
	p := &pool{
		r: r, nudge: make(chan struct{}, 1),
		want: map[poolKey]int{}, recent: map[poolKey]time.Time{}, ready: map[poolKey][]*instance{},
	}
	for _, t := range targets {
		p.want[poolKey{t.Image, t.DiskMiB}] = t.Size
	}
	return p
}

// take returns a ready member, or nil at once.
func (p *pool) take(k poolKey) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	list := p.ready[k]
	if len(list) == 0 {
		return nil
	}
	in := list[0]
	p.ready[k] = list[1:]
	p.wakeLocked()
	return in
}

// missed notes that a launch found no member of this kind.
func (p *pool) missed(k poolKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	if k.image == "" || len(p.want) == 0 {
		return // pools are switched off, or this kind cannot be pooled
	}
	if _, ok := p.recent[k]; ok || len(p.recent) < adaptiveMax {
		p.recent[k] = time.Now()
	}
	p.wakeLocked()
}

// lost drops a member whose toolbox ended.
func (p *pool) lost(in *instance) {
	p.mu.Lock()
	k := keyOf(in.rec.Launch)
	for i, m := range p.ready[k] {
		if m == in {
			p.ready[k] = append(p.ready[k][:i:i], p.ready[k][i+1:]...)
			break
		}
	}
	p.wakeLocked()
	p.mu.Unlock()
	p.r.undo(context.Background(), in)
}

func (p *pool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeLocked()
}

func (p *pool) wakeLocked() {
	select {
	case p.nudge <- struct{}{}:
	default:
	}
}

// run refills until ctx ends. Members are made one at a time.
func (p *pool) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.nudge:
		case <-timer.C:
		}
		timer.Reset(p.refill(ctx))
	}
}

// refill makes at most one member and says when to look again.
func (p *pool) refill(ctx context.Context) time.Duration {
	p.mu.Lock()
	if quiet := time.Since(p.last); quiet < refillQuiet && !p.last.IsZero() {
		p.mu.Unlock()
		return refillQuiet - quiet
	}
	k, ok := p.shortLocked()
	p.mu.Unlock()
	if !ok {
		return time.Minute
	}
	if _, err := p.r.cfg.Images.Image(ctx, k.image); err != nil {
		return refillRetry // not built yet; EnsureImage wakes us
	}
	l := engine.Launch{Image: k.image, Class: engine.ClassContainer, Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: k.diskMiB}}
	in, err := p.r.make(ctx, l, newStopwatch())
	if err != nil {
		if ctx.Err() == nil {
			p.r.log.Warn("warm pool", "image", k.image, "err", err)
		}
		return refillRetry
	}
	p.rehearse(ctx, in)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.r.tasks.Go(func() { p.r.undo(context.WithoutCancel(ctx), in) })
		return time.Minute
	}
	p.ready[k] = append(p.ready[k], in)
	return 0
}

// rehearse has a new member make ready for its first command, and for being
// called at all. One that cannot is as good, if slower.
func (p *pool) rehearse(ctx context.Context, in *instance) {
	ctx, cancel := context.WithTimeout(ctx, rehearseTime)
	defer cancel()
	err := in.tb.Rehearse(ctx)
	if err == nil {
		_, err = in.tb.Status(ctx)
	}
	if err != nil {
		p.r.log.Debug("a warm member did not rehearse", "instance", in.rec.ID, "err", err)
	}
}

// shortLocked finds a kind with fewer members than wanted.
func (p *pool) shortLocked() (poolKey, bool) {
	if p.closed {
		return poolKey{}, false
	}
	for k, n := range p.want {
		if len(p.ready[k]) < n {
			return k, true
		}
	}
	for k, at := range p.recent {
		switch {
		case time.Since(at) > adaptiveTime:
			delete(p.recent, k)
		case p.want[k] == 0 && len(p.ready[k]) < 1:
			return k, true
		}
	}
	return poolKey{}, false
}

// Ready tells how many members are ready now, by image and disk size.
func (r *Runner) Ready() map[PoolTarget]int {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[PoolTarget]int{}
	for k, n := range p.want {
		out[PoolTarget{k.image, k.diskMiB, n}] = len(p.ready[k])
	}
	return out
}

// drain removes all members and stops refilling.
func (p *pool) drain(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	var all []*instance
	for _, list := range p.ready {
		all = append(all, list...)
	}
	p.ready = map[poolKey][]*instance{}
	p.mu.Unlock()
	for _, in := range all {
		p.r.undo(ctx, in)
	}
}

// claim turns a pool member into l's sandbox. The record is on disk before it
// returns. On error the member is removed.
func (r *Runner) claim(ctx context.Context, in *instance, l engine.Launch, sw *stopwatch) error {
	in.mu.Lock()
	in.rec.Sandbox, in.rec.Launch, in.rec.Phase, in.lastActive = l.Sandbox, l, phaseStarting, time.Now()
	in.mu.Unlock()
	r.cfg.Checkpoint("claim")
	saved := make(chan error, 1)
	go func() { saved <- in.save(true) }()
	err := r.bind(ctx, in, l, sw)
	err = errors.Join(err, <-saved)
	if err == nil {
		err = in.ready(true)
	}
	sw.mark("record")
	if err != nil {
		r.undo(ctx, in)
		return err
	}
	r.cfg.Checkpoint("claimed")
	r.add(in)
	return nil
}

// bind gives a pool member its limits, policy and identity. The policy comes
// before the toolbox can start anything for the sandbox.
func (r *Runner) bind(ctx context.Context, in *instance, l engine.Launch, sw *stopwatch) error {
	h := in.handle()
	if rz, ok := driver.As[driver.Resizer](r.cfg.Driver); ok {
		if err := rz.Resize(ctx, h, l.Resources); err != nil {
			return err
		}
	}
	sw.mark("limits")
	if err := r.cfg.Networks.Apply(ctx, in.rec.Slot, l.Network); err != nil {
		return err
	}
	sw.mark("policy")
	if err := in.writeEtc(hostname(l)); err != nil {
		return err
	}
	if rn, ok := driver.As[driver.Renamer](r.cfg.Driver); ok {
		if err := rn.Rename(ctx, h, l.Sandbox, hostname(l), l.Labels); err != nil {
			return err
		}
	}
	sw.mark("name")
	err := in.tb.SetIdentity(ctx, identity(l))
	sw.mark("identity")
	return err
}
