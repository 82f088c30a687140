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

// ensureDefault returns the default image, built by today's recipe where that
// is possible. An older one is used while a new one cannot be built.
func (s *Store) ensureDefault(ctx context.Context, ref reference, progress func(string)) (containerd.Image, error) {
	r := defaultRecipe(hostDistribution(os.DirFS("/")))
	old, err := s.client.GetImage(ctx, ref.name)
	switch {
	case err == nil && old.Labels()[labelRecipe] == r.key():
		return old, nil
	case err != nil && !errdefs.IsNotFound(err):
		return nil, translate(ref, err)
	case errdefs.IsNotFound(err):
		old = nil
	}
	image, err := s.build(ctx, ref, r, progress)
	if err != nil && old != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "default image cannot be renewed; the older one is used", "err", err)
		return old, nil
	}
	return image, err
}

// build gets the recipe's layer and imports it. A layer that does not match its
// digest was damaged in the cache; it is built anew, once.
func (s *Store) build(ctx context.Context, ref reference, r recipe, progress func(string)) (containerd.Image, error) {
	c := cache{dir: filepath.Join(s.config.Cache, "images")}
	for again := false; ; again = true {
		l, err := c.layer(ctx, r, progress)
		if err != nil {
			return nil, err
		}
		progress("building " + DefaultRef + ": unpacking (92%)")
		image, err := s.importLayer(ctx, ref, r, l)
		if err == nil {
			progress("building " + DefaultRef + ": ready (100%)")
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

// importLayer makes an image of one layer in containerd and unpacks it.
func (s *Store) importLayer(ctx context.Context, ref reference, r recipe, l layer) (containerd.Image, error) {
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease: %w", err)
	}
	defer done(context.WithoutCancel(ctx)) //nolint:errcheck // the lease ends by itself after a day

	target, err := s.writeContent(ctx, r, l)
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
func (s *Store) writeContent(ctx context.Context, r recipe, l layer) (ocispec.Descriptor, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("open layer: %w", err)
	}
	defer file.Close()
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: l.Digest, Size: l.Size}
	if err := s.write(ctx, blob, file, map[string]string{"containerd.io/uncompressed": l.DiffID.String()}); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store layer: %w", err)
	}
	config, err := s.writeJSON(ctx, ocispec.MediaTypeImageConfig, ocispec.Image{
		Created:  &l.Built,
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   r.Config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.DiffID}},
		History:  []ocispec.History{{Created: &l.Built, CreatedBy: "packages of " + r.Distribution.ID + " " + r.Distribution.Suite}},
	}, nil)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store config: %w", err)
	}
	manifest, err := s.writeJSON(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{blob},
	}, []ocispec.Descriptor{config, blob})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store manifest: %w", err)
	}
	return manifest, nil
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
