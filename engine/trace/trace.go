// Package trace makes records of the ledger out of what the kernel tells of
// processes, and says for each by which call it came about.
//
// The toolbox tells which process it began for which call. The kernel tells who
// began every other process, from the moment of the fork, so that a process
// belongs to its call however often it forks and whoever became its parent
// since. What the toolbox does itself, and what was there before the sandbox was
// watched, belongs to no call. Nothing is guessed.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	kernel "github.com/atoll-sh/atoll/ebpf/activity"
	"github.com/atoll-sh/atoll/ebpf/lineage"
	"github.com/atoll-sh/atoll/engine"
)

const (
	// buffer is the kernel's room for events that were not read yet. It counts
	// twice as memory of this process.
	buffer = 512 << 10
	// drainEvery is how often what waits is looked at.
	drainEvery = 20 * time.Millisecond
	// kernelLate is how long an event may take from the kernel to here.
	kernelLate = 70 * time.Millisecond
	// keepEnded is how long a sandbox that ended may still be told of.
	keepEnded = 5 * time.Second
)

// Group is what an instance is to the kernel.
type Group struct {
	Dir     string // of its control group, which exists
	Upper   string // where the host has what is changed in its root directory; empty: that is no overlay
	Control string // the host's directory in which its toolbox finds sockets
	UIDBase uint32 // the host's number of its root
}

// Tracer watches instances. Its methods may be called concurrently.
type Tracer struct {
	log      *slog.Logger
	recorder *kernel.Recorder
	lineage  *lineage.Lineage
	down     time.Time // when the server before this one was last known to run; may be zero
	wake     chan struct{}
	read     sync.WaitGroup

	mu      sync.Mutex
	last    uint32
	runs    map[string]*run // by instance
	ended   map[string]*run // the last one of each instance, for a while
	numbers map[uint32]*run // the ended ones too, for a while
	holders map[string]*run // by sandbox
}

// Options say what to watch.
type Options struct {
	// Down is when a server before this one was last known to watch; zero when
	// there was none.
	Down time.Time
}

// Open begins to watch. It fails with engine.KindUnsupported where the kernel
// cannot.
func Open(o Options, log *slog.Logger) (*Tracer, error) {
	t := &Tracer{
		log: log, down: o.Down, wake: make(chan struct{}, 1),
		runs: map[string]*run{}, ended: map[string]*run{}, numbers: map[uint32]*run{}, holders: map[string]*run{},
	}
	var err error
	if t.lineage, err = lineage.Open(); err == nil {
		t.recorder, err = kernel.Open(kernel.Options{Buffer: buffer})
	}
	if err != nil {
		if errors.Is(err, kernel.ErrNotSupported) {
			err = engine.Errorf(engine.KindUnsupported, "this kernel cannot tell what processes do").
				WithHint("Linux 6.1 or newer with BTF is needed, and BPF must be allowed").Wrap(err)
		}
		return nil, errors.Join(err, t.Close())
	}
	t.read.Go(t.readAll)
	return t, nil
}

// Close ends it. What was not told yet is lost.
func (t *Tracer) Close() error {
	var errs []error
	if t.recorder != nil {
		errs = append(errs, t.recorder.Close())
	}
	t.read.Wait()
	if t.lineage != nil {
		errs = append(errs, t.lineage.Close())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.numbers {
		r.close()
	}
	return errors.Join(errs...)
}

// Begin watches an instance from before its first process. One that runs
// already, because a server before this one began it, is watched from now on,
// and a gap is told. After an error the instance is not watched, which is told
// as well, once it is a sandbox's.
func (t *Tracer) Begin(instance string, g Group) error {
	t.End(instance)
	t.mu.Lock()
	t.last++
	r := newRun(t, t.last, g)
	t.runs[instance], t.numbers[r.number] = r, r
	t.mu.Unlock()
	err := t.recorder.Add(g.Dir, r.number)
	if err == nil {
		err = r.listen(g.Control)
	}
	if err != nil {
		r.fail(err)
		return fmt.Errorf("watch the processes of instance %s: %w", instance, err)
	}
	return nil
}

// Started tells the number of an instance's process 1 on the host.
func (t *Tracer) Started(instance string, pid int) {
	t.mu.Lock()
	r := t.runs[instance]
	t.mu.Unlock()
	if r == nil || pid == 0 {
		return
	}
	space, err := t.lineage.Watch(pid)
	if err != nil {
		t.log.Warn("the processes of an instance are not followed", "instance", instance, "err", err)
	}
	if err := t.recorder.Watch(r.number, fmt.Sprintf("/proc/%d/root", pid), r.upper); err != nil {
		t.log.Warn("what happens to files is not recorded", "instance", instance, "err", err)
	}
	r.started(pid, space)
}

// Bind says whose an instance is from now on. What its processes did before,
// as a member of the warm pool, is nobody's.
func (t *Tracer) Bind(instance, sandbox string, incarnation uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.runs[instance]; r != nil {
		t.holders[sandbox] = r
		r.bind(sandbox, incarnation)
	}
}

// End forgets an instance whose processes are gone.
func (t *Tracer) End(instance string) {
	t.mu.Lock()
	r := t.runs[instance]
	if r != nil {
		delete(t.runs, instance)
		t.ended[instance] = r
		if t.holders[r.sandbox] == r {
			delete(t.holders, r.sandbox)
		}
		time.AfterFunc(keepEnded, func() { t.forget(instance, r) })
	}
	t.mu.Unlock()
	if r == nil {
		return
	}
	if err := t.recorder.Remove(r.number); err != nil {
		t.log.Warn("an instance is still watched", "instance", instance, "err", err)
	}
	if space := r.end(); space != 0 {
		_ = t.lineage.Forget(space) // the kernel makes numbers of namespaces anew
	}
}

func (t *Tracer) forget(instance string, r *run) {
	t.mu.Lock()
	delete(t.numbers, r.number)
	if t.ended[instance] == r {
		delete(t.ended, instance)
	}
	t.mu.Unlock()
	r.close()
}

// readAll takes events from the kernel until Close.
func (t *Tracer) readAll() {
	for {
		e, err := t.recorder.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			t.log.Error("an event of a process was not understood", "err", err)
			continue
		}
		t.mu.Lock()
		r := t.numbers[e.Sandbox]
		t.mu.Unlock()
		if r != nil {
			r.push(e)
			t.poke()
		}
	}
}

// poke has Run look at what waits.
func (t *Tracer) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run implements activity.Source. One Run at a time.
func (t *Tracer) Run(ctx context.Context, record func(engine.ActivityRecord)) error {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for waiting := false; ; {
		if !waiting {
			tick.Stop()
			select {
			case <-ctx.Done():
				return nil
			case <-t.wake:
			}
			tick.Reset(drainEvery) // more may come with it
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		waiting = t.drain(record)
	}
}

// drain tells what is ready, and whether something waits still.
func (t *Tracer) drain(record func(engine.ActivityRecord)) (waiting bool) {
	t.mu.Lock()
	all := make([]*run, 0, len(t.numbers))
	for _, r := range t.numbers {
		all = append(all, r)
	}
	t.mu.Unlock()
	now := clock()
	for _, r := range all {
		waiting = r.drain(now, record) || waiting
	}
	return waiting
}

// Flow takes a record of a connection or a name that was seen outside the
// sandbox, and tells it with the process whose it is as soon as that is known.
func (t *Tracer) Flow(rec engine.ActivityRecord, record func(engine.ActivityRecord)) {
	t.mu.Lock()
	r := t.holders[rec.Sandbox]
	t.mu.Unlock()
	if r == nil || !r.hold(rec) {
		record(rec)
		return
	}
	t.poke()
}

// Refusal is a system call that the filter of an instance refused.
type Refusal struct {
	Time   time.Duration // since boot
	Name   string        // of the call; empty: Lost is all that is told
	Detail string        // its arguments
	Cut    bool          // some are not whole
	Caller Caller
	Times  uint64 // how many calls of the caller this stands for
	Lost   uint64 // how many calls before this one nobody can tell of
}

// Caller is who made a refused call.
type Caller = kernel.Caller

// Refused takes what the filter of an instance refused. It is told in its place
// among what the processes did.
func (t *Tracer) Refused(instance string, c Refusal) {
	t.mu.Lock()
	r := t.runs[instance]
	if r == nil {
		r = t.ended[instance] // what was repeated is told at the end
	}
	t.mu.Unlock()
	if r == nil {
		return
	}
	if c.Lost > 0 {
		t.recorder.Refused(r.number, c.Caller, kernel.Event{Kind: kernel.KindLost, Time: c.Time, Lost: c.Lost})
	}
	if c.Name != "" {
		t.recorder.Refused(r.number, c.Caller, kernel.Event{
			Kind: kernel.KindPrivilege, Time: c.Time, Refused: c.Name, Path: c.Detail, Cut: c.Cut, Times: c.Times, Result: -int64(unix.EPERM),
		})
	}
}

// Settle waits until all that a sandbox's processes did before was told.
func (t *Tracer) Settle(ctx context.Context, sandbox string) {
	t.mu.Lock()
	r := t.holders[sandbox]
	t.mu.Unlock()
	if r == nil {
		return
	}
	begin := clock().boot
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for passed := time.Duration(0); passed < kernelLate || passed < patience && !r.settled(begin); passed = clock().boot - begin {
		select {
		case <-tick.C:
			t.poke()
		case <-ctx.Done():
			return
		}
	}
}

// instant is a moment on the clock of events and on the one of people.
type instant struct {
	boot time.Duration
	wall time.Time
}

func clock() instant {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail
	return instant{time.Duration(ts.Nano()), time.Now().UTC()}
}

// at is the time of people for a moment of the clock of events.
func (i instant) at(boot time.Duration) time.Time { return i.wall.Add(boot - i.boot) }
