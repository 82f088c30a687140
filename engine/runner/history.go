package runner

import (
	"context"
	"encoding/gob"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// What sandboxes used is kept for a day: the last hour closely, the time
// before in averages. A thousand sandboxes that work all day take 17 MB.
const (
	sampleEvery = 15 * time.Second
	sampleIdle  = 5 * time.Minute // the most between looks at one that does nothing
	fineKept    = 240             // an hour
	coarseStep  = 300             // seconds that one average stands for
	coarseKept  = 288             // a day
	pastSaved   = 10 * time.Minute
	pastMax     = 256 << 20 // bytes of the file, of which more is not read
	idleCores   = 0.005
	freshFor    = 5 * time.Second // how old the newest may be when it is asked for
)

// point is a sample in 32 bytes. Sizes are KiB.
type point struct {
	At                                       uint32 // seconds since 1970
	CPU, CPULimit                            float32
	Memory, Cache, MemoryLimit, Disk, DiskOf uint32
}

// series is the past of one sandbox.
type series struct {
	Fine, Coarse []point
	sum          point // of the points of the coarse step under way
	cpu          float64
	n            uint32

	last  engine.Stats // the newest, for what was used since
	since time.Duration
	due   time.Time
}

// past holds the series of all sandboxes of this host.
type past struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	m     map[string]*series
	dirty bool
}

// openPast reads what a server before this one saved. What cannot be read is
// not missed.
func openPast(path string, log *slog.Logger) *past {
	p := &past{path: path, log: log, m: map[string]*series{}}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p
	}
	if err == nil {
		err = gob.NewDecoder(io.LimitReader(f, pastMax)).Decode(&p.m)
		f.Close()
	}
	if err != nil || p.m == nil {
		log.Warn("history not read; it starts anew", "err", err)
		p.m = map[string]*series{}
	}
	return p
}

// save writes the file in one piece. A crash loses what came after the last.
func (p *past) save() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dirty {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(p.path), ".history-*") // mode 0600
	if err == nil {
		err = errors.Join(gob.NewEncoder(f).Encode(p.m), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), p.path)
		}
		if err != nil {
			os.Remove(f.Name())
		}
	}
	if err != nil {
		p.log.Warn("history not saved", "err", err)
		return
	}
	p.dirty = false
}

// sample measures what runs until ctx ends.
func (r *Runner) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	saved := time.Now()
	for {
		select {
		case <-ctx.Done():
			r.past.save()
			return
		case now := <-tick.C:
			r.sampleAll(ctx, now)
			if now.Sub(saved) >= pastSaved {
				r.past.save()
				saved = now
			}
		}
	}
}

// sampleAll measures those whose turn it is, one after the other, and forgets
// those that are gone.
func (r *Runner) sampleAll(ctx context.Context, now time.Time) {
	here := map[string]bool{}
	for _, in := range r.all() {
		snap := in.snapshot()
		here[snap.Sandbox] = true
		if snap.State == engine.StateStarted && r.past.turn(snap.Sandbox, now, snap.Busy) {
			r.look(ctx, snap)
		}
	}
	r.past.keep(here)
}

// look measures one sandbox. One that cannot be measured has a gap.
func (r *Runner) look(ctx context.Context, in engine.Instance) {
	st, err := r.Stats(ctx, in.Sandbox)
	if err != nil {
		return
	}
	r.past.add(in.Sandbox, st, in.Resources)
}

// turn tells whether a sandbox is to be measured now.
func (p *past) turn(sandbox string, now time.Time, busy bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.m[sandbox]
	return s == nil || busy || !now.Before(s.due)
}

// keep forgets all other sandboxes.
func (p *past) keep(here map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.m {
		if !here[id] {
			delete(p.m, id)
			p.dirty = true
		}
	}
}

// add appends a sample. The more idle a sandbox is, the later its next turn.
func (p *past) add(sandbox string, st engine.Stats, limits engine.Resources) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.m[sandbox]
	if s == nil {
		s = &series{}
		p.m[sandbox] = s
	}
	cores := 0.0
	if d := st.Time.Sub(s.last.Time); !s.last.Time.IsZero() && d > 0 && st.CPUNanos >= s.last.CPUNanos {
		cores = float64(st.CPUNanos-s.last.CPUNanos) / float64(d)
	}
	s.since = min(2*max(s.since, sampleEvery), sampleIdle)
	if cores > idleCores || s.last.Time.IsZero() {
		s.since = sampleEvery
	}
	s.due = st.Time.Add(s.since - sampleEvery/2) // ticks are not exact
	s.last = st
	s.push(point{
		At: uint32(st.Time.Unix()), CPU: float32(cores), CPULimit: float32(limits.CPU),
		Memory: kib(st.MemoryBytes), Cache: kib(st.CacheBytes), MemoryLimit: kib(uint64(limits.MemoryMiB) << 20),
		Disk: kib(st.DiskBytes), DiskOf: kib(uint64(limits.DiskMiB) << 20),
	})
	p.dirty = true
}

func kib(bytes uint64) uint32 { return uint32(min(bytes>>10, 1<<32-1)) }

// push keeps a point closely, and counts it into the average of its step.
func (s *series) push(q point) {
	if n := len(s.Fine); n > 0 && q.At < s.Fine[n-1].At {
		return // the clock was set back
	}
	s.Fine = appended(s.Fine, q, fineKept)
	if s.n > 0 && q.At/coarseStep != s.sum.At/coarseStep {
		s.Coarse = appended(s.Coarse, s.average(), coarseKept)
		s.n, s.cpu = 0, 0
	}
	s.n++
	s.cpu += float64(q.CPU)
	n := uint64(s.n)
	mean := func(old, now uint32) uint32 { return uint32((uint64(old)*(n-1) + uint64(now)) / n) }
	before := s.sum
	s.sum = q
	if s.n > 1 {
		s.sum.Memory, s.sum.Cache, s.sum.Disk = mean(before.Memory, q.Memory), mean(before.Cache, q.Cache), mean(before.Disk, q.Disk)
	}
}

func (s *series) average() point {
	avg := s.sum
	avg.CPU = float32(s.cpu / float64(s.n))
	return avg
}

func appended(list []point, q point, most int) []point {
	if len(list) >= most {
		copy(list, list[1:])
		list = list[:len(list)-1]
	}
	return append(list, q)
}

// Samples implements engine.Runner. For a time that ends about now, a running
// sandbox whose newest sample is old is measured once more.
func (r *Runner) Samples(ctx context.Context, q engine.SampleQuery) ([]engine.Sample, error) {
	in, err := r.find(q.Sandbox)
	if err != nil {
		return nil, err
	}
	if now := time.Now(); now.Sub(q.To).Abs() < freshFor {
		q.To = now.Add(freshFor)
		if snap := in.snapshot(); snap.State == engine.StateStarted && r.past.stale(q.Sandbox) {
			r.look(ctx, snap)
		}
	}
	return r.past.between(q), nil
}

func (p *past) stale(sandbox string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.m[sandbox]
	return s == nil || time.Since(s.last.Time) > freshFor
}

// between returns averages up to where the close samples begin, then those.
func (p *past) between(q engine.SampleQuery) []engine.Sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.m[q.Sandbox]
	if s == nil {
		return nil
	}
	var out []engine.Sample
	add := func(list []point, before uint32) {
		for _, pt := range list {
			at := time.Unix(int64(pt.At), 0).UTC()
			if pt.At < before && !at.Before(q.From.Truncate(time.Second)) && !at.After(q.To) {
				out = append(out, pt.sample(at))
			}
		}
	}
	if len(s.Fine) > 0 {
		add(s.Coarse, s.Fine[0].At)
	}
	add(s.Fine, 1<<32-1)
	return out
}

func (pt point) sample(at time.Time) engine.Sample {
	return engine.Sample{
		Time: at, CPU: float64(pt.CPU), CPULimit: float64(pt.CPULimit),
		MemoryBytes: uint64(pt.Memory) << 10, CacheBytes: uint64(pt.Cache) << 10, MemoryLimit: uint64(pt.MemoryLimit) << 10,
		DiskBytes: uint64(pt.Disk) << 10, DiskTotal: uint64(pt.DiskOf) << 10,
	}
}
