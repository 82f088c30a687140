package preview

import (
	"context"
	"crypto/sha256"
	"sync"
)

// live is the requests and connections that are open now, by the token that
// let them in, so that they end when it is revoked.
type live struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]map[*context.CancelFunc]struct{}
}

func newLive() *live {
	return &live{all: map[[sha256.Size]byte]map[*context.CancelFunc]struct{}{}}
}

// add returns a context that ends when the token is cut. done takes it off.
func (l *live) add(ctx context.Context, token string) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	if token == "" {
		return ctx, cancel
	}
	k := sha256.Sum256([]byte(token))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[k] == nil {
		l.all[k] = map[*context.CancelFunc]struct{}{}
	}
	l.all[k][&cancel] = struct{}{}
	return ctx, func() {
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		if delete(l.all[k], &cancel); len(l.all[k]) == 0 {
			delete(l.all, k)
		}
	}
}

// cut ends all that came in with the token.
func (l *live) cut(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for cancel := range l.all[sha256.Sum256([]byte(token))] {
		(*cancel)()
	}
}
