package process

import (
	"bytes"
	"os"
	"strconv"
)

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
