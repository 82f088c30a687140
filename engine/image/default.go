package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// labelRecipe holds the key of the recipe that a built image was made by.
const labelRecipe = "atoll.sh/recipe"

// ensureBuilt returns a default image, built by today's recipe where that is
// possible. An older one is used while a new one cannot be built.
func (s *Store) ensureBuilt(ctx context.Context, ref reference, progress func(string)) (containerd.Image, error) {
	old, err := s.client.GetImage(ctx, ref.name)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, translate(ref, err)
	}
	if err != nil {
		old = nil
	}
	r, base, err := s.recipeOf(ctx, ref, progress)
	if err == nil {
		if old != nil && old.Labels()[labelRecipe] == r.key() {
			return old, nil
		}
		var image containerd.Image
		if image, err = s.build(ctx, ref, r, base, progress); err == nil {
			return image, nil
		}
	}
	if old != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "default image cannot be renewed; the older one is used", "image", ref.shown(), "err", err)
		return old, nil
	}
	return nil, err
}

// recipeOf returns a default image's recipe. One that goes on top of another
// has that image ready first and returns it too.
func (s *Store) recipeOf(ctx context.Context, ref reference, progress func(string)) (recipe, containerd.Image, error) {
	d := hostDistribution(os.DirFS("/"))
	if ref.built() == DefaultRef {
		return defaultRecipe(d), nil, nil
	}
	under, err := parse(DefaultRef)
	if err != nil {
		return recipe{}, nil, err
	}
	base, err := s.ensureBuilt(ctx, under, progress)
	if err != nil {
		return recipe{}, nil, err
	}
	u, err := s.remember(ctx, under, base)
	if err != nil {
		return recipe{}, nil, err
	}
	return desktopRecipe(d, u), base, nil
}

// build gets the recipe's layer and imports it. A layer that does not match its
// digest was damaged in the cache; it is built anew, once.
func (s *Store) build(ctx context.Context, ref reference, r recipe, base containerd.Image, progress func(string)) (containerd.Image, error) {
	c := cache{dir: filepath.Join(s.config.Cache, "images")}
	for again := false; ; again = true {
		l, err := c.layer(ctx, r, progress)
		if err != nil {
			return nil, err
		}
		progress("building " + r.ref + ": unpacking (92%)")
		image, err := s.importLayer(ctx, ref, r, base, l)
		if err == nil {
			progress("building " + r.ref + ": ready (100%)")
			return image, nil
		}
		if again || !damaged(err) {
			return nil, translate(ref, err)
		}
		s.log.WarnContext(ctx, "cached layer is damaged; building it anew", "err", err)
		if err := c.drop(r); err != nil {
			return nil, fmt.Errorf("drop damaged layer: %w", err)
		}
	}
}

// importLayer makes an image of a layer, on top of base's where there is one, in
// containerd and unpacks it.
func (s *Store) importLayer(ctx context.Context, ref reference, r recipe, base containerd.Image, l layer) (containerd.Image, error) {
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease: %w", err)
	}
	defer done(context.WithoutCancel(ctx)) //nolint:errcheck // the lease ends by itself after a day

	target, err := s.writeContent(ctx, r, base, l)
	if err != nil {
		return nil, err
	}
	record := images.Image{Name: ref.name, Target: target, Labels: map[string]string{labelRecipe: r.key()}}
	if err := containerd.NewImage(s.client, record).Unpack(ctx, snapshotter); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	// The record comes last: whoever finds it finds a usable image.
	is := s.client.ImageService()
	if _, err := is.Create(ctx, record); errdefs.IsAlreadyExists(err) {
		_, err = is.Update(ctx, record)
		if err != nil {
			return nil, fmt.Errorf("store image: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("store image: %w", err)
	}
	return s.client.GetImage(ctx, ref.name)
}

// writeContent puts layer, config and manifest into the content store and
// returns the manifest.
func (s *Store) writeContent(ctx context.Context, r recipe, base containerd.Image, l layer) (ocispec.Descriptor, error) {
	blobs, diffs, err := stack(ctx, base)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read the image below: %w", err)
	}
	file, err := os.Open(l.path)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("open layer: %w", err)
	}
	defer file.Close()
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: l.Digest, Size: l.Size}
	if err := s.write(ctx, blob, file, map[string]string{"containerd.io/uncompressed": l.DiffID.String()}); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store layer: %w", err)
	}
	blobs, diffs = append(blobs, blob), append(diffs, l.DiffID)
	config, err := s.writeJSON(ctx, ocispec.MediaTypeImageConfig, ocispec.Image{
		Created:  &l.Built,
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   r.Config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffs},
		History:  slices.Repeat([]ocispec.History{{Created: &l.Built, CreatedBy: "packages of " + r.Distribution.ID + " " + r.Distribution.Suite}}, len(diffs)),
	}, nil)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store config: %w", err)
	}
	manifest, err := s.writeJSON(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    blobs,
	}, append([]ocispec.Descriptor{config}, blobs...))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store manifest: %w", err)
	}
	return manifest, nil
}

// stack returns the layers of an image, bottom first; none without an image.
func stack(ctx context.Context, image containerd.Image) ([]ocispec.Descriptor, []digest.Digest, error) {
	if image == nil {
		return nil, nil, nil
	}
	diffs, err := image.RootFS(ctx)
	if err != nil {
		return nil, nil, err
	}
	m, err := images.Manifest(ctx, image.ContentStore(), image.Target(), image.Platform())
	return m.Layers, diffs, err
}

// writeJSON stores v. The children are kept as long as it is.
func (s *Store) writeJSON(ctx context.Context, mediaType string, v any, children []ocispec.Descriptor) (ocispec.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	labels := map[string]string{}
	for i, c := range children {
		labels["containerd.io/gc.ref.content."+strconv.Itoa(i)] = c.Digest.String()
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return desc, s.write(ctx, desc, bytes.NewReader(text), labels)
}

// write stores a blob and checks its digest. A blob that is there already is
// fine. What an interrupted write left is thrown away first.
func (s *Store) write(ctx context.Context, desc ocispec.Descriptor, from io.Reader, labels map[string]string) error {
	cs := s.client.ContentStore()
	ref := "atoll-" + desc.Digest.String()
	if err := cs.Abort(ctx, ref); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	err := content.WriteBlob(ctx, cs, ref, from, desc, content.WithLabels(labels))
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil
	}
	return err
}
