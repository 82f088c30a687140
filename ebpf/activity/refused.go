package activity

import "time"

// Caller is who made a call that a filter refused, as seen while it waited for
// the answer; the zero value when that is not known.
type Caller struct {
	ID      int           // of the process, as the host counts
	Thread  int           // that made the call
	Inner   int           // ID as the sandbox counts
	Start   time.Duration // of the process since boot, rounded down to Tick
	UID     uint32        // as the host counts
	Command string
}

// Tick is how exactly Caller knows when a process began.
const Tick = 10 * time.Millisecond

// Refused has Read tell, in its place among the other events of the sandbox, a
// KindPrivilege event of a call that a filter refused, or a KindLost event of
// calls that are missing. Who the caller is the kernel is asked now; an event
// of which it is not known has a Process without Start.
func (r *Recorder) Refused(sandbox uint32, c Caller, e Event) {
	e.Sandbox = sandbox
	if e.Kind != KindLost {
		e.Process = r.caller(sandbox, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.watched[sandbox]; r.closed || w == nil {
		return
	}
	r.refused = append(r.refused, e)
}

// caller finds the process. Its number may be another one's by now, which began
// at another time.
func (r *Recorder) caller(sandbox uint32, c Caller) Process {
	told := Process{ID: c.ID, Thread: c.Thread, Inner: c.Inner, UID: c.UID, EUID: c.UID, Command: c.Command}
	if c.ID == 0 {
		return told
	}
	live, _ := r.living(c.ID)
	ended := actor{}
	var p bpfProcess
	if r.maps.Ended.Lookup(uint32(c.ID), &p) == nil {
		ended = newActor(&p)
	}
	for _, a := range []actor{live, ended} {
		if a.known && a.sandbox == sandbox && a.Start.Truncate(Tick) == c.Start {
			told.Parent, told.Start, told.GID, told.EUID = a.Parent, a.Start, a.GID, a.EUID
			return told
		}
	}
	return told
}

// takeRefused gives what Refused was told.
func (r *Recorder) takeRefused() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.refused
	r.refused = nil
	return all
}
