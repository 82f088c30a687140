package core

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Most calls of a toolbox are one small message and its answer.
// http.Transport hands each through two goroutines of its own, which costs more
// than all else that the server does for the call. A lane does it in the
// caller's goroutine: one write, one read.

const (
	maxLaneBody = 64 << 10 // of a request; larger ones are streamed
	maxHead     = 64 << 10 // of an answer; a hostile toolbox may send what it likes
	maxEarly    = 8        // informational answers before the real one
	maxIdle     = 32       // connections that are kept for each sandbox
	idleTime    = 90 * time.Second
)

// lane is one connection on which requests follow one another.
type lane struct {
	net.Conn // tracked by the pool
	pool     *pool
	buf      *bufio.Reader
	room     int64       // how much may be read before the answer's head is over
	expiry   *time.Timer // closes the lane when it idles
}

// lanes are the idle ones, the last used at the end.
type lanes struct {
	mu   sync.Mutex
	idle []*lane
}

// errHead is what an answer fails with whose head is too long.
var errHead = fmt.Errorf("the head of the toolbox's answer is larger than %d bytes", maxHead)

// Read implements io.Reader. It bounds the head of an answer.
func (l *lane) Read(p []byte) (int, error) {
	if l.room <= 0 {
		return 0, errHead
	}
	n, err := l.Conn.Read(p[:min(int64(len(p)), l.room)])
	l.room -= int64(n)
	return n, err
}

// short tells whether a request fits a lane: it is small, and can be written
// before anything is read.
func short(req *http.Request) bool {
	return req.Header.Get("Expect") == "" && len(req.TransferEncoding) == 0 && len(req.Trailer) == 0 &&
		(req.Body == nil || req.Body == http.NoBody || (req.ContentLength > 0 && req.ContentLength <= maxLaneBody))
}

var messages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// exchange sends a short request and returns the answer.
func (p *pool) exchange(req *http.Request) (*http.Response, error) {
	msg := messages.Get().(*bytes.Buffer)
	defer messages.Put(msg)
	msg.Reset()
	// The caller's body is read before a connection is taken, so that one that
	// breaks off never reaches the toolbox.
	if err := req.Write(msg); err != nil {
		return nil, err
	}
	ctx := req.Context()
	l := p.lane()
	if l == nil {
		conn, err := p.dial(ctx)
		if err != nil {
			return nil, err
		}
		l = &lane{Conn: conn, pool: p}
		l.buf = bufio.NewReader(l)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	res, err := l.call(msg.Bytes(), req)
	if err != nil {
		stop()
		l.Close()
		return nil, err
	}
	l.attach(res, stop)
	return res, nil
}

// call writes the message and reads the head of its answer.
func (l *lane) call(msg []byte, req *http.Request) (*http.Response, error) {
	if _, err := l.Write(msg); err != nil {
		return nil, err
	}
	l.room = maxHead
	for range maxEarly {
		res, err := http.ReadResponse(l.buf, req)
		switch {
		case err != nil:
			return nil, err
		case res.StatusCode == http.StatusSwitchingProtocols && req.Header.Get("Upgrade") == "":
			return nil, errors.New("the toolbox switches protocols without being asked")
		case res.StatusCode >= http.StatusOK, res.StatusCode == http.StatusSwitchingProtocols:
			l.room = 1<<63 - 1
			return res, nil
		}
	}
	return nil, errors.New("the toolbox sends informational answers without end")
}

// attach makes the answer's body give the lane back at its end.
func (l *lane) attach(res *http.Response, stop func() bool) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = &laneStream{lane: l, stop: stop}
		return
	}
	b := &laneBody{lane: l, inner: res.Body, left: -1, keep: !res.Close, stop: stop}
	switch {
	case res.Body == http.NoBody || res.ContentLength == 0:
		b.finish(true)
		res.Body = http.NoBody
		return
	case res.ContentLength > 0:
		b.left = res.ContentLength
	}
	res.Body = b
}

// laneBody is the body of an answer.
type laneBody struct {
	lane  *lane
	inner io.ReadCloser // reads a body of unknown length
	left  int64         // of a body whose length was announced; -1: unknown
	keep  bool          // the connection may be used again
	stop  func() bool   // ends the watch over the caller's context
	ended atomic.Bool
	whole bool // it was read to its end
}

// Read implements io.Reader.
func (b *laneBody) Read(p []byte) (n int, err error) {
	switch {
	case b.whole:
		return 0, io.EOF
	case b.ended.Load():
		return 0, http.ErrBodyReadAfterClose
	case b.left < 0:
		if n, err = b.inner.Read(p); err != nil {
			b.finish(errors.Is(err, io.EOF))
		}
		return n, err
	}
	n, err = b.lane.buf.Read(p[:min(int64(len(p)), b.left)])
	return n, b.took(int64(n), err)
}

// took notes that a part of a body of known length was read.
func (b *laneBody) took(n int64, err error) error {
	b.left -= n
	switch {
	case b.left == 0:
		b.finish(true)
		return nil
	case err != nil:
		b.finish(false)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}

// WriteTo implements io.WriterTo. What is not in the buffer yet goes from
// connection to connection, where w is one, without a copy in this process.
func (b *laneBody) WriteTo(w io.Writer) (int64, error) {
	if b.left < 0 || b.ended.Load() {
		return io.Copy(w, struct{ io.Reader }{b})
	}
	have, _ := b.lane.buf.Peek(int(min(b.left, int64(b.lane.buf.Buffered()))))
	n, err := w.Write(have)
	_, _ = b.lane.buf.Discard(n)
	written := int64(n)
	if b.left > written && err == nil {
		var m int64
		m, err = io.Copy(w, &io.LimitedReader{R: raw(b.lane.Conn), N: b.left - written})
		written += m
		if err == nil && b.left > written {
			err = io.ErrUnexpectedEOF
		}
	}
	return written, b.took(written, err)
}

// raw is the connection below the pool's.
func raw(c net.Conn) net.Conn {
	if t, ok := c.(*trackedConn); ok {
		return t.Conn
	}
	return c
}

// Close gives up what was not read, and the connection with it.
func (b *laneBody) Close() error {
	b.finish(false)
	return nil
}

// finish ends the answer. The lane is used again only if the whole answer was
// read and nothing came behind it.
func (b *laneBody) finish(whole bool) {
	if b.ended.Swap(true) {
		return
	}
	b.whole = whole
	if alive := b.stop(); whole && alive && b.keep && b.lane.buf.Buffered() == 0 {
		b.lane.pool.rest(b.lane)
		return
	}
	b.lane.Close()
}

// lane takes an idle lane whose connection is in order, nil when there is none.
func (p *pool) lane() *lane {
	for {
		p.lanes.mu.Lock()
		n := len(p.lanes.idle)
		if n == 0 || p.ctx.Err() != nil {
			p.lanes.mu.Unlock()
			return nil
		}
		l := p.lanes.idle[n-1]
		p.lanes.idle[n-1] = nil
		p.lanes.idle = p.lanes.idle[:n-1]
		p.lanes.mu.Unlock()
		if l.expiry.Stop() && l.silent() {
			return l
		}
		l.Close()
	}
}

// silent tells whether an idle connection is open and nothing came on it that
// nobody asked for.
func (l *lane) silent() bool {
	c, ok := raw(l.Conn).(syscall.Conn)
	if !ok {
		return true
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
		return true
	})
	return err == nil && quiet
}

// rest keeps a lane for the next request.
func (p *pool) rest(l *lane) {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	if len(p.lanes.idle) >= maxIdle || p.ctx.Err() != nil {
		l.Close()
		return
	}
	if l.expiry == nil {
		l.expiry = time.AfterFunc(idleTime, func() { p.expire(l) })
	} else {
		l.expiry.Reset(idleTime)
	}
	p.lanes.idle = append(p.lanes.idle, l)
}

// expire closes a lane that idled for long.
func (p *pool) expire(l *lane) {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	for i, k := range p.lanes.idle {
		if k == l {
			p.lanes.idle = append(p.lanes.idle[:i], p.lanes.idle[i+1:]...)
		}
	}
	l.Close()
}

// closeLanes forgets the idle lanes of an incarnation that is over.
func (p *pool) closeLanes() {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	for _, l := range p.lanes.idle {
		l.expiry.Stop()
		l.Close()
	}
	p.lanes.idle = nil
}
