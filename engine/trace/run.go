package trace

import (
	"strings"
	"sync"
	"time"

	kernel "github.com/atoll-sh/atoll/ebpf/activity"
	"github.com/atoll-sh/atoll/ebpf/lineage"
	"github.com/atoll-sh/atoll/engine"
)

const (
	// maxQueue bounds the events of one sandbox that wait to be told.
	maxQueue = 8192
	// patience is how long the first event of a process that the toolbox began
	// waits for the toolbox to say why.
	patience = 2 * time.Second
	// pruneEvery is how often ended processes are forgotten.
	pruneEvery = time.Second
)

// run is one instance, from before its first process to its end.
type run struct {
	tracer *Tracer
	number uint32
	base   uint32 // the host's number of its root
	upper  string // as in Group

	mu          sync.Mutex
	sandbox     string // empty: a member of the warm pool
	incarnation uint64
	since       time.Duration // events before are nobody's
	adopted     bool          // it ran before it was watched: a sandbox's, then already
	fault       error         // why it is not watched
	space       lineage.Space
	table       *table
	calls       calls
	queue       []kernel.Event
	unbound     []kernel.Event // gaps, until it is known whose
	lost        uint64         // beyond the queue
	missing     time.Duration  // when something was lost last, which may be the begin of a process
	flows       joiner
	pruned      time.Duration
}

func newRun(t *Tracer, number uint32, g Group) *run {
	r := &run{tracer: t, number: number, base: g.UIDBase, upper: g.Upper, since: 1<<63 - 1}
	r.table = newTable(t.lineage.Origin)
	return r
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = err
}

func (r *run) started(pid int, space lineage.Space) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table.toolbox, r.space = pid, space
}

func (r *run) bind(sandbox string, incarnation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandbox, r.incarnation, r.since = sandbox, incarnation, clock().boot
	if r.fault != nil {
		r.unbound = []kernel.Event{{Kind: kernel.KindGap, Time: r.since}}
	}
	if len(r.unbound) > 0 {
		r.queue, r.unbound = append(r.unbound, r.queue...), nil
		r.tracer.poke()
	}
}

// end returns the namespace that need not be watched any more.
func (r *run) end() lineage.Space {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.space
}

func (r *run) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.close()
}

// listen opens the socket on which the toolbox tells for whom it begins
// processes.
func (r *run) listen(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls.listen(dir, r.base)
}

func (r *run) push(e kernel.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxQueue {
		r.lost++
		r.missing = e.Time
		return
	}
	r.queue = append(r.queue, e)
}

// drain tells what is ready, and whether something waits still.
func (r *run) drain(now instant, record func(engine.ActivityRecord)) (waiting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 && r.lost == 0 && r.flows.empty() {
		return false
	}
	r.calls.read(r.table.toolbox, r.table.told)
	emit := func(rec engine.ActivityRecord) {
		if r.sandbox != "" {
			rec.Sandbox, rec.Incarnation = r.sandbox, r.incarnation
			record(rec)
		}
	}
	done := 0
	for _, e := range r.queue {
		if r.early(e, now.boot) {
			break
		}
		r.event(e, now, emit)
		done++
	}
	if r.queue = r.queue[done:]; len(r.queue) == 0 {
		r.queue = nil
		if r.lost > 0 {
			emit(engine.ActivityRecord{Time: now.wall, Kind: engine.ActivityLoss, Lost: r.lost, Reason: "more happened than could be told"})
			r.lost = 0
		}
	}
	r.flows.settle(now, emit)
	if now.boot-r.pruned > pruneEvery {
		r.pruned = now.boot
		r.table.prune(now.boot)
	}
	return len(r.queue) > 0 || !r.flows.empty()
}

// settled tells whether nothing waits that happened before a time.
func (r *run) settled(before time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return (len(r.queue) == 0 || r.queue[0].Time > before) && r.flows.settled(before)
}

// early tells whether an event has to wait for the toolbox to say on whose
// behalf the process began.
func (r *run) early(e kernel.Event, now time.Duration) bool {
	if e.Kind != kernel.KindExec || e.Time < r.since || len(r.queue) >= maxQueue/2 {
		return false
	}
	p := r.table.process(e.Process)
	if !p.root || p.waited {
		return false
	}
	if _, ok := r.table.report(p, e.Time); ok {
		return false
	}
	p.waited = now-e.Time > patience
	return !p.waited
}

// event tells of one event.
func (r *run) event(e kernel.Event, now instant, emit func(engine.ActivityRecord)) {
	switch e.Kind {
	case kernel.KindLost:
		r.missing = e.Time
		emit(engine.ActivityRecord{Time: now.at(e.Time), Kind: engine.ActivityLoss, Lost: e.Lost, Reason: lossReason(e)})
		return
	case kernel.KindGap:
		r.adopted = true
		if r.sandbox == "" {
			r.unbound = append(r.unbound, e) // whose it is comes next
			return
		}
		emit(r.gap(e, now))
		return
	}
	p := r.actor(e)
	if e.Kind == kernel.KindExit {
		p.ended = e.Time
	}
	if e.Time < r.since && !(r.adopted && e.Refused != "") || e.Kind == kernel.KindExit && !p.seen && max(r.missing, r.table.forgot) < p.Start {
		return // of the warm pool; or a fork that did nothing that was told
	}
	switch {
	case e.Kind == kernel.KindExec:
		p.runs = true
	case e.Kind == kernel.KindPrivilege && p.root && !p.runs && e.Refused == "":
		return // the toolbox makes itself the user that the program shall run as
	case p.ID == r.table.toolbox && strings.HasPrefix(e.Path, "/proc/"):
		return // how the toolbox sets up each process
	}
	p.seen = true
	rec := r.record(e, p, now)
	if e.Kind == kernel.KindConnect || e.Kind == kernel.KindAccept {
		r.flows.process(rec, now)
		return
	}
	emit(rec)
}

// actor is the process of an event.
func (r *run) actor(e kernel.Event) *process {
	if e.Process.Start == 0 { // it ended, and nobody knows which one it was
		return &process{inner: e.Process.Inner}
	}
	return r.table.process(e.Process)
}
