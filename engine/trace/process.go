package trace

import (
	"strconv"
	"time"

	kernel "github.com/atoll-sh/atoll/ebpf/activity"
	"github.com/atoll-sh/atoll/ebpf/lineage"
)

const (
	// maxProcesses bounds the processes of one sandbox that are remembered.
	maxProcesses = 16384
	// maxAncestors bounds how far a process is followed back.
	maxAncestors = 64
)

// key names a process until the next boot.
type key = lineage.Process

// text is how records name a process.
func text(k key) string {
	if k == (key{}) {
		return ""
	}
	return strconv.Itoa(k.ID) + "-" + strconv.FormatInt(int64(k.Start), 36)
}

// process is one of a sandbox.
type process struct {
	key
	parent key    // the one that made it, whatever became of that
	inner  int    // its number as the sandbox counts; 0: unknown
	root   bool   // the toolbox made it
	call   string // of its maker at the time, unless it is a root
	runs   bool   // a program of its own
	seen   bool   // something was told of it
	waited bool   // for a report that did not come
	ended  time.Duration
}

// report is what the toolbox told: from at on, what a process does is for call.
type report struct {
	at   time.Duration
	call string
	// asker is the number of the process that it acts for; 0: for call. by is that
	// process; nil when nothing had been told of it, because the kernel tells later
	// than the toolbox does.
	asker int
	by    *process
}

// table is the processes of one sandbox.
type table struct {
	toolbox int // process 1, as the host counts; 0: not started
	origin  func(key) (maker key, inner int, ok bool)

	processes map[key]*process
	inner     map[int]*process // the last ones by their number
	reports   map[int][]report // by the number of the process, oldest first
	forgot    time.Duration    // when living processes were forgotten last
}

func newTable(origin func(key) (key, int, bool)) *table {
	return &table{origin: origin, processes: map[key]*process{}, inner: map[int]*process{}, reports: map[int][]report{}}
}

// process returns the process of an event.
func (t *table) process(p kernel.Process) *process {
	known := t.find(key{ID: p.ID, Start: p.Start}, 0)
	if known.inner == 0 {
		t.number(known, p.Inner)
	}
	return known
}

func (t *table) find(k key, depth int) *process {
	if p := t.processes[k]; p != nil {
		return p
	}
	if len(t.processes) >= maxProcesses {
		t.makeRoom(k.Start)
	}
	p := &process{key: k}
	t.processes[k] = p
	maker, inner, ok := t.origin(k)
	if !ok {
		return p
	}
	t.number(p, inner)
	p.parent = maker
	switch {
	case maker.ID == t.toolbox:
		p.root = true
	case depth < maxAncestors:
		p.call = t.callOf(t.find(maker, depth+1), k.Start)
	}
	return p
}

// makeRoom forgets what has ended and, when that is not enough, all. Whatever
// began before then may have been told of already.
func (t *table) makeRoom(now time.Duration) {
	for k, p := range t.processes {
		if p.ended == 0 {
			continue
		}
		delete(t.processes, k)
		if t.inner[p.inner] == p {
			delete(t.inner, p.inner)
		}
	}
	if len(t.processes) > maxProcesses/2 {
		clear(t.processes)
		clear(t.inner)
		t.forgot = now
	}
}

func (t *table) number(p *process, inner int) {
	p.inner = inner
	if inner == 0 {
		return
	}
	if old := t.inner[inner]; old == nil || old.Start <= p.Start {
		t.inner[inner] = p
	}
}

// callOf returns the call for which a process acts at a time; empty: none, or
// nobody knows. Who acts for whom is the toolbox's word, which may go in circles.
func (t *table) callOf(p *process, at time.Duration) string {
	for range maxAncestors {
		if !p.root {
			return p.call
		}
		rep, ok := t.report(p, at)
		if !ok || rep.asker == 0 {
			return rep.call
		}
		if rep.by == nil {
			rep.by = t.inner[rep.asker]
		}
		if rep.by == nil {
			return ""
		}
		p, at = rep.by, rep.at
	}
	return ""
}

// callDuring returns the call for which a process acted at some time between
// two; empty: none, or several.
func (t *table) callDuring(p *process, from, to time.Duration) string {
	call := t.callOf(p, from)
	if !p.root {
		return call
	}
	for _, r := range t.reports[p.inner] {
		if r.at <= from || r.at > to || r.call == "" || r.call == call {
			continue
		}
		if call != "" {
			return ""
		}
		call = r.call
	}
	return call
}

// report finds what was told last about a root, or first if the time is before
// all: the first one tells of its begin.
func (t *table) report(p *process, at time.Duration) (found report, ok bool) {
	for _, r := range t.reports[p.inner] {
		if r.at < p.Start || p.ended != 0 && r.at > p.ended+late { // of another that had the number
			continue
		}
		if ok && r.at > at {
			break
		}
		found, ok = r, true
	}
	return found, ok
}

// late is how long after the end of a process its begin may be reported.
const late = 2 * time.Second

// told takes a report.
func (t *table) told(inner int, r report, by int) {
	if by != 0 {
		r.asker, r.by = by, t.inner[by]
	}
	t.reports[inner] = append(t.reports[inner], r)
	if list := t.reports[inner]; len(list) > maxReports {
		t.reports[inner] = append(list[:0:0], list[len(list)-maxReports:]...)
	}
}

// maxReports bounds what is kept of one process. A session's shell gets two for
// each command.
const maxReports = 256

// prune forgets what ended long ago.
func (t *table) prune(now time.Duration) {
	for k, p := range t.processes {
		if p.ended != 0 && now-p.ended > keepEnded {
			delete(t.processes, k)
			if t.inner[p.inner] == p {
				delete(t.inner, p.inner)
				delete(t.reports, p.inner)
			}
		}
	}
	for inner, list := range t.reports {
		if t.inner[inner] == nil && now-list[len(list)-1].at > keepEnded {
			delete(t.reports, inner)
		}
	}
}
