package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// Save keeps a copy of a disk as it is now, under the name as, and returns how
// many bytes of files it holds. A mounted disk is frozen for the moment of the
// cut: its writers wait, and the copy is as if the disk had been unmounted
// cleanly. With reflinks that takes the same time whatever the disk holds.
// Saving again under the same name replaces the copy.
func (p *Pool) Save(ctx context.Context, id, as string) (bytes int64, err error) {
	if err := errors.Join(checkID("disk", id), checkID("saved disk", as)); err != nil {
		return 0, err
	}
	defer p.names.lock("disk/" + id)()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := p.checkRoom(); err != nil {
		return 0, err
	}
	draft, err := p.tempDir("save")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(draft)
	image := filepath.Join(draft, "disk.img")
	if err := p.cut(ctx, id, image); err != nil {
		return 0, fmt.Errorf("save disk %s: %w", id, full(err))
	}
	s, err := readSuper(image)
	if err != nil {
		return 0, err
	}
	if err := publish(image, p.saved(as)); err != nil {
		return 0, fmt.Errorf("keep saved disk %s: %w", as, full(err))
	}
	return s.used, nil
}

// cut copies the disk's image to the new file image.
func (p *Pool) cut(ctx context.Context, id, image string) error {
	mounted, err := isMounted(p.mnt(id))
	if err != nil {
		return err
	}
	clone := func() error { return cloneImage(ctx, image, p.image(id), p.caps.Reflink) }
	if mounted {
		return whileFrozen(p.mnt(id), clone)
	}
	if err := p.unused(ctx, id); err != nil {
		return err
	}
	return clone()
}

// Drop deletes a saved disk; nil when it is gone already. Disks cloned from it
// keep their data.
func (p *Pool) Drop(ctx context.Context, saved string) error {
	if err := checkID("saved disk", saved); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Remove(p.saved(saved)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop saved disk %s: %w", saved, err)
	}
	return nil
}

// full turns ENOSPC into an error for people.
func full(err error) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return engine.Errorf(engine.KindExhausted, "the storage pool is full").
		WithHint("delete sandboxes or snapshots, or restart the server with a larger pool size").Wrap(err)
}
