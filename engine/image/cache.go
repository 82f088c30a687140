package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// cache keeps built layers for all servers of this host. An entry is a
// directory that appears by rename, so it is always whole.
type cache struct{ dir string }

// layer is what a recipe makes: an image's top layer, compressed.
type layer struct {
	Digest digest.Digest // of the file
	DiffID digest.Digest // of the tar archive in it
	Size   int64         // of the file
	Built  time.Time
	path   string
}

const (
	layerFile = "layer.tar.zst"
	layerInfo = "layer.json"
)

// layer returns the recipe's layer, building it when absent. One process at a
// time builds; others wait for its result.
func (c cache) layer(ctx context.Context, r recipe, progress func(string)) (layer, error) {
	if l, err := c.load(r); err == nil {
		return l, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return layer{}, fmt.Errorf("make cache of images: %w", err)
	}
	lock, err := c.lock(ctx, r, progress)
	if err != nil {
		return layer{}, err
	}
	defer lock.Close()
	if l, err := c.load(r); err == nil { // somebody else built it meanwhile
		return l, nil
	}
	if err := c.build(ctx, r, lock, progress); err != nil {
		return layer{}, err
	}
	return c.load(r)
}

// load looks the recipe up.
func (c cache) load(r recipe) (layer, error) {
	dir := filepath.Join(c.dir, r.key())
	text, err := os.ReadFile(filepath.Join(dir, layerInfo))
	if err != nil {
		return layer{}, errors.Join(errNotCached, err)
	}
	l := layer{path: filepath.Join(dir, layerFile)}
	if err := json.Unmarshal(text, &l); err != nil {
		return layer{}, errors.Join(errNotCached, err)
	}
	if st, err := os.Stat(l.path); err != nil || st.Size() != l.Size {
		return layer{}, errNotCached
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // what is used does not expire
	return l, nil
}

// drop forgets the recipe's layer, as when it turned out to be damaged.
func (c cache) drop(r recipe) error { return os.RemoveAll(filepath.Join(c.dir, r.key())) }

// lock waits for the recipe's build lock. It is released when the file is
// closed here and in every child that inherited it.
func (c cache) lock(ctx context.Context, r recipe, progress func(string)) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.dir, r.key()+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock image build: %w", err)
	}
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock image build: %w", err)
		}
		if !told {
			progress("building " + r.ref + ": another server is at it, waiting")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// build makes the recipe's entry. The lock is held.
func (c cache) build(ctx context.Context, r recipe, lock *os.File, progress func(string)) (err error) {
	final := filepath.Join(c.dir, r.key())
	// What a crashed build left; nobody else may work on it now.
	for _, old := range []string{final, final + ".new"} {
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("clear cache of images: %w", err)
		}
	}
	dir := final + ".new"
	root := filepath.Join(dir, "tmp")
	// Others must be able to pass: apt gives up its rights while downloading.
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make directory for image build: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	l, err := c.write(ctx, r, dir, root, lock, progress)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return fmt.Errorf("encode layer: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, layerInfo), text, 0o644); err != nil {
		return fmt.Errorf("store layer: %w", err)
	}
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("clear image build: %w", err)
	}
	if err := os.Rename(dir, final); err != nil {
		return fmt.Errorf("store layer: %w", err)
	}
	c.expire(r)
	return nil
}

// write runs the build and compresses its output on the way to the file, so
// that the archive never lies on disk as a whole.
func (c cache) write(ctx context.Context, r recipe, dir, root string, lock *os.File, progress func(string)) (layer, error) {
	f, err := os.Create(filepath.Join(dir, layerFile))
	if err != nil {
		return layer{}, fmt.Errorf("store layer: %w", err)
	}
	defer f.Close()
	compressed, plain := sha256.New(), sha256.New()
	z, err := zstd.NewWriter(io.MultiWriter(f, compressed), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return layer{}, fmt.Errorf("compress layer: %w", err)
	}
	defer z.Close()
	if err := r.make(ctx, root, io.MultiWriter(z, plain), []*os.File{lock}, progress); err != nil {
		return layer{}, err
	}
	if err := errors.Join(z.Close(), f.Sync()); err != nil {
		return layer{}, fmt.Errorf("store layer: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return layer{}, fmt.Errorf("store layer: %w", err)
	}
	return layer{
		Digest: digest.NewDigest(digest.SHA256, compressed),
		DiffID: digest.NewDigest(digest.SHA256, plain),
		Size:   st.Size(),
		Built:  time.Now().UTC(),
	}, nil
}

// expire removes entries of other recipes that are a month old. It is only
// housekeeping, so faults are left for the next time.
func (c cache) expire(keep recipe) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || e.Name() == keep.key() || strings.HasSuffix(e.Name(), ".new") {
			continue
		}
		if time.Since(info.ModTime()) > 30*24*time.Hour {
			_ = os.RemoveAll(filepath.Join(c.dir, e.Name()))
		}
	}
}
