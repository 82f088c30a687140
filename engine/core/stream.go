package core

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// laneStream is a lane that was upgraded. Most streams are silent most of the
// time and there may be thousands, so one holds no buffer while it waits.
type laneStream struct {
	lane *lane
	stop func() bool // ends the watch over the caller's context
}

// Read implements io.Reader.
func (s *laneStream) Read(p []byte) (int, error) { return s.lane.buf.Read(p) }

// Write implements io.Writer.
func (s *laneStream) Write(p []byte) (int, error) { return s.lane.Write(p) }

// Close ends the stream.
func (s *laneStream) Close() error {
	s.stop()
	return s.lane.Close()
}

// WriteTo implements io.WriterTo.
func (s *laneStream) WriteTo(w io.Writer) (int64, error) {
	have, _ := s.lane.buf.Peek(s.lane.buf.Buffered())
	n, err := w.Write(have)
	_, _ = s.lane.buf.Discard(n)
	if err != nil {
		return int64(n), err
	}
	m, err := copyIdle(w, raw(s.lane.Conn))
	return int64(n) + m, err
}

// ReadFrom implements io.ReaderFrom.
func (s *laneStream) ReadFrom(r io.Reader) (int64, error) { return copyIdle(s.lane.Conn, r) }

var streamBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// copyIdle is io.Copy, but takes a buffer only when there is something to read.
func copyIdle(w io.Writer, r io.Reader) (written int64, err error) {
	w = struct{ io.Writer }{w}
	conn, ok := r.(interface {
		io.Reader
		syscall.Conn
	})
	if !ok {
		return io.Copy(w, struct{ io.Reader }{r})
	}
	from, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		n, err := copySome(w, from)
		written += int64(n)
		if errors.Is(err, io.EOF) {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// copySome waits for bytes and copies them.
func copySome(w io.Writer, from syscall.RawConn) (n int, err error) {
	var buf *[]byte
	var fault error
	err = from.Read(func(fd uintptr) bool {
		buf = streamBuffers.Get().(*[]byte)
		for {
			if n, fault = unix.Read(int(fd), *buf); !errors.Is(fault, unix.EINTR) {
				break
			}
		}
		if errors.Is(fault, unix.EAGAIN) {
			streamBuffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer streamBuffers.Put(buf)
	}
	switch {
	case err != nil:
		return 0, err
	case fault != nil:
		return 0, &net.OpError{Op: "read", Net: "stream", Err: os.NewSyscallError("read", fault)}
	case n == 0:
		return 0, io.EOF
	}
	return w.Write((*buf)[:n])
}
