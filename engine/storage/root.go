package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// Root describes the root file system of one sandbox.
type Root struct {
	ID      string
	Target  string   // where to mount; made when absent
	Lowers  []string // layers of the image, top first
	Disk    Disk     // mounted; takes the writes
	UIDBase uint32   // host id of the sandbox's root
}

// MountRoot mounts an overlay of the image's layers and the disk at Target.
// All layers are id-mapped: what id 0 owns in a layer or on the disk belongs
// to host id UIDBase in Target, and the other way round for writes. A Target
// that is mounted already is left as it is. A disk must have at most one root.
func MountRoot(ctx context.Context, r Root) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.Lowers) == 0 {
		return engine.Errorf(engine.KindInvalid, "a root needs at least one layer")
	}
	if err := os.MkdirAll(r.Target, 0o700); err != nil {
		return err
	}
	mounted, err := isMounted(r.Target)
	if err != nil || mounted {
		return err
	}
	if err := mountRoot(r); err != nil {
		return fmt.Errorf("mount root of %s: %w", r.ID, err)
	}
	return nil
}

func mountRoot(r Root) error {
	users, err := r.Disk.users.open(r.UIDBase)
	if err != nil {
		return err
	}
	defer users.Close()
	l, err := openLayers(r, users)
	defer l.close()
	if err != nil {
		return err
	}
	return asOwner(r.UIDBase, func() error {
		// Layers by descriptor need Linux 6.15. Before, overlay wants them attached
		// (EINVAL), the kernel takes no descriptors that only name a directory
		// (EBADF, as 6.12), or overlay none at all (EOPNOTSUPP, as 6.1).
		err := mountLayers(l, r.ID, r.Target)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) {
			if old := mountAttached(l, r.ID, r.Target); old != nil {
				return errors.Join(err, old)
			}
			return nil
		}
		return err
	})
}

// UnmountRoot unmounts what MountRoot mounted; nil when nothing is. A root in
// use disappears from the host at once and lives on for its users.
func UnmountRoot(ctx context.Context, target string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := unmountAll(target, true); err != nil {
		return fmt.Errorf("unmount root: %w", err)
	}
	return removeAttached(target)
}

// layers is an overlay's parts as descriptors of id-mapped mounts. Until they
// are attached, the mounts exist only as long as the descriptors.
type layers struct {
	trees       []*os.File // the mounts
	lowers      []*os.File // top first
	upper, work *os.File
}

func (l *layers) close() {
	for _, f := range append(append(l.trees, l.lowers...), l.upper, l.work) {
		if f != nil {
			f.Close()
		}
	}
}

// openLayers always returns layers to be closed, also with an error.
func openLayers(r Root, users *os.File) (*layers, error) {
	l := &layers{}
	work, err := freshWork(r.Disk.Dir)
	if err != nil {
		return l, err
	}
	disk, err := l.tree(r.Disk.Dir, users, false)
	if err != nil {
		return l, err
	}
	if l.upper, err = openBeneath(disk, "upper"); err != nil {
		return l, err
	}
	if l.work, err = openBeneath(disk, work); err != nil {
		return l, err
	}
	return l, l.openLowers(r.Lowers, users)
}

// openLowers maps the directory above all layers once when it can, and each
// layer otherwise.
func (l *layers) openLowers(lowers []string, users *os.File) error {
	parent, err := commonParent(lowers)
	if err != nil {
		return err
	}
	var tree *os.File
	for _, dir := range lowers {
		from := parent
		if parent == "" {
			from = dir
		}
		if tree == nil || parent == "" {
			if tree, err = l.tree(from, users, true); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(from, dir)
		if err != nil {
			return err
		}
		f, err := openBeneath(tree, rel)
		if err != nil {
			return err
		}
		l.lowers = append(l.lowers, f)
	}
	return nil
}

// tree clones the mount of dir and maps its ids through users.
func (l *layers) tree(dir string, users *os.File, readOnly bool) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone mount of %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	l.trees = append(l.trees, f)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		err = fmt.Errorf("map ids of %s: %w", dir, err)
		return nil, engine.Errorf(engine.KindUnsupported, "the file system of a layer cannot map ids").
			WithHint("keep the server's home on ext4, XFS or btrfs, with Linux 5.19 or later").Wrap(err)
	}
	return f, nil
}

// commonParent returns the deepest directory above all dirs, or "" when they
// are not all on one mount.
func commonParent(dirs []string) (string, error) {
	parent := filepath.Clean(dirs[0])
	for _, dir := range dirs {
		for !within(parent, filepath.Clean(dir)) {
			parent = filepath.Dir(parent)
		}
	}
	mount, err := mountID(parent)
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		m, err := mountID(dir)
		if err != nil {
			return "", err
		}
		if m != mount {
			return "", nil
		}
	}
	return parent, nil
}

func within(parent, dir string) bool {
	rel, err := filepath.Rel(parent, dir)
	return err == nil && filepath.IsLocal(rel)
}

func mountID(path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("stat layer %s: %w", path, err)
	}
	return st.Mnt_id, nil
}

func openBeneath(dir *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", path, dir.Name(), err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), path)), nil
}

// freshWork returns a work directory that no overlay has used, as a path on the
// disk, and removes used ones: what an overlay left in its work directory must
// not meet another upper directory, as it would on a disk cloned from a
// running one.
func freshWork(disk string) (string, error) {
	work := filepath.Join(disk, "work")
	old, err := os.ReadDir(work)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	last := 0
	for _, e := range old {
		// An overlay makes a directory of its own in it, so an empty one is unused.
		path := filepath.Join(work, e.Name())
		inside, err := os.ReadDir(path)
		if err == nil && len(inside) == 0 && len(old) == 1 {
			return filepath.Join("work", e.Name()), nil
		}
		if n, err := strconv.Atoi(e.Name()); err == nil {
			last = max(last, n)
		}
		if err := os.RemoveAll(path); err != nil {
			return "", err
		}
	}
	name := filepath.Join("work", strconv.Itoa(last+1))
	return name, os.MkdirAll(filepath.Join(disk, name), 0o700)
}
