package refused

import "time"

const (
	// repeat is how long the same call of a process is counted instead of told.
	repeat = time.Minute
	// maxSame bounds the calls that are remembered for that.
	maxSame = 256
)

// same tells of a call when it is made first, and later how often it was
// repeated.
type same struct {
	tell  func(Call)
	known map[sameKey]*Call // Times counts those that were not told
	next  time.Duration     // since boot: when flush is due, unless nothing is known
}

type sameKey struct {
	process       int
	started       uint64
	uid           uint32
	command       string
	name, details string
}

// add takes one call.
func (s *same) add(c Call, probe bool) {
	key := sameKey{c.Caller.ID, c.Caller.Started, c.Caller.UID, c.Caller.Command, c.Name, c.Detail}
	if probe {
		key.process, key.started = 0, 0
	}
	if old := s.known[key]; old != nil {
		old.Times++
		old.Time = c.Time
		return
	}
	s.tell(c)
	if len(s.known) >= maxSame {
		s.flush(c.Time, true)
	}
	if len(s.known) == 0 {
		s.next = c.Time + repeat
	}
	c.Times = 0
	s.known[key] = &c
}

// due is when flush has to be called; zero for not at all.
func (s *same) due() time.Time {
	if len(s.known) == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.next - bootNow())
}

// flush tells of what was repeated, and forgets what was not, or all.
func (s *same) flush(now time.Duration, all bool) {
	s.next = now + repeat
	for key, c := range s.known {
		if c.Times > 0 {
			s.tell(*c)
		}
		if all || c.Times == 0 {
			delete(s.known, key)
		}
		c.Times = 0
	}
}
