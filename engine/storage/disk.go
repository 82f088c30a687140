package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// Disk is a mounted disk.
type Disk struct {
	ID   string
	Dir  string // mount point that holds upper/ and work/<n>/
	Size int64  // bytes

	users *userns // of the pool; lets MountRoot reuse user namespaces
}

func (p *Pool) disk(id string) string  { return filepath.Join(p.dir, "disks", id) }
func (p *Pool) image(id string) string { return filepath.Join(p.disk(id), "disk.img") }
func (p *Pool) mnt(id string) string   { return filepath.Join(p.disk(id), "mnt") }
func (p *Pool) saved(id string) string { return filepath.Join(p.dir, "saved", id+".img") }
func (p *Pool) template(size int64) string {
	return filepath.Join(p.dir, "templates", strconv.FormatInt(size, 10)+".img")
}

func (p *Pool) tempDir(what string) (string, error) {
	return os.MkdirTemp(filepath.Join(p.dir, "tmp"), what+"-")
}

func noDisk(id string, err error) error {
	return engine.Errorf(engine.KindNotFound, "there is no disk %s", id).Wrap(err)
}

// roundSize rounds up to whole MiB and refuses what is too small for ext4.
func roundSize(size int64) (int64, error) {
	size = (size + mib - 1) / mib * mib
	if size < minDiskSize {
		return 0, engine.Errorf(engine.KindInvalid, "a disk of %d MiB is too small", size/mib).
			WithHint("ask for at least %d MiB", minDiskSize/mib)
	}
	return size, nil
}

// Create makes an empty disk and mounts it. Creating a disk that exists with
// the same size mounts it; with another size it is a conflict.
func (p *Pool) Create(ctx context.Context, id string, size int64) (Disk, error) {
	size, err := roundSize(size)
	if err != nil {
		return Disk{}, err
	}
	return p.make(ctx, id, size, func() error {
		if p.ready.claim(size, p.disk(id)) {
			return nil
		}
		return p.build(p.disk(id), func(image string) error { return p.fromTemplate(ctx, image, size) })
	})
}

// Clone makes a disk from a saved one and mounts it; size 0 means the saved
// size. Growing takes a file system check and a resize. As with Create, an
// existing disk of the right size is mounted as it is.
func (p *Pool) Clone(ctx context.Context, id, from string, size int64) (Disk, error) {
	if err := checkID("saved disk", from); err != nil {
		return Disk{}, err
	}
	info, err := os.Stat(p.saved(from))
	if errors.Is(err, os.ErrNotExist) {
		return Disk{}, engine.Errorf(engine.KindNotFound, "there is no saved disk %s", from).Wrap(err)
	}
	if err != nil {
		return Disk{}, err
	}
	if size == 0 {
		size = info.Size()
	}
	if size, err = roundSize(size); err != nil {
		return Disk{}, err
	}
	if size < info.Size() {
		return Disk{}, engine.Errorf(engine.KindInvalid, "a disk of %d MiB cannot hold a saved one of %d MiB", size/mib, info.Size()/mib).
			WithHint("ask for at least the saved size")
	}
	return p.make(ctx, id, size, func() error {
		return p.build(p.disk(id), func(image string) error {
			if err := cloneImage(ctx, image, p.saved(from), p.caps.Reflink); err != nil {
				return err
			}
			return grow(ctx, image, size)
		})
	})
}

// make runs fill, which makes the disk's directory, unless the disk exists,
// and mounts the disk.
func (p *Pool) make(ctx context.Context, id string, size int64, fill func() error) (Disk, error) {
	if err := checkID("disk", id); err != nil {
		return Disk{}, err
	}
	defer p.names.lock("disk/" + id)()
	if err := ctx.Err(); err != nil {
		return Disk{}, err
	}
	info, err := os.Stat(p.image(id))
	switch {
	case err == nil && info.Size() != size:
		return Disk{}, engine.Errorf(engine.KindConflict, "disk %s exists with %d MiB", id, info.Size()/mib)
	case errors.Is(err, os.ErrNotExist):
		if err := p.checkRoom(); err != nil {
			return Disk{}, err
		}
		if err := fill(); err != nil {
			return Disk{}, fmt.Errorf("make disk %s: %w", id, full(err))
		}
	case err != nil:
		return Disk{}, err
	}
	return p.mountLocked(ctx, id)
}

// build makes a disk's directory in tmp, lets fill make its image, mounts it
// and renames it to dir.
func (p *Pool) build(dir string, fill func(image string) error) error {
	draft, err := p.tempDir("disk")
	if err != nil {
		return err
	}
	if err = os.Mkdir(filepath.Join(draft, "mnt"), 0o700); err == nil {
		err = fill(filepath.Join(draft, "disk.img"))
	}
	if err == nil {
		_, err = mountImage(filepath.Join(draft, "disk.img"), filepath.Join(draft, "mnt"), "ext4", diskFlags, diskOptions)
	}
	if err == nil {
		err = os.Rename(draft, dir)
	}
	if err != nil {
		return errors.Join(err, p.discard(draft))
	}
	return nil
}

// fromTemplate clones the formatted template of the size, and formats it when
// it is the first of its size.
func (p *Pool) fromTemplate(ctx context.Context, image string, size int64) error {
	err := cloneImage(ctx, image, p.template(size), p.caps.Reflink)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := p.makeTemplate(ctx, size); err != nil {
		return fmt.Errorf("format a template: %w", err)
	}
	return cloneImage(ctx, image, p.template(size), p.caps.Reflink)
}

// makeTemplate formats a file system and makes the directories every disk has,
// so that a clone is ready for use.
func (p *Pool) makeTemplate(ctx context.Context, size int64) (err error) {
	defer p.names.lock("template/" + strconv.FormatInt(size, 10))()
	if _, err := os.Stat(p.template(size)); err == nil {
		return nil
	}
	draft, err := p.tempDir("template")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.discard(draft)) }()
	image, mnt := filepath.Join(draft, "disk.img"), filepath.Join(draft, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	if err := formatImage(ctx, image, size); err != nil {
		return err
	}
	if _, err := mountImage(image, mnt, "ext4", diskFlags, diskOptions); err != nil {
		return err
	}
	err = errors.Join(os.Mkdir(filepath.Join(mnt, "upper"), 0o755), os.Mkdir(filepath.Join(mnt, "work"), 0o700),
		os.Remove(filepath.Join(mnt, "lost+found")))
	if err = errors.Join(err, unmountAll(mnt, false)); err != nil {
		return err
	}
	if err := awaitDetached(ctx, image); err != nil {
		return err
	}
	return publish(image, p.template(size))
}

// Mount mounts a disk. Mounting a mounted disk is not an error.
func (p *Pool) Mount(ctx context.Context, id string) (Disk, error) {
	if err := checkID("disk", id); err != nil {
		return Disk{}, err
	}
	defer p.names.lock("disk/" + id)()
	if err := ctx.Err(); err != nil {
		return Disk{}, err
	}
	return p.mountLocked(ctx, id)
}

func (p *Pool) mountLocked(ctx context.Context, id string) (Disk, error) {
	info, err := os.Stat(p.image(id))
	if errors.Is(err, os.ErrNotExist) {
		return Disk{}, noDisk(id, err)
	}
	if err != nil {
		return Disk{}, err
	}
	if err := mountDisk(ctx, p.disk(id)); err != nil {
		return Disk{}, fmt.Errorf("mount disk %s: %w", id, err)
	}
	return Disk{ID: id, Dir: p.mnt(id), Size: info.Size(), users: p.users}, nil
}

// mountDisk mounts the image of the disk in dir, and checks it before when the
// kernel met errors in it.
func mountDisk(ctx context.Context, dir string) error {
	image, mnt := filepath.Join(dir, "disk.img"), filepath.Join(dir, "mnt")
	mounted, err := isMounted(mnt)
	if err != nil || mounted {
		return err
	}
	s, err := readSuper(image)
	if err != nil {
		return err
	}
	if s.faulty {
		if err := awaitDetached(ctx, image); err != nil {
			return busy(err)
		}
		if err := checkFS(ctx, image); err != nil {
			return err
		}
	}
	return mountOnce(image, mnt, "ext4", diskFlags, diskOptions)
}

// Unmount unmounts a disk and frees its loop device. The root on it must be
// unmounted before. A disk that is not mounted or absent is not an error.
func (p *Pool) Unmount(ctx context.Context, id string) error {
	if err := checkID("disk", id); err != nil {
		return err
	}
	defer p.names.lock("disk/" + id)()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := unmountAll(p.mnt(id), false); err != nil {
		return fmt.Errorf("unmount disk %s: %w", id, busy(err))
	}
	return nil
}

// Grow makes an unmounted disk larger. The work is done on a copy, which then
// takes the disk's place: a resize that is cut short would leave ruins.
func (p *Pool) Grow(ctx context.Context, id string, size int64) (err error) {
	if err := checkID("disk", id); err != nil {
		return err
	}
	if size, err = roundSize(size); err != nil {
		return err
	}
	defer p.names.lock("disk/" + id)()
	if err := p.unused(ctx, id); err != nil {
		return err
	}
	if err := p.checkRoom(); err != nil {
		return err
	}
	draft, err := p.tempDir("grow")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.discard(draft)) }()
	image := filepath.Join(draft, "disk.img")
	if err = cloneImage(ctx, image, p.image(id), p.caps.Reflink); err == nil {
		err = grow(ctx, image, size)
	}
	if err == nil {
		err = tryMount(ctx, draft)
	}
	if err == nil {
		err = publish(image, p.image(id))
	}
	if err != nil {
		return fmt.Errorf("grow disk %s: %w", id, full(err))
	}
	return nil
}

// unused makes sure that nothing has the disk's image attached.
func (p *Pool) unused(ctx context.Context, id string) error {
	if _, err := os.Stat(p.image(id)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return noDisk(id, err)
		}
		return err
	}
	mounted, err := isMounted(p.mnt(id))
	if err != nil {
		return err
	}
	if !mounted {
		err = busy(awaitDetached(ctx, p.image(id)))
	}
	if mounted {
		err = engine.Errorf(engine.KindConflict, "disk %s is mounted", id).WithHint("stop the sandbox first")
	}
	return err
}

// grow enlarges an unused image and the file system in it.
func grow(ctx context.Context, image string, size int64) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	if size < info.Size() {
		return engine.Errorf(engine.KindInvalid, "a disk cannot shrink from %d to %d MiB", info.Size()/mib, size/mib)
	}
	if size == info.Size() {
		return nil
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	return growFS(ctx, image)
}

// tryMount mounts and unmounts the image of the disk in dir once. The kernel
// then writes down how much of a grown file system is tables.
func tryMount(ctx context.Context, dir string) error {
	image, mnt := filepath.Join(dir, "disk.img"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	if _, err := mountImage(image, mnt, "ext4", diskFlags, diskOptions); err != nil {
		return err
	}
	if err := unmountAll(mnt, false); err != nil {
		return err
	}
	return awaitDetached(ctx, image)
}

// Remove deletes a disk, mounted or not. Where a root holds it still, its
// space is freed with the root.
func (p *Pool) Remove(ctx context.Context, id string) error {
	if err := checkID("disk", id); err != nil {
		return err
	}
	defer p.names.lock("disk/" + id)()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.discard(p.disk(id)); err != nil {
		return fmt.Errorf("remove disk %s: %w", id, err)
	}
	return nil
}

// discard unmounts and deletes the disk in dir; nil when there is none. The
// disk is renamed first, so that what a crash leaves half deleted is in tmp.
func (p *Pool) discard(dir string) error {
	if err := unmountAll(filepath.Join(dir, "mnt"), true); err != nil {
		return err
	}
	gone, err := p.tempDir("gone")
	if err != nil {
		return err
	}
	err = os.Rename(dir, filepath.Join(gone, "disk"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(gone))
}

// List returns the ids of all disks and all saved disks, sorted.
func (p *Pool) List(ctx context.Context) (disks, saved []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	found, err := os.ReadDir(filepath.Join(p.dir, "disks"))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range found {
		disks = append(disks, e.Name())
	}
	if found, err = os.ReadDir(filepath.Join(p.dir, "saved")); err != nil {
		return nil, nil, err
	}
	for _, e := range found {
		saved = append(saved, strings.TrimSuffix(e.Name(), ".img"))
	}
	return disks, saved, nil
}
