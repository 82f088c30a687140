package process

import (
	"fmt"
	"sync"
)

// Capture keeps the first and the last bytes of an output of any length, so
// that its memory is bounded and the ends, which matter most, survive.
type Capture struct {
	limit int

	mu    sync.Mutex
	head  []byte
	tail  []byte // ring once it has limit/2 bytes
	next  int    // where the ring is written next
	total int64
}

// NewCapture returns a Capture that keeps up to limit bytes.
func NewCapture(limit int) *Capture { return &Capture{limit: limit} }

// Write never fails.
func (c *Capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	c.total += int64(n)
	half := c.limit / 2
	if room := half - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head = append(c.head, p[:k]...)
		p = p[k:]
	}
	if len(p) > half {
		p = p[len(p)-half:]
	}
	if room := half - len(c.tail); room > 0 && len(p) > 0 {
		k := min(room, len(p))
		c.tail = append(c.tail, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(c.tail[c.next:], p)
		c.next = (c.next + k) % len(c.tail)
		p = p[k:]
	}
	return n, nil
}

// Truncated tells whether bytes were dropped.
func (c *Capture) Truncated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total > int64(len(c.head)+len(c.tail))
}

// String returns what was kept, with a note where bytes are missing.
func (c *Capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := make([]byte, 0, len(c.head)+len(c.tail)+64)
	b = append(b, c.head...)
	if lost := c.total - int64(len(c.head)+len(c.tail)); lost > 0 {
		b = fmt.Appendf(b, "\n[... %d bytes of output dropped ...]\n", lost)
	}
	b = append(b, c.tail[c.next:]...)
	b = append(b, c.tail[:c.next]...)
	return string(b)
}
