package activity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// changes are the events of a file system that are asked for. Nothing is asked
// for that reading causes, and nothing that a process would have to wait for.
const changes = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_RENAME | unix.FAN_CLOSE_WRITE | unix.FAN_ONDIR

// groups is how many file systems may be watched at once. The kernel's default
// is 128.
const groups = 1 << 15

// handle names a file or directory of a file system for as long as it is there:
// its type, four bytes, and what the file system made of it.
type handle string

// open gives a descriptor for looking only. at is any descriptor of the file
// system. The error is ESTALE for what was removed.
func (h handle) open(at *os.File) (*os.File, error) {
	if len(h) < 4 {
		return nil, unix.ESTALE
	}
	f := unix.NewFileHandle(int32(binary.NativeEndian.Uint32([]byte(h[:4]))), []byte(h[4:]))
	fd, err := unix.OpenByHandleAt(int(at.Fd()), f, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "handle"), nil
}

// place is a name in a directory.
type place struct {
	dir  handle
	name string
}

// change is one event of the kernel. Several things that one process did to one
// name may be in one.
type change struct {
	mask   uint64
	pid    int
	at     place // where it happened; of a rename, the old name
	to     place // of a rename
	target handle
}

func (c *change) has(mask uint64) bool { return c.mask&mask != 0 }

// NewGroup begins to watch the file system that dir is in: a descriptor that
// reads of changes, and never waits. No process waits for who reads. The error
// wraps ErrNotSupported where the kernel or the file system cannot tell.
func NewGroup(dir string) (int, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC|unix.FAN_REPORT_DFID_NAME_TARGET, unix.O_RDONLY)
	if err != nil {
		return -1, watchError("make a fanotify group", err)
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, changes, unix.AT_FDCWD, dir); err != nil {
		_ = unix.Close(fd)
		return -1, watchError("watch the file system of "+dir, err)
	}
	return fd, nil
}

// watchError marks the refusals of kernels before 5.17 and of file systems
// without handles.
func watchError(what string, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w: %w", what, ErrNotSupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// raiseGroups lets this host have more groups. It stays so, because the limit
// is the host's.
func raiseGroups() {
	const limit = "/proc/sys/fs/fanotify/max_user_groups"
	b, err := os.ReadFile(limit)
	if err != nil {
		return // before Linux 5.13 the limit was fixed
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < groups {
		_ = os.WriteFile(limit, []byte(strconv.Itoa(groups)), 0)
	}
}

const metadataSize = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))

// parse takes what a read of a group gave. overflow says that the kernel threw
// events away.
func parse(b []byte, out []change) (all []change, overflow bool, err error) {
	for len(b) > 0 {
		var m unix.FanotifyEventMetadata
		if len(b) < metadataSize {
			return out, overflow, errors.New("an event of the file system is short")
		}
		if _, err := binary.Decode(b, binary.NativeEndian, &m); err != nil {
			return out, overflow, err
		}
		if m.Vers != unix.FANOTIFY_METADATA_VERSION || int(m.Event_len) > len(b) || int(m.Event_len) < int(m.Metadata_len) || int(m.Metadata_len) < metadataSize {
			return out, overflow, fmt.Errorf("an event of the file system of version %d with %d bytes", m.Vers, m.Event_len)
		}
		if m.Mask&unix.FAN_Q_OVERFLOW != 0 {
			overflow = true
		} else {
			c := change{mask: m.Mask, pid: int(m.Pid)}
			c.info(b[m.Metadata_len:m.Event_len])
			out = append(out, c)
		}
		b = b[m.Event_len:]
	}
	return out, overflow, nil
}

// info takes the records behind an event: a header of 4 bytes, the file
// system's id of 8, the handle with its size and type, and a name.
func (c *change) info(b []byte) {
	const head, handleHead = 12, 8
	for len(b) >= head+handleHead {
		size := int(binary.NativeEndian.Uint16(b[2:]))
		if size < head+handleHead || size > len(b) {
			return
		}
		r := b[head:size]
		n := int(binary.NativeEndian.Uint32(r))
		if n > len(r)-handleHead {
			return
		}
		h, name := handle(r[4:handleHead+n]), text(r[handleHead+n:])
		switch b[0] {
		case unix.FAN_EVENT_INFO_TYPE_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
			c.at = place{h, name}
		case unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
			c.to = place{h, name}
		case unix.FAN_EVENT_INFO_TYPE_FID:
			c.target = h
		}
		b = b[size:]
	}
}
