package pty

import (
	"os"

	"golang.org/x/sys/unix"
)

// openPair makes a pseudo terminal. The master is non-blocking and served by
// the runtime's poller, so closing it ends a pending read; the terminal end is
// opened through the master, so it needs no path below /dev/pts.
func openPair(cols, rows int) (master *os.File, tty int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, -1, err
	}
	if err = resize(fd, cols, rows); err != nil {
		return nil, -1, err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		err = errno
		return nil, -1, err
	}
	return os.NewFile(uintptr(fd), "ptmx"), int(peer), nil
}

func resize(fd, cols, rows int) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)})
}
