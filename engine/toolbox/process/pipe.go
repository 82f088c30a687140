package process

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// pipe is one stream between the toolbox and a child. Our end is non-blocking
// and served by the runtime's poller; the child's end is an ordinary blocking
// one.
type pipe struct {
	ours  *os.File
	child int // -1 once closed
}

// newPipe makes a pipe that the toolbox reads from, or writes to.
func newPipe(read bool) (*pipe, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	ours, child := p[0], p[1]
	if !read {
		ours, child = child, ours
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(ours)
		unix.Close(child)
		return nil, err
	}
	return &pipe{ours: os.NewFile(uintptr(ours), "pipe"), child: child}, nil
}

func (p *pipe) closeChild() {
	if p != nil && p.child >= 0 {
		unix.Close(p.child)
		p.child = -1
	}
}

func (p *pipe) close() {
	if p != nil {
		p.closeChild()
		p.ours.Close()
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Drain copies a child's output to fn until it ends. After the child has ended
// (exited is closed) its descendants may hold the stream open for ever, so
// Drain then takes only what is there, plus what comes within linger. It
// reports whether the stream is still open.
func Drain(f *os.File, exited <-chan struct{}, linger time.Duration, fn func([]byte)) (open bool) {
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-exited:
			_ = f.SetReadDeadline(time.Now().Add(linger))
		case <-stop:
		}
	}()
	defer func() { close(stop); <-watched; _ = f.SetReadDeadline(time.Time{}) }()
	return copyOut(f, fn)
}

// drain is Drain for the output of c, without a goroutine that watches.
func (c *Child) drain(f *os.File, linger time.Duration, fn func([]byte)) (open bool) {
	c.atEnd(func() {
		if !hungUp(f) { // else its end comes by itself, and a timer costs more than to look
			_ = f.SetReadDeadline(time.Now().Add(linger))
		}
	})
	return copyOut(f, fn)
}

// hungUp tells whether nobody holds the other end of a pipe any more.
func hungUp(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
	})
	return err == nil && gone
}

// copyOut copies until the end of f or, when its deadline passes, what it holds
// then.
func copyOut(f *os.File, fn func([]byte)) (open bool) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := f.Read(*buf)
		if n > 0 {
			fn((*buf)[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return takeRest(f, *buf, fn)
		}
		if err != nil {
			return false
		}
	}
}

// takeRest reads what a pipe holds right now, at most one pipe's capacity.
func takeRest(f *os.File, buf []byte, fn func([]byte)) (open bool) {
	_ = f.SetReadDeadline(time.Time{})
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	open = true
	_ = raw.Read(func(fd uintptr) bool {
		for left := 1 << 20; left > 0; {
			n, err := unix.Read(int(fd), buf)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				open = err == unix.EAGAIN
				return true
			}
			fn(buf[:n])
			left -= n
		}
		return true
	})
	return open
}

// maxLeftovers bounds how many streams of background processes are kept.
const maxLeftovers = 256

// leftovers keeps the streams that background processes still write to, so
// that a server started with "cmd &" is not killed by its next line of output.
type leftovers struct {
	mu sync.Mutex
	n  int
}

// adopt discards what arrives on f until it ends, and closes it.
func (l *leftovers) adopt(f *os.File) {
	l.mu.Lock()
	full := l.n >= maxLeftovers
	if !full {
		l.n++
	}
	l.mu.Unlock()
	if full {
		f.Close()
		return
	}
	go func() { // owned by the stream: it ends with the last process that holds it
		buf := make([]byte, 4096)
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		f.Close()
		l.mu.Lock()
		l.n--
		l.mu.Unlock()
	}()
}
