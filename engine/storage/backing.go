package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// minPoolSize is what XFS and a handful of sandboxes need.
const minPoolSize = gib

// poolFlags: nothing in the pool is a program or a device.
const poolFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME

func poolImage(home string) string { return filepath.Join(home, "pool.img") }

// openBacking gives dir a file system with reflinks and tells what it found: a
// pool file from before, else the file system of home when cloning works
// there, else a new pool file. Where XFS does not exist, disks are copied.
func openBacking(ctx context.Context, home, dir string, size int64) (Capabilities, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Capabilities{}, err
	}
	mounted, err := isMounted(dir)
	if err != nil {
		return Capabilities{}, err
	}
	if !mounted {
		if err := mountBacking(ctx, home, dir, size); err != nil {
			return Capabilities{}, err
		}
	}
	if err := growPool(home, dir, size); err != nil {
		return Capabilities{}, fmt.Errorf("grow pool file: %w", err)
	}
	return probe(home, dir)
}

// mountBacking mounts the pool file at dir, making it first when dir needs one.
func mountBacking(ctx context.Context, home, dir string, size int64) error {
	image := poolImage(home)
	_, err := os.Stat(image)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err != nil { // no pool file: is one needed?
		if _, err := os.Stat(filepath.Join(dir, "disks")); err == nil {
			return nil // disks live right in home since the first Open
		}
		reflink, err := hasReflink(dir)
		if err != nil {
			return err
		}
		if reflink {
			return disableCOW(dir)
		}
		err = makePool(ctx, home, image, size)
		if engine.KindOf(err) == engine.KindUnsupported {
			return nil
		}
		if err != nil {
			return err
		}
	}
	err = mountOnce(image, dir, "xfs", poolFlags, "discard")
	if errors.Is(err, unix.ENODEV) {
		return engine.Errorf(engine.KindUnsupported, "the kernel has no XFS").
			WithHint("load the xfs module, or remove pool.img to go without reflinks").Wrap(err)
	}
	if err != nil {
		return err
	}
	// A namespace that copied our mounts learns of unmounts only through a
	// shared mount, and would hold the disks' loop devices for ever.
	return unix.Mount("", dir, "", unix.MS_SHARED, "")
}

// makePool formats a sparse file under a temporary name and renames it.
func makePool(ctx context.Context, home, image string, size int64) error {
	if size == 0 {
		free, _, err := space(home)
		if err != nil {
			return err
		}
		size = free / 5 * 4
	}
	size -= size % mib
	if size < minPoolSize {
		return engine.Errorf(engine.KindExhausted, "a storage pool needs at least %d MiB, there are %d", minPoolSize/mib, size/mib).
			WithHint("free space on the disk of the home directory, or choose another home")
	}
	draft := image + ".tmp"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(draft, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	// mkfs.xfs writes the whole log, so it is allocated in the sparse file:
	// a full host disk then fails single writes but cannot stop the pool.
	if err := runTool(ctx, "xfsprogs", []int{0}, "mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1", "-s", "size=4096", draft); err != nil {
		_ = os.Remove(draft)
		return err
	}
	return publish(draft, image)
}

// hasReflink clones a small file in dir.
func hasReflink(dir string) (bool, error) {
	from, err := os.CreateTemp(dir, ".reflink-")
	if err != nil {
		return false, err
	}
	defer os.Remove(from.Name())
	defer from.Close()
	to, err := os.CreateTemp(dir, ".reflink-")
	if err != nil {
		return false, err
	}
	defer os.Remove(to.Name())
	defer to.Close()
	if _, err := from.Write(make([]byte, blockSize)); err != nil {
		return false, err
	}
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil, nil
}

// disableCOW makes btrfs overwrite the blocks of unshared images in place.
// Its checksums cannot cover direct I/O from a loop device reliably.
func disableCOW(dir string) error {
	const noCOW = 0x00800000 // FS_NOCOW_FL
	if kind, err := fsKind(dir); err != nil || kind != "btrfs" {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, noCOW)
}

func fsKind(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", err
	}
	switch uint32(st.Type) {
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	}
	return "reflink", nil
}

// probe tells what dir can do.
func probe(home, dir string) (Capabilities, error) {
	reflink, err := hasReflink(dir)
	if err != nil {
		return Capabilities{}, err
	}
	mounted, err := isMounted(dir)
	if err != nil {
		return Capabilities{}, err
	}
	kind, err := fsKind(dir)
	if err != nil {
		return Capabilities{}, err
	}
	c := Capabilities{Reflink: reflink, HardLimit: true, Kind: kind}
	switch {
	case !reflink:
		c.Kind, c.Detail = "copy", "no reflinks: install xfsprogs and start with an empty pool directory"
	case mounted:
		c.Kind = "xfs-loop"
		c.Detail, err = loopDetail(poolImage(home))
	default:
		c.Detail = "disks are kept directly in the home directory"
	}
	return c, err
}

func loopDetail(image string) (string, error) {
	dev, err := loopOf(image)
	if err != nil || dev == "" {
		return "the pool is a mount of its own", err
	}
	info, err := loopStatus(dev)
	if err != nil {
		return "", err
	}
	if info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		return "pool.img on " + dev + " through the page cache", nil
	}
	return "pool.img on " + dev + " with direct I/O", nil
}

// growPool makes a mounted pool file larger when size asks for it.
func growPool(home, dir string, size int64) error {
	image := poolImage(home)
	dev, err := loopOf(image)
	if err != nil || dev == "" {
		return err
	}
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	size -= size % mib
	if size <= info.Size() {
		return nil
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return err
	}
	return growXFS(dir, size/blockSize)
}

// growXFS is xfs_growfs: blocks is the new size in blocks.
func growXFS(dir string, blocks int64) error {
	const (
		growData      = 0x4010586e // XFS_IOC_FSGROWFSDATA, _IOW('X', 110, 16 bytes)
		inodesPercent = 25         // what mkfs.xfs chose for pools of this size
	)
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	arg := struct {
		blocks  uint64
		percent uint32
	}{uint64(blocks), inodesPercent}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), growData, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}

// closeBacking unmounts the pool file and waits until its device is free.
func closeBacking(ctx context.Context, home, dir string) error {
	image := poolImage(home)
	if _, err := os.Stat(image); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unmountAll(dir, true); err != nil {
		return err
	}
	return awaitDetached(ctx, image)
}
