package cli

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// findLock returns the process that holds an exclusive flock on a file, by the
// lines of /proc/locks, as
//
//	1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
//
// The device is part of the match, because inode numbers repeat across them.
func findLock(locks string, st unix.Stat_t) int {
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(locks) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" || f[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 1 {
			return pid
		}
	}
	return 0
}

// serves tells whether a process is a server, and when home is not empty,
// whether it was started for that one.
func serves(pid int, home string) bool {
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(cmdline), "\x00")
	return slices.Contains(args, "serve") && (home == "" || slices.Contains(args, home))
}
