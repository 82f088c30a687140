package process

import (
	"bytes"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// OOMMark remembers how many processes the kernel had killed for memory.
type OOMMark int

// MarkOOM takes a mark, before a command starts.
func MarkOOM() OOMMark { return OOMMark(oomKills()) }

// Killed tells whether a command that ended with code was, by all appearance,
// killed for memory since the mark. It is a best effort: the kernel counts
// kills of the whole sandbox.
func (m OOMMark) Killed(code int) bool {
	return code == 137 && m >= 0 && oomKills() > int(m)
}

// oomKills returns how many processes of the sandbox the kernel has killed for
// memory so far, -1 when it cannot be told.
func oomKills() int {
	fd := oomFile()
	if fd < 0 {
		return -1
	}
	var buf [512]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return -1
	}
	for line := range bytes.Lines(buf[:n]) {
		if v, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			if n, err := strconv.Atoi(string(bytes.TrimSpace(v))); err == nil {
				return n
			}
		}
	}
	return -1
}

// oomFile is the counter's file, kept open because every command asks twice.
// The first is of cgroup v2, the second of v1.
var oomFile = sync.OnceValue(func() int {
	for _, path := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			return fd
		}
	}
	return -1
})
