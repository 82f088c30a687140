package storage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The ioctls that freeze and thaw a file system; _IOWR('X', 119 and 120, int).
const (
	ioctlFreeze = 0xc0045877
	ioctlThaw   = 0xc0045878
)

// diskOptions: discard gives the blocks of deleted files back to the pool;
// noinit_itable keeps the kernel from writing zeros over inode tables that
// read as zeros already. Write barriers and the ordered journal stay on, so a
// database inside keeps its promises when the host loses power.
const diskOptions = "discard,noinit_itable,errors=remount-ro"

// diskFlags apply to the mount the host sees. A sandbox's root owns its files
// with id 0 on disk, so a set-uid program of its making must mean nothing
// here. The overlay that the sandbox sees is a mount of its own.
const diskFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME

// mountImage mounts image at dir through a new loop device.
func mountImage(image, dir, fstype string, flags uintptr, options string) (direct bool, err error) {
	dev, direct, err := attachLoop(image)
	if err != nil {
		return false, err
	}
	// Closing detaches the device unless the mount holds it by then.
	defer dev.Close()
	return direct, mountDevice(dev.Name(), dir, fstype, flags, options)
}

// mountOnce is mountImage for an image that may be attached still, as under a
// root that outlived its disk's mount, or in another mount namespace. It then
// mounts the same device: two devices over one image would destroy it.
func mountOnce(image, dir, fstype string, flags uintptr, options string) error {
	dev, err := loopOf(image)
	if err != nil {
		return err
	}
	if dev != "" {
		err := mountDevice(dev, dir, fstype, flags, options)
		if again, _ := loopOf(image); again == dev {
			return err // of the mount
		}
		// It detached itself in between.
		if err := unmountAll(dir, false); err != nil {
			return err
		}
	}
	_, err = mountImage(image, dir, fstype, flags, options)
	return err
}

func mountDevice(dev, dir, fstype string, flags uintptr, options string) error {
	if err := unix.Mount(dev, dir, fstype, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", dev, dir, err)
	}
	return nil
}

// isMounted tells whether dir is the root of a mount; false when dir is absent.
func isMounted(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("stat %s: %w", dir, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// unmountAll removes every mount stacked on dir. With lazy, a busy one is
// taken out of sight and goes when its last user does.
func unmountAll(dir string, lazy bool) error {
	for {
		mounted, err := isMounted(dir)
		if err != nil || !mounted {
			return err
		}
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if lazy && errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: somebody was quicker
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// whileFrozen runs f while the file system at dir takes no writes. It always
// thaws, also when f panics.
func whileFrozen(dir string, f func() error) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Most of the flushing happens here, while writers go on.
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := unix.IoctlSetInt(int(d.Fd()), ioctlFreeze, 0); err != nil {
		return fmt.Errorf("freeze %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, thawFile(d)) }()
	return f()
}

// thaw lifts a freeze that a killed process left behind; none is no error.
func thaw(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return thawFile(d)
}

func thawFile(d *os.File) error {
	for {
		switch err := unix.IoctlSetInt(int(d.Fd()), ioctlThaw, 0); {
		case err == nil, errors.Is(err, unix.EINVAL): // EINVAL: not frozen
			return nil
		case errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("thaw %s: %w", d.Name(), err)
		}
	}
}
