package refused

import (
	"errors"
	"fmt"
	"os"
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

// listener is the filter's end where calls arrive: a descriptor. Whoever waits
// for it is woken at each call, also at those that are interrupted and made
// again, which a sandbox can have without number. So nothing of this process
// waits for it but receive.
type listener int

// receive waits for a call until a time; zero is for ever. It fails with
// os.ErrDeadlineExceeded then, with os.ErrClosed when no process is left under
// the filter, and with errInterrupted.
func (l listener) receive(until time.Time) (notice, error) {
	for {
		p := []unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}
		n, err := unix.Poll(p, milliseconds(until))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return notice{}, fmt.Errorf("wait for a refused call: %w", err)
		case n == 0:
			return notice{}, os.ErrDeadlineExceeded
		case p[0].Revents&unix.POLLIN == 0:
			return notice{}, os.ErrClosed
		}
		var call notice
		if err := l.do(notifReceive, unsafe.Pointer(&call)); errors.Is(err, unix.ENOENT) {
			return notice{}, errInterrupted
		} else if err != nil {
			return notice{}, fmt.Errorf("receive a refused call: %w", err)
		}
		return call, nil
	}
}

// errInterrupted tells that a caller waits no more, before it was known what it
// wanted.
var errInterrupted = errors.New("the caller was interrupted")

// milliseconds is the time until a moment as poll takes it.
func milliseconds(until time.Time) int {
	if until.IsZero() {
		return -1
	}
	return int(max(time.Until(until)/time.Millisecond+1, 0))
}

// valid tells whether the caller still waits. As long as it does, its number is
// no other process's.
func (l listener) valid(id uint64) bool {
	return l.do(notifValid, unsafe.Pointer(&id)) == nil
}

// refuse answers a call. There is no other answer, and a value of no flags: the
// kernel would let the call pass with one.
func (l listener) refuse(id uint64) error {
	a := answer{id: id, failure: -int32(unix.EPERM)}
	err := l.do(notifSend, unsafe.Pointer(&a))
	if errors.Is(err, unix.ENOENT) { // the caller waits no more
		return nil
	}
	return err
}

func (l listener) do(what uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), what, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

func (l listener) close() { _ = unix.Close(int(l)) }

// Supported tells whether the kernel hands calls over in the form that this
// package knows.
func Supported() bool {
	const sizes = 3 // SECCOMP_GET_NOTIF_SIZES
	var s struct{ notice, answer, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, sizes, 0, uintptr(unsafe.Pointer(&s)))
	return errno == 0 && uintptr(s.notice) == unsafe.Sizeof(notice{}) && uintptr(s.answer) == unsafe.Sizeof(answer{})
}
