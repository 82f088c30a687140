package process

import (
	"context"
	"encoding/json"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

type callKey struct{}

// WithCall says by which call of the server's ledger a context came about.
func WithCall(ctx context.Context, call string) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}

// CallOf returns the call of a context; empty when there is none.
func CallOf(ctx context.Context) string {
	call, _ := ctx.Value(callKey{}).(string)
	return call
}

// Calls tells the server for which call a process works. It never waits: what
// the server does not read is not told, and is then not known there.
type Calls struct {
	path string // of the server's socket

	mu   sync.Mutex
	conn int // 0: none
}

// NewCalls returns a Calls that finds the server beside the toolbox's socket.
func NewCalls(socket string) *Calls {
	return &Calls{path: filepath.Join(filepath.Dir(socket), wire.CallsSocket)}
}

// Tell says that a process works for a call from now on, or, by being set, for
// another process.
func (c *Calls) Tell(pid int, call string, by int) {
	if c == nil {
		return
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // cannot fail
	b, err := json.Marshal(wire.Begun{PID: pid, At: now.Nano(), Call: call, For: by})
	if err != nil {
		return // plain values always encode
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 2 { // a new server has a new socket
		if c.conn == 0 && !c.connectLocked() {
			return
		}
		err := unix.Sendto(c.conn, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		if err == nil || err == unix.EAGAIN {
			return
		}
		c.closeLocked()
	}
}

func (c *Calls) connectLocked() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	c.conn = fd
	if unix.Connect(fd, &unix.SockaddrUnix{Name: c.path}) != nil {
		c.closeLocked()
	}
	return c.conn != 0
}

func (c *Calls) closeLocked() {
	unix.Close(c.conn)
	c.conn = 0
}

// Close lets go of the server.
func (c *Calls) Close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != 0 {
		c.closeLocked()
	}
}
