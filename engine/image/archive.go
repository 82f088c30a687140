package image

import (
	"context"
	"fmt"
	"io"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"github.com/atoll-sh/atoll/engine"
)

// Save writes an image as a tar archive in OCI and Docker layout, for "docker
// load", "nerdctl load" and Load. It goes by containerd's client, because
// nerdctl's way of saving writes its progress to our standard error.
func (s *Store) Save(ctx context.Context, ref string, w io.Writer) error {
	r, err := parse(ref)
	if err != nil {
		return err
	}
	ctx = s.context(ctx)
	err = s.client.Export(ctx, w, archive.WithImage(s.client.ImageService(), r.name), archive.WithPlatform(platforms.Default()))
	if errdefs.IsNotFound(err) {
		return absent(ref)
	}
	if err != nil {
		return fmt.Errorf("save image %s: %w", r.name, err)
	}
	return nil
}

// Load reads images from a tar archive in OCI or Docker layout and makes them
// usable. Each takes the place of an image of the same name; those without a
// name are left out.
func (s *Store) Load(ctx context.Context, from io.Reader) ([]engine.Image, error) {
	ctx = s.context(ctx)
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease: %w", err)
	}
	defer done(context.WithoutCancel(ctx)) //nolint:errcheck // the lease ends by itself after a day

	records, err := s.client.Import(ctx, from, containerd.WithImportPlatform(platforms.Default()))
	if err != nil || len(records) == 0 {
		return nil, engine.Errorf(engine.KindInvalid, "the archive holds no image with a name that can be used").
			WithHint("make it with \"docker save\" or \"nerdctl save\"").Wrap(err)
	}
	var loaded []engine.Image
	for _, record := range records {
		ref, err := parse(record.Name)
		if err != nil {
			return loaded, err
		}
		u, err := s.remember(ctx, ref, containerd.NewImageWithPlatform(s.client, record, platforms.Default()))
		if err != nil {
			return loaded, err
		}
		loaded = append(loaded, u.Image)
	}
	return loaded, nil
}
