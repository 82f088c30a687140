package toolbox

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// listener gives out connections that send files without copying them through
// this process.
type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if u, ok := c.(*net.UnixConn); ok {
		return &conn{u}, nil
	}
	return c, err
}

type conn struct{ *net.UnixConn }

// onDisk is a reader whose content is what follows in a file.
type onDisk interface{ Disk() *os.File }

// ReadFrom is what the HTTP server copies answers with.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if part, ok := r.(*io.LimitedReader); ok {
		if d, ok := part.R.(onDisk); ok && d.Disk() != nil {
			n, err := c.sendFile(d.Disk(), part.N)
			part.N -= n
			if n > 0 || err == nil || !unsendable(err) {
				return n, err
			}
		}
	}
	return io.Copy(struct{ io.Writer }{c.UnixConn}, struct{ io.Reader }{r})
}

// unsendable tells whether a file system does not know how to send.
func unsendable(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) }

// sendFile sends up to n bytes of f from where it stands; less when it ends.
func (c *conn) sendFile(f *os.File, n int64) (sent int64, err error) {
	to, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	from, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	const most = 1 << 20 // of one call, so that others get a turn
	var fault, closed error
	err = from.Control(func(in uintptr) {
		closed = to.Write(func(out uintptr) bool {
			for sent < n {
				k, err := unix.Sendfile(int(out), int(in), nil, int(min(n-sent, most)))
				switch {
				case errors.Is(err, unix.EINTR):
					continue
				case errors.Is(err, unix.EAGAIN):
					return false
				case err != nil:
					fault = os.NewSyscallError("sendfile", err)
					return true
				case k == 0:
					return true
				}
				sent += int64(k)
			}
			return true
		})
	})
	return sent, errors.Join(err, closed, fault)
}
