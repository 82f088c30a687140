package container

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Dial connects to the toolbox of a running instance. It needs no containerd.
func (d *Driver) Dial(ctx context.Context, h driver.Handle) (net.Conn, error) {
	data, err := decodeHandle(h)
	if err != nil {
		return nil, err
	}
	conn, err := dialToolbox(ctx, data)
	if err == nil {
		return conn, nil
	}
	kind := engine.KindUnavailable
	if errors.Is(err, unix.ENOENT) && !exists(data.ControlDir) {
		kind = engine.KindNotFound
	}
	return nil, engine.Errorf(kind, "the toolbox of instance %s cannot be reached", h.ID).Wrap(err)
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// dialToolbox connects to the socket in the control directory. Root inside owns
// that directory and could put a symbolic link to a socket of the host there,
// so the socket is opened without following, checked, connected to through its
// descriptor, and its owner must be one of the sandbox's users.
func dialToolbox(ctx context.Context, data handleData) (net.Conn, error) {
	dir, err := unix.Open(data.ControlDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open control directory: %w", err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, socketName, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open toolbox socket: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("check toolbox socket: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Uid < data.UIDBase || st.Uid >= data.UIDBase+idCount {
		return nil, fmt.Errorf("toolbox socket is mode %o of user %d", st.Mode, st.Uid)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("connect to toolbox: %w", err)
	}
	return conn, nil
}
