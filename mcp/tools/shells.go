package tools

import (
	"context"
	"sync"
	"time"
)

const (
	maxIdle = 2 // shells kept ready for one sandbox
	maxKept = 8 // ended commands of one sandbox whose long output stays readable
)

// shells are sessions for foreground commands. One that ended a command is
// used for the next, because starting a shell takes longer than most commands;
// commands run in a subshell and leave no trace in it.
type shells struct {
	mu   sync.Mutex
	idle map[string][]shell // by organization and sandbox as named
	kept map[string][]shell
}

// shell is a session with the way to it.
type shell struct {
	id  string
	box *box
}

func newShells() *shells { return &shells{idle: map[string][]shell{}, kept: map[string][]shell{}} }

func shellKey(a Args) string { return a.Organization + " " + a.Str("id") }

// take returns the id of an idle shell, or "".
func (s *shells) take(a Args) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.idle[shellKey(a)]
	if len(idle) == 0 {
		return ""
	}
	s.idle[shellKey(a)] = idle[:len(idle)-1]
	return idle[len(idle)-1].id
}

// put makes a shell idle. It returns the one that is too many, or "".
func (s *shells) put(a Args, b *box, id string) (surplus string) {
	return s.add(s.idle, maxIdle, a, b, id)
}

// keep leaves an ended command readable. It returns the one that is too many,
// or "".
func (s *shells) keep(a Args, b *box, id string) (surplus string) {
	return s.add(s.kept, maxKept, a, b, id)
}

func (s *shells) add(to map[string][]shell, most int, a Args, b *box, id string) (surplus string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(to[shellKey(a)], shell{id, b})
	if len(all) > most {
		surplus, all = all[0].id, all[1:]
	}
	to[shellKey(a)] = all
	return surplus
}

// forget drops what is known of a sandbox that is gone or has stopped.
func (s *shells) forget(a Args) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.idle, shellKey(a))
	delete(s.kept, shellKey(a))
}

// close ends the idle shells. Kept ones stay, as agents may come back.
func (s *shells) close(ctx context.Context) {
	s.mu.Lock()
	idle := s.idle
	s.idle = map[string][]shell{}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, list := range idle {
		for _, sh := range list {
			all.Go(func() { _ = sh.box.EndSession(ctx, sh.id) })
		}
	}
	all.Wait()
}
