package toolbox

import (
	"sync"
	"time"
)

// activity counts what is under way on somebody's behalf, so that a sandbox is
// not stopped for idleness meanwhile.
type activity struct {
	mu   sync.Mutex
	busy int
	last time.Time
}

func newActivity() *activity { return &activity{last: time.Now().UTC()} }

// begin notes a call; the returned function notes its end. Only calls that
// occupy the sandbox (commands, streams, attached terminals) are counted busy.
func (a *activity) begin(busy bool) (end func()) {
	n := 0
	if busy {
		n = 1
	}
	a.note(n)
	return sync.OnceFunc(func() { a.note(-n) })
}

func (a *activity) note(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy += n
	a.last = time.Now().UTC()
}

func (a *activity) now() (busy int, last time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy, a.last
}
