package image

import (
	"context"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/nerdctl/v2/pkg/imgutil/dockerconfigresolver"
	"github.com/containerd/nerdctl/v2/pkg/imgutil/pull"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/atoll-sh/atoll/engine"
)

// labelPublic marks images that the registry gave without credentials. Only
// they may serve anybody while the registry cannot be asked.
const labelPublic = "atoll.sh/public"

// hostsDirs are where administrators configure mirrors and certificates of
// registries, for containerd, nerdctl and us alike.
func hostsDirs() []string { return []string{"/etc/containerd/certs.d", "/etc/docker/certs.d"} }

// ensurePulled pulls the image, or falls back to the local copy of a public
// one when the registry cannot be reached.
func (s *Store) ensurePulled(ctx context.Context, ref reference, req engine.EnsureImage, progress func(string)) (containerd.Image, error) {
	if req.PlainHTTP && !ref.loopback() {
		return nil, engine.Errorf(engine.KindInvalid, "registry %s: plain HTTP is allowed for registries on the server's own machine only", ref.domain)
	}
	if (req.Username == "") != (req.Password == "") {
		return nil, engine.Errorf(engine.KindInvalid, "registry credentials need both a user name and a password")
	}
	image, err := s.pull(ctx, ref, req, progress)
	if err == nil {
		return image, nil
	}
	err = translate(ref, err)
	if engine.KindOf(err) == engine.KindUnavailable {
		if local, e := s.client.GetImage(ctx, ref.name); e == nil && local.Labels()[labelPublic] != "" {
			s.log.WarnContext(ctx, "registry cannot be asked; the local image is used", "image", ref.name, "err", err)
			return local, nil
		}
	}
	return nil, err
}

// pull tries a second time when content came damaged: containerd resumes what
// an interrupted pull left, and what it left may be the damage.
func (s *Store) pull(ctx context.Context, ref reference, req engine.EnsureImage, progress func(string)) (containerd.Image, error) {
	resolver, err := newResolver(ctx, ref, req)
	if err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		meter := newMeter(s.client.ContentStore(), "pulling "+ref.name, progress)
		image, err := s.pullOnce(ctx, ref, resolver, req.Username == "", meter)
		if err == nil || !damaged(err) && !badRange(err) {
			return image, err
		}
		meter.abort(ctx)
		if again {
			return nil, err
		}
	}
}

// pullOnce has nerdctl's library fetch and unpack.
func (s *Store) pullOnce(ctx context.Context, ref reference, resolver remotes.Resolver, public bool, m *meter) (containerd.Image, error) {
	m.tell("pulling " + ref.name)
	stop := m.run(ctx)
	defer stop()
	opts := []containerd.RemoteOpt{
		containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(snapshotter),
		containerd.WithImageHandler(images.HandlerFunc(m.add)),
	}
	if public {
		opts = append(opts, containerd.WithPullLabel(labelPublic, "true"))
	}
	return pull.Pull(ctx, s.client, ref.name, &pull.Config{
		Resolver:   resolver,
		RemoteOpts: opts,
		Platforms:  []ocispec.Platform{platforms.DefaultSpec()},
	})
}

// newResolver asks registries with the request's credentials and no others: the
// host's own logins belong to its administrator, not to whoever asks.
func newResolver(ctx context.Context, ref reference, req engine.EnsureImage) (remotes.Resolver, error) {
	resolver, err := dockerconfigresolver.New(ctx, ref.domain,
		dockerconfigresolver.WithHostsDirs(hostsDirs()),
		dockerconfigresolver.WithPlainHTTP(req.PlainHTTP),
		dockerconfigresolver.WithAuthCreds(func(host string) (string, string, error) {
			if !ref.trusts(host) {
				return "", "", nil
			}
			return req.Username, req.Password, nil
		}))
	if err != nil {
		return nil, fmt.Errorf("prepare registry %s: %w", ref.domain, err)
	}
	return resolver, nil
}

// trusts tells whether the request's credentials are meant for host.
func (r reference) trusts(host string) bool {
	return host == r.domain || r.domain == "docker.io" && host == "registry-1.docker.io"
}
