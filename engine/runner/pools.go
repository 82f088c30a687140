package runner

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// memberMiB is how much memory of the host a waiting member is counted with.
// It uses about a sixth of that; the rest is for who claims it.
const memberMiB = 64

// poolFault is why a kind could not get a member.
type poolFault struct {
	text string
	at   time.Time
}

// full is the fault of a host that has no room for more members.
const full = "the host has no room for more warm sandboxes"

// mayTryLocked tells whether a member of this kind may be made now.
func (p *pool) mayTryLocked(k poolKey) bool {
	if f, failed := p.faults[k]; failed && time.Since(f.at) < refillRetry {
		return false
	}
	total := 0
	for _, list := range p.ready {
		total += len(list)
	}
	if most := p.r.mostMembers(); total >= most && p.base[k] <= len(p.ready[k]) {
		p.faults[k] = poolFault{full, time.Now()}
		return false
	}
	return true
}

// mostMembers bounds the pool by the memory of the host.
func (r *Runner) mostMembers() int { return max(int(r.cfg.Host.MemoryMiB/memberMiB), 16) }

// surplusLocked takes one member out that nobody wants any more.
func (p *pool) surplusLocked() *instance {
	for k, list := range p.ready {
		keep := p.want[k]
		if _, asked := p.recent[k]; asked {
			keep = max(keep, 1)
		}
		if n := len(list); n > keep {
			p.ready[k] = list[: n-1 : n-1]
			return list[n-1]
		}
	}
	return nil
}

// SetPools implements engine.Runner.
func (r *Runner) SetPools(_ context.Context, targets []engine.PoolTarget) error {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	want := maps.Clone(p.base)
	for _, t := range targets {
		if t.Image == "" || t.DiskMiB <= 0 || t.Size < 0 {
			return engine.Errorf(engine.KindInvalid, "a warm pool needs an image, a disk and a size")
		}
		want[t.PoolKind] += t.Size
	}
	if maps.Equal(want, p.want) {
		return nil
	}
	p.want = want
	maps.DeleteFunc(p.faults, func(k poolKey, _ poolFault) bool { return want[k] == 0 })
	p.wakeLocked()
	return nil
}

// Pools implements engine.Runner.
func (r *Runner) Pools(context.Context) ([]engine.PoolStatus, error) {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []engine.PoolStatus
	for k, n := range p.want {
		st := engine.PoolStatus{PoolTarget: engine.PoolTarget{PoolKind: k, Size: n}, Ready: len(p.ready[k])}
		if st.Ready < n {
			st.Error = p.faults[k].text
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b engine.PoolStatus) int {
		return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Disk, b.Disk), cmp.Compare(a.DiskMiB, b.DiskMiB))
	})
	return out, nil
}
