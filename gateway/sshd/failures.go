package sshd

import (
	"sync"
	"time"
)

// failures counts the wrong tokens of each address in windows of a minute.
type failures struct {
	limit int
	now   func() time.Time

	mu sync.Mutex
	m  map[string]tries
}

type tries struct {
	count int
	ends  time.Time
}

// maxAddresses bounds the memory that strangers can make us spend.
const maxAddresses = 10_000

func newFailures(limit int, now func() time.Time) *failures {
	return &failures{limit: limit, now: now, m: map[string]tries{}}
}

// add counts one and tells whether it is one too many.
func (f *failures) add(address string) (tooMany bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if len(f.m) >= maxAddresses {
		for a, t := range f.m {
			if !now.Before(t.ends) {
				delete(f.m, a)
			}
		}
		if len(f.m) >= maxAddresses {
			clear(f.m)
		}
	}
	t := f.m[address]
	if !now.Before(t.ends) {
		t = tries{ends: now.Add(time.Minute)}
	}
	t.count++
	f.m[address] = t
	return t.count > f.limit
}
