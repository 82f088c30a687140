package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/atoll-sh/atoll/engine"
)

// labelPinOf marks the second record of an image, named repo@digest. It keeps
// the image's config when the tag moves on. The value is the name that was
// asked for.
const labelPinOf = "atoll.sh/pin-of"

// remember unpacks the image where needed, keeps its layers, and caches what
// Image answers with.
func (s *Store) remember(ctx context.Context, ref reference, image containerd.Image) (Unpacked, error) {
	digest := image.Target().Digest.String()
	l, err := s.layers(ctx, image)
	if err != nil {
		return Unpacked{}, translate(ref, err)
	}
	described, err := describe(ctx, ref, image)
	if err != nil {
		return Unpacked{}, translate(ref, err)
	}
	if err := s.pin(ctx, ref, image); err != nil {
		return Unpacked{}, translate(ref, err)
	}
	described.SizeBytes = l.size
	u := Unpacked{Image: described, Lowers: l.dirs}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[ref.name] = u
	s.known[ref.pinned(digest)] = u
	return u, nil
}

// pin adds the record repo@digest beside repo:tag.
func (s *Store) pin(ctx context.Context, ref reference, image containerd.Image) error {
	if ref.digest != "" {
		return nil
	}
	m := image.Metadata()
	m.Labels = map[string]string{labelPinOf: m.Name}
	m.Name = ref.pinned(m.Target.Digest.String())
	_, err := s.client.ImageService().Create(ctx, m)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// layers are an image's unpacked layers.
type layers struct {
	dirs []string // top first
	size int64    // bytes on disk
}

// layers unpacks the image where needed and returns its layers. A read-only
// view with a root label is kept per image: it names the directories, and
// containerd's collector leaves what it stands on alone.
func (s *Store) layers(ctx context.Context, image containerd.Image) (layers, error) {
	diffs, err := image.RootFS(ctx)
	if err != nil {
		return layers{}, fmt.Errorf("read layers: %w", err)
	}
	if err := s.unpack(ctx, image, len(diffs)); err != nil {
		return layers{}, err
	}
	sn := s.client.SnapshotService(snapshotter)
	key := viewKey(image.Target().Digest.String())
	chain := identity.ChainID(diffs).String()
	mounts, err := sn.View(ctx, key, chain, snapshots.WithLabels(map[string]string{
		"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
	}))
	if errdefs.IsAlreadyExists(err) {
		mounts, err = sn.Mounts(ctx, key)
	}
	if err != nil {
		return layers{}, fmt.Errorf("view layers: %w", err)
	}
	dirs, err := parseLowers(mounts)
	if err != nil {
		return layers{}, err
	}
	size, err := diskUsage(ctx, sn, chain)
	return layers{dirs: dirs, size: size}, err
}

func (s *Store) unpack(ctx context.Context, image containerd.Image, layers int) error {
	if layers == 0 { // FROM scratch with a config alone
		return nil
	}
	ok, err := image.IsUnpacked(ctx, snapshotter)
	if err != nil {
		return fmt.Errorf("look for unpacked layers: %w", err)
	}
	if ok {
		return nil
	}
	if err := image.Unpack(ctx, snapshotter); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

// diskUsage adds up what a chain of layers holds on disk.
func diskUsage(ctx context.Context, sn snapshots.Snapshotter, chain string) (int64, error) {
	var total int64
	for chain != "" {
		u, err := sn.Usage(ctx, chain)
		if err != nil {
			return 0, fmt.Errorf("measure layer: %w", err)
		}
		info, err := sn.Stat(ctx, chain)
		if err != nil {
			return 0, fmt.Errorf("look up layer: %w", err)
		}
		total += u.Size
		chain = info.Parent
	}
	return total, nil
}

// viewKey names the view of an image by its digest.
func viewKey(digest string) string { return "atoll-image-" + strings.TrimPrefix(digest, "sha256:") }

// parseLowers reads the layers' directories out of a view's mounts: a bind
// mount for one layer, an overlay without upper directory for more.
func parseLowers(mounts []mount.Mount) ([]string, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("view has %d mounts, want 1", len(mounts))
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		return []string{m.Source}, nil
	case "overlay":
		for _, o := range m.Options {
			if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
				return strings.Split(dirs, ":"), nil
			}
		}
		return nil, errors.New("overlay view has no lowerdir")
	}
	return nil, fmt.Errorf("view is a mount of type %q, want bind or overlay", m.Type)
}

// describe reads the image's config. SizeBytes is not set.
func describe(ctx context.Context, ref reference, image containerd.Image) (engine.Image, error) {
	desc, err := image.Config(ctx)
	if err != nil {
		return engine.Image{}, fmt.Errorf("find config of %s: %w", ref.name, err)
	}
	blob, err := content.ReadBlob(ctx, image.ContentStore(), desc)
	if err != nil {
		return engine.Image{}, fmt.Errorf("read config of %s: %w", ref.name, err)
	}
	var c ocispec.Image
	if err := json.Unmarshal(blob, &c); err != nil {
		return engine.Image{}, fmt.Errorf("decode config of %s: %w", ref.name, err)
	}
	return engine.Image{
		Ref:        ref.shown(),
		Digest:     image.Target().Digest.String(),
		User:       c.Config.User,
		WorkDir:    c.Config.WorkingDir,
		Env:        c.Config.Env,
		Entrypoint: c.Config.Entrypoint,
		Cmd:        c.Config.Cmd,
	}, nil
}

// removeImage deletes the records of one content under ref's repository that
// go together, then the view when nothing else stands for the content.
func (s *Store) removeImage(ctx context.Context, ref reference, digest string) error {
	is := s.client.ImageService()
	all, err := is.List(ctx, "target.digest=="+digest)
	if err != nil {
		return fmt.Errorf("list names of %s: %w", ref.name, err)
	}
	gone, rest := namesToRemove(all, ref, digest)
	for _, name := range gone {
		if err := is.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", name, err)
		}
	}
	s.forget(gone...)
	if rest > 0 {
		return nil
	}
	err = s.client.SnapshotService(snapshotter).Remove(ctx, viewKey(digest))
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove layers of %s: %w", ref.name, err)
	}
	return s.collect(ctx)
}

// namesToRemove splits the names that one content has: those that go when ref
// is removed, and the number that stay. A pin goes with its last tag; a pin
// that is removed takes the tags of its repository along.
func namesToRemove(all []images.Image, ref reference, digest string) (gone []string, rest int) {
	pin := ref.pinned(digest)
	others := 0 // tags of the same repository beside ref
	for _, i := range all {
		r, err := parse(i.Name)
		if err == nil && r.repo == ref.repo && i.Name != pin && i.Name != ref.name {
			others++
		}
	}
	for _, i := range all {
		r, err := parse(i.Name)
		mine := err == nil && r.repo == ref.repo
		switch {
		case i.Name == ref.name, mine && ref.name == pin, i.Name == pin && others == 0:
			gone = append(gone, i.Name)
		default:
			rest++
		}
	}
	return gone, rest
}

// collect has containerd drop what nothing stands for any more, and waits.
// Deleting a lease synchronously is the way to ask for it.
func (s *Store) collect(ctx context.Context) error {
	ls := s.client.LeasesService()
	l, err := ls.Create(ctx, leases.WithRandomID(), leases.WithExpiration(time.Minute))
	if err == nil {
		err = ls.Delete(ctx, l, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}
