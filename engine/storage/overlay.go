package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayOptions are set one by one, because their defaults depend on how the
// kernel was built.
//
//   - index off: it binds an upper directory to one file system and one set of
//     layers, and a cloned disk would be refused.
//   - metacopy off: a saved disk holds whole files.
//   - redirect_dir on: renaming a directory of the image works, where Docker's
//     users get EXDEV. The redirects are trusted.* attributes, which nobody in
//     a sandbox can write.
//   - xino auto: one device number and lasting inode numbers for all files.
//   - volatile is not set: fsync inside reaches the disk.
func overlayOptions() [][2]string {
	return [][2]string{
		{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "on"}, {"xino", "auto"}, {"nfs_export", "off"},
	}
}

// mountLayers mounts the overlay by descriptors alone: no temporary mount is
// ever visible, and any number of layers fits.
func mountLayers(l *layers, name, target string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlay: %w", err)
	}
	context := os.NewFile(uintptr(fd), "overlay")
	defer context.Close()
	if err := configure(fd, l, name); err != nil {
		return withLog(context, fmt.Errorf("set up overlay: %w", err))
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return withLog(context, fmt.Errorf("mount overlay: %w", err))
	}
	defer unix.Close(mfd)
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach overlay at %s: %w", target, err)
	}
	return nil
}

func configure(fd int, l *layers, name string) error {
	if err := unix.FsconfigSetString(fd, "source", name); err != nil {
		return err
	}
	for _, o := range overlayOptions() {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return fmt.Errorf("option %s: %w", o[0], err)
		}
	}
	for _, f := range l.lowers {
		if err := unix.FsconfigSetFd(fd, "lowerdir+", int(f.Fd())); err != nil {
			return fmt.Errorf("layer %s: %w", f.Name(), err)
		}
	}
	if err := unix.FsconfigSetFd(fd, "upperdir", int(l.upper.Fd())); err != nil {
		return fmt.Errorf("upper directory: %w", err)
	}
	if err := unix.FsconfigSetFd(fd, "workdir", int(l.work.Fd())); err != nil {
		return fmt.Errorf("work directory: %w", err)
	}
	return unix.FsconfigCreate(fd)
}

// withLog adds what the kernel wrote to the context's log.
func withLog(context *os.File, err error) error {
	b := make([]byte, 1024)
	if n, _ := unix.Read(int(context.Fd()), b); n > 0 {
		return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(b[:n])))
	}
	return err
}

// attachedDir is where mountAttached puts its temporary mounts. It depends on
// the target alone, so that whoever comes after a crash finds it.
func attachedDir(target string) string { return filepath.Clean(target) + ".layers" }

// mountAttached is mountLayers for older kernels. It attaches the id-mapped
// mounts while it mounts, and names the layers by descriptor, so that about
// 200 of them fit the one page of options.
func mountAttached(l *layers, name, target string) (err error) {
	if err := removeAttached(target); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAttached(target)) }()
	for i, tree := range l.trees {
		at := filepath.Join(attachedDir(target), strconv.Itoa(i))
		if err := os.MkdirAll(at, 0o700); err != nil {
			return err
		}
		if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach %s: %w", tree.Name(), err)
		}
	}
	options := make([]string, 0, 8)
	for _, o := range overlayOptions() {
		options = append(options, o[0]+"="+o[1])
	}
	paths := make([]string, len(l.lowers))
	for i, f := range l.lowers {
		paths[i] = fdPath(f)
	}
	options = append(options, "upperdir="+fdPath(l.upper), "workdir="+fdPath(l.work), "lowerdir="+strings.Join(paths, ":"))
	if err := unix.Mount(name, target, "overlay", unix.MS_NODEV|unix.MS_NOATIME, strings.Join(options, ",")); err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w", len(paths), err)
	}
	return nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// removeAttached detaches the temporary mounts of a target, also those of a
// process that was killed meanwhile.
func removeAttached(target string) error {
	dir := attachedDir(target)
	found, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range found {
		at := filepath.Join(dir, e.Name())
		if err := unmountAll(at, true); err != nil {
			return err
		}
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}
