package core

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

const (
	// keyTTL bounds for how long a key works here that another server has
	// revoked. One that this server revokes ends at once.
	keyTTL = 5 * time.Second
	// maxCached bounds what is remembered of keys and organizations.
	maxCached = 1000
)

// principals remembers whom keys belong to.
type principals struct {
	mu   sync.Mutex
	gen  uint64 // counts forgets, so that an answer read before one is not kept
	m    map[[sha256.Size]byte]cachedPrincipal
	told chan struct{} // closed at the next forget
}

type cachedPrincipal struct {
	p  engine.Principal
	at time.Time
}

func newPrincipals() *principals {
	return &principals{m: map[[sha256.Size]byte]cachedPrincipal{}, told: make(chan struct{})}
}

func (c *principals) look(secret string, now time.Time) (engine.Principal, uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.m[sha256.Sum256([]byte(secret))]
	return got.p, c.gen, ok && now.Sub(got.at) < keyTTL
}

func (c *principals) keep(secret string, gen uint64, p engine.Principal, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen {
		return
	}
	if len(c.m) >= maxCached {
		clear(c.m)
	}
	c.m[sha256.Sum256([]byte(secret))] = cachedPrincipal{p, now}
}

// forget makes every key be read again, and wakes those who hold streams open.
func (c *principals) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	clear(c.m)
	close(c.told)
	c.told = make(chan struct{})
}

func (c *principals) changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told
}
