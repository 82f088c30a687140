package refused

import (
	"net"
	"sync"
	"time"
)

const (
	// maxQueue bounds the calls of one sandbox that wait for a server.
	maxQueue = 1024
	// retry is how often a server is looked for.
	retry = 250 * time.Millisecond
	// sending is how long a server may take to take one.
	sending = time.Second
)

// teller sends calls to the server, as soon as there is one.
type teller struct {
	server string
	lost   func() Call // makes the message about what was lost last

	mu    sync.Mutex
	more  sync.Cond
	queue []Call
	gone  uint64 // calls that did not fit, and were not told as lost
	ended bool
}

func newTeller(server string, lost func() Call) *teller {
	t := &teller{server: server, lost: lost}
	t.more.L = &t.mu
	return t
}

// tell takes a call, or counts it when too many wait.
func (t *teller) tell(c Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) >= maxQueue {
		t.gone += c.Times
		return
	}
	c.Lost, t.gone = t.gone, 0
	t.queue = append(t.queue, c)
	t.more.Signal()
}

// end lets run return when all was sent.
func (t *teller) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.more.Signal()
}

// run sends until end.
func (t *teller) run() {
	var conn net.Conn
	for {
		c, ok := t.next()
		if !ok {
			break
		}
		for conn = t.send(conn, &c); conn == nil; conn = t.send(nil, &c) {
			time.Sleep(retry)
		}
	}
	if conn != nil {
		_ = conn.Close()
	}
}

// next waits for a call; false at the end.
func (t *teller) next() (Call, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) == 0 && t.gone == 0 && !t.ended {
		t.more.Wait()
	}
	switch {
	case len(t.queue) > 0:
		c := t.queue[0]
		if t.queue = t.queue[1:]; len(t.queue) == 0 {
			t.queue = nil
		}
		return c, true
	case t.gone > 0:
		c := t.lost()
		c.Lost, t.gone = t.gone, 0
		return c, true
	}
	return Call{}, false
}

// send returns the connection, nil after an error.
func (t *teller) send(conn net.Conn, c *Call) net.Conn {
	b, err := c.encode()
	if err != nil {
		return conn // there is no such call
	}
	if conn == nil {
		if conn, err = net.Dial("unixgram", t.server); err != nil {
			return nil
		}
	}
	err = conn.SetWriteDeadline(time.Now().Add(sending))
	if err == nil {
		_, err = conn.Write(b)
	}
	if err != nil {
		_ = conn.Close()
		return nil
	}
	return conn
}
