package runner

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/image"
)

// poolKey is what cannot be changed after an instance was made. Everything
// else (name, environment, labels, limits, policy, user) is bound at claim.
type poolKey = engine.PoolKind

// keyOf is the zero kind for what no member can become.
func keyOf(l engine.Launch) poolKey {
	if l.Class != "" && l.Class != engine.ClassContainer {
		return poolKey{}
	}
	return poolKey{Image: l.Image, Disk: l.Disk, DiskMiB: l.Resources.DiskMiB}
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
	base   map[poolKey]int // as configured
	want   map[poolKey]int // base and what SetPools asked for
	faults map[poolKey]poolFault
	recent map[poolKey]time.Time // kinds asked for and missed
	ready  map[poolKey][]*instance
	last   time.Time // of the last launch
	closed bool
}

func newPool(r *Runner, targets []engine.PoolTarget) *pool {
	p := &pool{
		r: r, nudge: make(chan struct{}, 1), base: map[poolKey]int{}, faults: map[poolKey]poolFault{},
		recent: map[poolKey]time.Time{}, ready: map[poolKey][]*instance{},
	}
	for _, t := range targets {
		p.base[t.PoolKind] = t.Size
	}
	p.want = maps.Clone(p.base)
	return p
}

// take returns a ready member for l, or nil at once. Members of an image that
// its tag has moved away from are no good any more; they are undone.
func (p *pool) take(l engine.Launch) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	k := keyOf(l)
	for len(p.ready[k]) > 0 {
		in := p.ready[k][0]
		p.ready[k] = p.ready[k][1:]
		p.wakeLocked()
		if !stale(in, l) {
			return in
		}
		p.r.tasks.Go(func() { p.r.undo(context.Background(), in) })
	}
	return nil
}

// stale tells whether a member was made of other layers than l means.
func stale(in *instance, l engine.Launch) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return l.ImageDigest != "" && in.rec.Image != "" && in.rec.Image != image.Pin(engine.Image{Ref: l.Image, Digest: l.ImageDigest})
}

// missed notes that a launch found no member of this kind.
func (p *pool) missed(k poolKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	if k.Image == "" || k.Disk != "" || len(p.base) == 0 {
		return // pools are switched off, or this kind is not asked for again
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

// wake looks again at once, also at what failed.
func (p *pool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.faults)
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

// refill makes or removes at most one member and says when to look again.
func (p *pool) refill(ctx context.Context) time.Duration {
	p.mu.Lock()
	if quiet := time.Since(p.last); quiet < refillQuiet && !p.last.IsZero() {
		p.mu.Unlock()
		return refillQuiet - quiet
	}
	if in := p.surplusLocked(); in != nil {
		p.mu.Unlock()
		p.r.undo(ctx, in)
		return 0
	}
	k, ok := p.shortLocked()
	wait := time.Minute
	if len(p.faults) > 0 {
		wait = refillRetry
	}
	p.mu.Unlock()
	if !ok {
		return wait
	}
	in, err := p.fresh(ctx, k)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			if engine.KindOf(err) != engine.KindNotFound { // not built or pulled yet
				p.r.log.Warn("warm pool", "image", k.Image, "err", err)
			}
			p.faults[k] = poolFault{engine.AsError(err).Message, time.Now()}
		}
		return 0 // other kinds may be short
	}
	delete(p.faults, k)
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

// fresh makes a member. An image that is not here yet is looked for again when
// EnsureImage wakes the pool.
func (p *pool) fresh(ctx context.Context, k poolKey) (*instance, error) {
	if _, err := p.r.cfg.Images.Image(ctx, k.Image); err != nil {
		return nil, err
	}
	in, err := p.r.make(ctx, engine.Launch{
		Image: k.Image, Disk: k.Disk, Class: engine.ClassContainer,
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: k.DiskMiB},
	}, newStopwatch())
	if err == nil {
		p.rehearse(ctx, in)
	}
	return in, err
}

// shortLocked finds a kind with fewer members than wanted, the configured
// ones first. One that just failed has to wait.
func (p *pool) shortLocked() (poolKey, bool) {
	if p.closed {
		return poolKey{}, false
	}
	for _, kinds := range []map[poolKey]int{p.base, p.want} {
		for k := range kinds {
			if len(p.ready[k]) < p.want[k] && p.mayTryLocked(k) {
				return k, true
			}
		}
	}
	for k, at := range p.recent {
		switch {
		case time.Since(at) > adaptiveTime:
			delete(p.recent, k)
		case p.want[k] == 0 && len(p.ready[k]) < 1 && p.mayTryLocked(k):
			return k, true
		}
	}
	return poolKey{}, false
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
	trust, err := r.seal(in, l)
	if err != nil {
		return err
	}
	if err := errors.Join(r.cfg.Networks.Apply(ctx, in.rec.Slot, l.Network), r.confine(ctx, in, l.Rules)); err != nil {
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
	r.traceBind(in)
	err = in.tb.SetIdentity(ctx, identity(l, trust))
	sw.mark("identity")
	return err
}
