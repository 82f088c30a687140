package activity

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

const (
	// latency is how long an event may lie in the buffer. The programs wake the
	// reader only when much is there, because each waking costs the sandbox.
	latency = 50 * time.Millisecond
	// pollEvery is how often losses are looked for that no event followed.
	pollEvery = 250 * time.Millisecond
)

// Read waits for the next event. It returns os.ErrClosed after Close. Events of
// one processor are in order; those of different ones may be out of it by
// microseconds, which Time tells.
func (r *Recorder) Read() (Event, error) {
	for {
		if e, ok, err := r.next(); ok || err != nil {
			return e, err
		}
		r.lookAround()
		wait := latency
		if len(r.held) > 0 {
			wait = 0
		}
		r.ring.SetDeadline(time.Now().Add(wait))
		err := r.ring.ReadInto(&r.record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.release()
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return Event{}, os.ErrClosed
		case err != nil:
			return Event{}, fmt.Errorf("read activity: %w", err)
		}
		e, lost, err := decode(r.record.RawSample)
		if err != nil {
			return Event{}, err
		}
		if e.Time > r.heldAt {
			r.release()
		}
		r.remember(&e)
		return r.after(e, lost), nil
	}
}

// next gives an event that is not in the buffer.
func (r *Recorder) next() (Event, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return Event{}, false, os.ErrClosed
	}
	if now := time.Now(); len(r.pending) == 0 && now.Sub(r.polled) >= pollEvery {
		r.polled = now
		r.pollLocked(now)
	}
	if len(r.pending) == 0 {
		return Event{}, false, nil
	}
	e := r.pending[0]
	r.pending = r.pending[1:]
	return e, true, nil
}

// lookAround looks at all files, and at refused calls, when it is time to.
func (r *Recorder) lookAround() {
	now := time.Now()
	if len(r.held) > 0 || now.Sub(r.looked) < latency {
		return
	}
	r.looked = now
	events, all := r.lookAll()
	r.held, r.heldAt = append(r.takeRefused(), events...), bootNow()
	if all {
		r.rounds.Add(1)
	} else {
		r.looked = time.Time{}
	}
}

// release lets files' events go, when what processes did before has been told.
func (r *Recorder) release() {
	if len(r.held) == 0 {
		return
	}
	for i := range r.held {
		r.recall(&r.held[i])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, r.held...)
	r.held = nil
}

// after puts an event behind the losses before it and behind what else waits,
// and gives the first of them.
func (r *Recorder) after(e Event, lost uint64) Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.lostLocked(e.Sandbox, lost); ok {
		r.pending = append(r.pending, l)
	}
	if len(r.pending) == 0 {
		return e
	}
	r.pending = append(r.pending, e)
	e, r.pending = r.pending[0], r.pending[1:]
	return e
}

// lostLocked makes the event that tells of losses up to a total. Records of
// several processors may come with a smaller total after a larger one.
func (r *Recorder) lostLocked(sandbox uint32, total uint64) (Event, bool) {
	w := r.watched[sandbox]
	if w == nil || total <= w.told {
		return Event{}, false
	}
	e := Event{Kind: KindLost, Time: bootNow(), Sandbox: sandbox, Lost: total - w.told}
	w.told = total
	return e, true
}

// pollLocked tells of losses that no event followed, and forgets the removed.
func (r *Recorder) pollLocked(now time.Time) {
	for sandbox, w := range r.watched {
		var s bpfState
		if r.maps.States.Lookup(sandbox, &s) != nil {
			continue
		}
		if e, ok := r.lostLocked(sandbox, s.Lost); ok {
			r.pending = append(r.pending, e)
		}
		if !w.removed.IsZero() && now.Sub(w.removed) >= pollEvery {
			if gone(r.maps.States.Delete(sandbox)) == nil {
				delete(r.watched, sandbox)
			}
		}
	}
}
