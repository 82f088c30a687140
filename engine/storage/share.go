package storage

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// shareOptions bound what root inside a sandbox can put into a share: some
// room for the hosts file, sockets and mount points, nothing of the host's.
const shareOptions = "mode=0711,size=1m,nr_inodes=128"

// MountShare mounts a small file system in memory at dir, for the files that a
// sandbox may write and that are not on its disk. Without one they would lie on
// the host's own file system, which root inside could fill. A dir that is
// mounted already is left as it is.
func MountShare(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	mounted, err := isMounted(dir)
	if err != nil || mounted {
		return err
	}
	// Not noexec: files in it are mounted into user namespaces, where a flag of
	// the source can be added to but never left out. For the same reason this
	// helps where /run itself is noexec.
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("atoll", dir, "tmpfs", flags, shareOptions); err != nil {
		return fmt.Errorf("mount share %s: %w", dir, err)
	}
	return nil
}

// UnmountShare unmounts what MountShare mounted; nil when nothing is. What was
// in it is gone.
func UnmountShare(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return unmountAll(dir, true)
}
