package refused

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of linux/seccomp.h.
const (
	notifReceive = 0xc0502100
	notifSend    = 0xc0182101
	notifValid   = 0x40082102
)

// notice is struct seccomp_notif: a call that waits for its answer.
type notice struct {
	id     uint64
	thread uint32
	flags  uint32
	number int32
	arch   uint32
	ip     uint64
	args   [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id      uint64
	value   int64
	failure int32
	flags   uint32
}

// listener is the filter's end where calls arrive.
type listener struct {
	file *os.File
	raw  syscall.RawConn
}

// newListener takes the descriptor.
func newListener(fd int) (*listener, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // so that waiting takes no thread
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "seccomp")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &listener{f, raw}, nil
}

// receive waits for a call until a time, which may be zero. It fails with
// os.ErrClosed when no process is left under the filter.
func (l *listener) receive(until time.Time) (notice, error) {
	var n notice
	var failed error
	if err := l.file.SetReadDeadline(until); err != nil {
		return n, err
	}
	err := l.raw.Read(func(fd uintptr) bool {
		for {
			// Receiving would wait although the descriptor is not to block.
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, 0); err != nil {
				if errors.Is(err, unix.EINTR) {
					continue
				}
				failed = err
				return true
			}
			switch {
			case p[0].Revents&unix.POLLIN != 0:
			case p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0:
				failed = os.ErrClosed
				return true
			default:
				return false
			}
			n = notice{}
			switch err := request(fd, notifReceive, unsafe.Pointer(&n)); {
			case err == nil:
				return true
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT): // the caller was interrupted
			default:
				failed = fmt.Errorf("receive a refused call: %w", err)
				return true
			}
		}
	})
	return n, errors.Join(err, failed)
}

// valid tells whether the caller still waits. As long as it does, its number is
// no other process's.
func (l *listener) valid(id uint64) bool {
	return l.do(notifValid, unsafe.Pointer(&id)) == nil
}

// refuse answers a call. There is no other answer, and a value of no flags: the
// kernel would let the call pass with one.
func (l *listener) refuse(id uint64) error {
	a := answer{id: id, failure: -int32(unix.EPERM)}
	err := l.do(notifSend, unsafe.Pointer(&a))
	if errors.Is(err, unix.ENOENT) { // the caller waits no more
		return nil
	}
	return err
}

func (l *listener) do(what uintptr, arg unsafe.Pointer) (err error) {
	outer := l.raw.Control(func(fd uintptr) {
		for {
			if err = request(fd, what, arg); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(outer, err)
}

func (l *listener) close() { _ = l.file.Close() }

func request(fd, what uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, what, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// Supported tells whether the kernel hands calls over in the form that this
// package knows.
func Supported() bool {
	const sizes = 3 // SECCOMP_GET_NOTIF_SIZES
	var s struct{ notice, answer, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, sizes, 0, uintptr(unsafe.Pointer(&s)))
	return errno == 0 && uintptr(s.notice) == unsafe.Sizeof(notice{}) && uintptr(s.answer) == unsafe.Sizeof(answer{})
}
