package process

import (
	"bytes"
	"os"
	"strconv"
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
// memory so far, -1 when it cannot be told. The first file is of cgroup v2, the
// second of v1.
func oomKills() int {
	for _, path := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			if v, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
				if n, err := strconv.Atoi(string(bytes.TrimSpace(v))); err == nil {
					return n
				}
			}
		}
	}
	return -1
}
