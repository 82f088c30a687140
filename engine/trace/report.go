package trace

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxMessage bounds a report.
const maxMessage = 512

// calls is where a toolbox tells for whom it begins processes. Nothing waits
// there: it is read when the kernel tells of something. All of it belongs to
// the sandbox's root but the words of process 1, which the kernel vouches for.
type calls struct {
	listener int // 0: none
	conn     int // of the toolbox; 0: none
}

// listen makes the socket in a directory that root of the sandbox can change as
// it likes, so that nothing there is followed.
func (c *calls) listen(dir string, owner uint32) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(wire.CallsSocket); err != nil {
		return fmt.Errorf("clear the socket for calls: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, wire.CallsSocket)})
	if err == nil {
		err = unix.Fchownat(fd, wire.CallsSocket, int(owner), int(owner), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Listen(s, 4)
	}
	if err != nil {
		unix.Close(s)
		return fmt.Errorf("listen for calls: %w", err)
	}
	c.listener = s
	return nil
}

// read hands on what process 1, of which the host's number is given, has told.
func (c *calls) read(toolbox int, told func(inner int, r report, by int)) {
	if c.listener == 0 || toolbox == 0 {
		return
	}
	for range 8 { // the toolbox connects again only when it must
		c.receive(told)
		fd, _, err := unix.Accept4(c.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(peer.Pid) != toolbox {
			unix.Close(fd)
			continue
		}
		if c.conn != 0 {
			unix.Close(c.conn)
		}
		c.conn = fd
	}
}

func (c *calls) receive(told func(inner int, r report, by int)) {
	if c.conn == 0 {
		return
	}
	var buf [maxMessage]byte
	for {
		n, err := unix.Read(c.conn, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 || err != nil && err != unix.EAGAIN {
			unix.Close(c.conn)
			c.conn = 0
		}
		if err != nil || n == 0 {
			return
		}
		var m wire.Begun
		if json.Unmarshal(buf[:n], &m) == nil && m.PID > 1 {
			told(m.PID, report{at: time.Duration(m.At), call: m.Call}, m.For)
		}
	}
}

func (c *calls) close() {
	for _, fd := range []*int{&c.listener, &c.conn} {
		if *fd != 0 {
			unix.Close(*fd)
			*fd = 0
		}
	}
}
