package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// tracing is where the kernel keeps a directory for its tracing files.
const tracing = "/sys/kernel/tracing"

// MountTracing makes the kernel's tracing files visible to root, as most
// systems do when they start: the numbers of tracepoints are among them. It
// stays mounted, because other programs expect it there.
func MountTracing() error {
	var st unix.Statfs_t
	if unix.Statfs(tracing, &st) == nil && st.Type == unix.TRACEFS_MAGIC {
		return nil
	}
	if err := unix.Mount("tracefs", tracing, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount the tracing files at %s: %w", tracing, err)
	}
	return nil
}
