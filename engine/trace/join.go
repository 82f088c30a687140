package trace

import (
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

const (
	// joinWait is how long a flow waits for the process that it belongs to, and
	// the other way round. The kernel's events of processes come up to 50 ms
	// late.
	joinWait = 250 * time.Millisecond
	// joinable is how far apart they may be: a connection may take a while.
	joinable = 2 * time.Second
	// asking is how long before a question for a name a process opens the
	// socket for it.
	asking = 200 * time.Millisecond
	// maxHeld bounds what waits, and what is remembered, of one sandbox.
	maxHeld = 1024
)

// joiner brings together what the device and the processes of a sandbox tell
// of the same connection.
type joiner struct {
	flows  []flow
	begun  []begun             // what processes did lately, oldest first
	opened map[[3]string]actor // by protocol, local and remote address, until the close
}

// flow is a record from the device that waits for its process.
type flow struct {
	rec   engine.ActivityRecord
	until time.Duration
}

// actor is who a flow belongs to.
type actor struct {
	process, parent, call string
	pid                   int
	uid                   *uint32
}

func (a actor) mark(rec *engine.ActivityRecord) {
	rec.Process, rec.Parent, rec.Call, rec.PID, rec.UID = a.process, a.parent, a.call, a.pid, a.uid
}

// begun is a connection as its process sees it.
type begun struct {
	rec   engine.ActivityRecord
	until time.Duration // then it is told by itself
	done  bool          // it was told, with a flow or without
}

func (j *joiner) empty() bool {
	if len(j.flows) > 0 {
		return false
	}
	for _, b := range j.begun {
		if !b.done {
			return false
		}
	}
	return true
}

// settled tells whether nothing waits that was taken before a time.
func (j *joiner) settled(before time.Duration) bool {
	for _, f := range j.flows {
		if f.until-joinWait <= before {
			return false
		}
	}
	for _, b := range j.begun {
		if !b.done && b.until-joinWait <= before {
			return false
		}
	}
	return true
}

// process takes what a process did. That a connection failed belongs to the one
// that was begun.
func (j *joiner) process(rec engine.ActivityRecord, now instant) {
	if rec.Code != 0 && j.failed(&rec) {
		return
	}
	if len(j.begun) >= maxHeld {
		j.begun = append(j.begun[:0:0], j.begun[maxHeld/2:]...)
	}
	j.begun = append(j.begun, begun{rec: rec, until: now.boot + joinWait})
}

// failed notes the failure of a connection that is known.
func (j *joiner) failed(rec *engine.ActivityRecord) bool {
	for i := len(j.begun) - 1; i >= 0; i-- {
		b := &j.begun[i].rec
		if b.Process == rec.Process && b.Protocol == rec.Protocol && b.Remote == rec.Remote && b.Code == 0 && (rec.Local == "" || b.Local == rec.Local) {
			b.Code, b.Reason = rec.Code, rec.Reason
			return true
		}
	}
	return false
}

// hold keeps a record of the device until its process is known. Not for
// kinds that no process has.
func (r *run) hold(rec engine.ActivityRecord) bool {
	switch rec.Kind {
	case engine.ActivityConnect, engine.ActivityDeny, engine.ActivityDNS, engine.ActivityClose, engine.ActivityCut, engine.ActivitySecret:
	default:
		return false
	}
	now := clock()
	if rec.Time.IsZero() {
		rec.Time = now.wall
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault != nil || len(r.flows.flows) >= maxHeld {
		return false
	}
	r.flows.flows = append(r.flows.flows, flow{rec, now.boot + joinWait})
	return true
}

// settle tells what found its counterpart or waited long enough.
func (j *joiner) settle(now instant, emit func(engine.ActivityRecord)) {
	kept := j.flows[:0]
	for _, f := range j.flows {
		who, sure := j.match(&f.rec)
		if !sure && f.until > now.boot {
			kept = append(kept, f)
			continue
		}
		who.mark(&f.rec)
		j.remember(&f.rec, who)
		emit(f.rec)
	}
	if j.flows = kept; len(kept) == 0 {
		j.flows = nil
	}
	first := len(j.begun)
	for i := range j.begun {
		b := &j.begun[i]
		if !b.done && b.until <= now.boot {
			b.done = true
			// A datagram socket's far end is no connection; what is sent is a flow.
			if b.rec.Protocol != "udp" {
				emit(b.rec)
			}
		}
		if first > i && (!b.done || b.until+joinable > now.boot) {
			first = i
		}
	}
	if j.begun = j.begun[first:]; len(j.begun) == 0 {
		j.begun = nil
	}
}

// remember keeps whose a connection is until it is closed.
func (j *joiner) remember(rec *engine.ActivityRecord, who actor) {
	k := [3]string{rec.Protocol, rec.Local, rec.Remote}
	switch rec.Kind {
	case engine.ActivityConnect:
		if who == (actor{}) {
			return
		}
		if j.opened == nil || len(j.opened) >= maxHeld {
			j.opened = map[[3]string]actor{}
		}
		j.opened[k] = who
	case engine.ActivityClose, engine.ActivityCut:
		delete(j.opened, k)
	}
}

// match finds who a flow belongs to, and whether waiting can change that.
func (j *joiner) match(rec *engine.ActivityRecord) (who actor, sure bool) {
	if who, ok := j.known(rec); ok {
		return who, true
	}
	var near []*begun
	for i := range j.begun {
		b := &j.begun[i]
		switch {
		case !matches(rec, &b.rec):
			continue
		case rec.Local != "" && b.rec.Local == rec.Local && b.rec.Protocol == rec.Protocol:
			b.done = true
			return actorOf(&b.rec), true
		case rec.Local == "" || localless(b.rec.Local) || rec.Kind == engine.ActivityDNS:
			near = append(near, b)
		}
	}
	if len(near) == 0 {
		return actor{}, false
	}
	who = actorOf(&near[0].rec)
	for _, b := range near {
		b.done = true
		other := actorOf(&b.rec)
		if other.process != who.process { // several did: what they have in common is known
			who.process, who.parent, who.pid, who.uid = "", "", 0, nil
		}
		if other.call != who.call {
			who.call = ""
		}
	}
	return who, false
}

// known finds the connection that a flow is a later part of.
func (j *joiner) known(rec *engine.ActivityRecord) (actor, bool) {
	who, ok := j.opened[[3]string{rec.Protocol, rec.Local, rec.Remote}]
	if ok || !portOnly(rec.Remote) {
		return who, ok
	}
	for k, who := range j.opened {
		if k[0] == rec.Protocol && k[1] == rec.Local && strings.HasSuffix(k[2], rec.Remote) {
			return who, true
		}
	}
	return actor{}, false
}

// portOnly tells whether an address is a port alone: what the proxy says, which
// connects by name.
func portOnly(remote string) bool { return strings.HasPrefix(remote, ":") }

// matches tells whether a process's connection can be what a flow shows.
func matches(rec, process *engine.ActivityRecord) bool {
	apart := rec.Time.Sub(process.Time)
	if rec.Kind == engine.ActivityDNS {
		return apart < asking && apart > -asking && !process.Inbound && strings.HasSuffix(process.Remote, ":53")
	}
	return apart < joinable && apart > -joinWait && rec.Inbound == process.Inbound &&
		process.Protocol == rec.Protocol && (process.Remote == rec.Remote || portOnly(rec.Remote) && strings.HasSuffix(process.Remote, rec.Remote))
}

// localless tells whether a socket had no address of its own yet, or none any
// more.
func localless(local string) bool {
	return local == "" || strings.HasPrefix(local, "0.0.0.0:") || strings.HasPrefix(local, "[::]:") || strings.HasSuffix(local, ":0")
}

func actorOf(rec *engine.ActivityRecord) actor {
	return actor{rec.Process, rec.Parent, rec.Call, rec.PID, rec.UID}
}
