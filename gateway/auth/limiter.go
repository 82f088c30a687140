package auth

import (
	"sync"
	"time"
)

// limiter counts events per key in windows of fixed length.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	windows map[string]window
}

type window struct {
	count int
	ends  time.Time
}

// maxWindows bounds the memory that strangers can make us spend.
const maxWindows = 10_000

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, windows: map[string]window{}}
}

// hit counts one event of a key that may have limit of them in a window. It
// returns how many are left, negative when over the limit, and when the window
// ends.
func (l *limiter) hit(key string, limit int, length time.Duration) (left int, reset time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	w, known := l.windows[key]
	if !known && len(l.windows) >= maxWindows {
		l.pruneLocked(now)
	}
	if !w.ends.After(now) {
		w = window{ends: now.Add(length)}
	}
	w.count++
	l.windows[key] = w
	return limit - w.count, w.ends.Sub(now)
}

// pruneLocked drops ended windows, and all when none has ended.
func (l *limiter) pruneLocked(now time.Time) {
	for k, w := range l.windows {
		if !w.ends.After(now) {
			delete(l.windows, k)
		}
	}
	if len(l.windows) >= maxWindows {
		clear(l.windows)
	}
}
