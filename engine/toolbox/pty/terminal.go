// Package pty runs shells in terminals that clients attach to and leave.
package pty

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// backlog is how much output is kept for the next client while none is
	// attached.
	backlog = 64 << 10
	// stuck is how long a client may hold up the terminal before it is dropped.
	stuck = 30 * time.Second
	// hangup is how long the last output is waited for after the end.
	hangup = 200 * time.Millisecond
)

// Terminal is a process on a pseudo terminal.
type Terminal struct {
	master *os.File
	child  *process.Child
	done   chan struct{} // closed when all output was handed out

	mu      sync.Mutex
	unseen  []byte
	clients map[*Client]struct{}
	ended   bool
}

// Client is somebody who watches a terminal.
type Client struct {
	out  chan []byte
	gone chan struct{}
	once sync.Once
	t    *Terminal
}

// Start runs c on a new terminal.
func Start(r *process.Runner, c process.Command, cols, rows int) (*Terminal, error) {
	return start(r, c, cols, rows, func() {})
}

// start also calls ended, before any client learns of the end.
func start(r *process.Runner, c process.Command, cols, rows int, ended func()) (*Terminal, error) {
	env := map[string]string{"TERM": "xterm-256color"}
	for k, v := range c.Env {
		env[k] = v
	}
	c.Env = env
	spec, script, err := r.Prepare(c)
	if script >= 0 {
		defer unix.Close(script)
	}
	if err != nil {
		return nil, err
	}
	master, tty, err := openPair(cols, rows)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	defer unix.Close(tty)
	if spec.Cred != nil {
		_ = unix.Fchown(tty, int(spec.Cred.Uid), -1)
		_ = unix.Fchmod(tty, 0o620)
	}
	spec.Files, spec.TTY = []int{tty, tty, tty}, true
	if script >= 0 {
		spec.Files = append(spec.Files, script)
	}
	child, err := r.Table.Start(spec)
	if err != nil {
		master.Close()
		return nil, err
	}
	t := &Terminal{master: master, child: child, done: make(chan struct{}), clients: map[*Client]struct{}{}}
	go t.pump(ended)
	return t, nil
}

// pump hands out output until the terminal is hung up, which the kernel does
// when its process ends.
func (t *Terminal) pump(ended func()) {
	defer close(t.done)
	go func() { // a daemon in another session may hold the terminal open
		<-t.child.Done()
		_ = t.master.SetReadDeadline(time.Now().Add(hangup))
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := t.master.Read(buf)
		if n > 0 {
			t.hand(buf[:n])
		}
		if err != nil {
			break
		}
	}
	<-t.child.Done()
	ended()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for c := range t.clients {
		close(c.out)
	}
	t.clients = nil
	t.master.Close()
}

func (t *Terminal) hand(b []byte) {
	t.mu.Lock()
	clients := make([]*Client, 0, len(t.clients))
	for c := range t.clients {
		clients = append(clients, c)
	}
	if len(clients) == 0 {
		t.unseen = append(t.unseen, b...)
		if over := len(t.unseen) - backlog; over > 0 {
			t.unseen = append(t.unseen[:0], t.unseen[over:]...)
		}
	}
	t.mu.Unlock()
	if len(clients) == 0 {
		return
	}
	chunk := append([]byte(nil), b...)
	for _, c := range clients {
		c.send(chunk)
	}
}

// send waits for a slow client, which slows the program down as a real terminal
// would, but not for ever.
func (c *Client) send(b []byte) {
	select {
	case c.out <- b:
		return
	case <-c.gone:
		return
	default:
	}
	timer := time.NewTimer(stuck)
	defer timer.Stop()
	select {
	case c.out <- b:
	case <-c.gone:
	case <-timer.C:
		c.Leave()
	}
}

// Attach adds a client. It first gets what nobody has seen yet.
func (t *Terminal) Attach() *Client {
	c := &Client{out: make(chan []byte, 64), gone: make(chan struct{}), t: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.unseen) > 0 {
		c.out <- t.unseen
		t.unseen = nil
	}
	if t.ended {
		close(c.out)
		return c
	}
	t.clients[c] = struct{}{}
	return c
}

// Output yields output; it is closed when the terminal has ended.
func (c *Client) Output() <-chan []byte { return c.out }

// Gone is closed when the client left or was dropped for being too slow.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Leave detaches the client.
func (c *Client) Leave() {
	c.once.Do(func() {
		close(c.gone)
		c.t.mu.Lock()
		delete(c.t.clients, c)
		c.t.mu.Unlock()
	})
}

// Write sends input.
func (t *Terminal) Write(p []byte) (int, error) {
	_ = t.master.SetWriteDeadline(time.Now().Add(stuck))
	return t.master.Write(p)
}

// Resize changes the size and tells the foreground process.
func (t *Terminal) Resize(cols, rows int) error {
	raw, err := t.master.SyscallConn()
	if err != nil {
		return gone()
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = resize(int(fd), cols, rows) }); err != nil {
		return gone()
	}
	return failed
}

func gone() error {
	return wire.Errorf(http.StatusGone, wire.CodeGone, "the terminal has ended")
}

// Signal sends sig to what runs in the foreground.
func (t *Terminal) Signal(sig syscall.Signal) error {
	group := 0
	if raw, err := t.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { group, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
	}
	if group > 0 && group != t.child.PID {
		return syscall.Kill(-group, sig)
	}
	return t.child.Signal(sig)
}

// Kill ends the terminal's processes and waits for the last output.
func (t *Terminal) Kill() {
	t.child.Kill()
	<-t.done
}

// Terminate ends them more gently.
func (t *Terminal) Terminate(ctx context.Context, grace time.Duration) {
	t.child.Terminate(ctx, grace)
	<-t.done
}

// Done is closed when the terminal has ended and all output was handed out.
func (t *Terminal) Done() <-chan struct{} { return t.done }

// Exit tells how the process ended; it waits for that.
func (t *Terminal) Exit() process.Exit { return t.child.Exit() }
