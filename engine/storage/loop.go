package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// blockSize is the sector size of our loop devices and the block size of our
// file systems. 4 KiB satisfies the direct I/O alignment of every backing
// file system.
const blockSize = 4096

// loopAttempts bounds the race for a free device with other processes.
const loopAttempts = 200

// attachLoop binds image to a free loop device and returns the open device.
// The device detaches itself when it is neither open nor mounted. Direct I/O
// avoids a second copy in the page cache; where the backing file system has
// none, the device goes through the cache, and direct tells so.
func attachLoop(image string) (dev *os.File, direct bool, err error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	defer control.Close()
	for attempt := range loopAttempts {
		dev, err = attachFree(control, backing)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(time.Duration(attempt%8) * 100 * time.Microsecond)
	}
	if err != nil {
		return nil, false, fmt.Errorf("attach a loop device: %w", err)
	}
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		dev.Close()
		return nil, false, fmt.Errorf("inspect %s: %w", dev.Name(), err)
	}
	return dev, info.Flags&unix.LO_FLAGS_DIRECT_IO != 0, nil
}

// attachFree binds backing to the device the kernel names as free. Another
// process may be quicker, which is EBUSY.
func attachFree(control, backing *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	dev, err := openLoop(n)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: blockSize}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], filepath.Base(filepath.Dir(backing.Name())))
	for _, flags := range []uint32{unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO, unix.LO_FLAGS_AUTOCLEAR} {
		config.Info.Flags = flags
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), &config); !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	if err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}

// openLoop opens /dev/loopN and makes the node where nobody did, as in
// containers, whose /dev is not devtmpfs.
func openLoop(n int) (*os.File, error) {
	const loopMajor = 7
	name := "/dev/loop" + strconv.Itoa(n)
	dev, err := os.OpenFile(name, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return dev, err
	}
	err = unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n))))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return os.OpenFile(name, os.O_RDWR, 0)
}

// loopOf returns the device that image is attached to, or "". It compares
// inodes, because the kernel knows a file on a detached mount by another path.
func loopOf(image string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return "", nil
		}
		return "", fmt.Errorf("stat %s: %w", image, err)
	}
	attached, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return "", err
	}
	for _, dir := range attached {
		dev := "/dev/" + filepath.Base(filepath.Dir(dir))
		info, err := loopStatus(dev)
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino {
			return dev, nil
		}
	}
	return "", nil
}

// loopStatus fails when nothing is attached to dev.
func loopStatus(dev string) (*unix.LoopInfo64, error) {
	f, err := os.Open(dev)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.IoctlLoopGetStatus64(int(f.Fd()))
}

// awaitDetached waits until image is attached nowhere. A device lingers while
// a mount in another namespace, or udev, holds it.
func awaitDetached(ctx context.Context, image string) error {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		dev, err := loopOf(image)
		if err != nil || dev == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s still holds %s: %w", dev, image, unix.EBUSY)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
