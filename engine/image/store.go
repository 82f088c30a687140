// Package image gets OCI images and keeps them unpacked in containerd: pulled
// from registries, loaded from archives, or, for the default ones, built from
// the distribution's packages without any registry.
package image

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"

	"github.com/atoll-sh/atoll/engine"
)

// snapshotter holds the layers. Its lower directories are plain directories of
// the host that may be shared by any number of sandboxes.
const snapshotter = "overlayfs"

// DefaultCache is where built images are kept for all servers of this host.
const DefaultCache = "/var/cache/atoll"

// Config says which containerd to use.
type Config struct {
	Address   string       // socket of containerd
	Namespace string       // of containerd; empty: atoll
	Home      string       // the server's home
	Cache     string       // directory for built images, shared by servers; empty: DefaultCache
	Log       *slog.Logger // nil: nothing is logged
}

// Store is the images of one containerd. Its methods may be called at the same
// time.
type Store struct {
	client *containerd.Client
	config Config
	log    *slog.Logger
	quiet  *logrus.Entry // what the client would log comes back as errors too
	locks  keyedMutex    // by repository: one Ensure or Remove at a time

	mu    sync.RWMutex
	known map[string]Unpacked // by reference.name
}

// Unpacked is an image whose layers are directories on this host.
type Unpacked struct {
	engine.Image
	Lowers []string // host directories, top first; they stay until Remove
}

// Open connects to containerd. Close the store when done.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Namespace == "" {
		c.Namespace = "atoll"
	}
	if c.Cache == "" {
		c.Cache = DefaultCache
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	client, err := containerd.New(c.Address, containerd.WithDefaultNamespace(c.Namespace))
	if err != nil {
		return nil, engine.Errorf(engine.KindUnavailable, "containerd does not answer").Wrap(err)
	}
	s := &Store{client: client, config: c, log: c.Log, quiet: logrus.NewEntry(quiet), known: map[string]Unpacked{}}
	if _, err := client.Version(s.context(ctx)); err != nil {
		client.Close()
		return nil, engine.Errorf(engine.KindUnavailable, "containerd does not answer").Wrap(err)
	}
	return s, nil
}

// Close ends the connection. Images stay.
func (s *Store) Close() error { return s.client.Close() }

func (s *Store) context(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, s.config.Namespace), s.quiet)
}

// Ensure makes an image usable and returns it. A default image is built when
// absent or made by an older recipe; any other is asked for at its registry
// every time, so that a moved tag is noticed and nobody gets an image that
// their credentials would not give them. Content that is here is not fetched
// again. progress, which may be nil, is told in lines for people.
func (s *Store) Ensure(ctx context.Context, req engine.EnsureImage, progress func(string)) (engine.Image, error) {
	ref, err := parse(req.Ref)
	if err != nil {
		return engine.Image{}, err
	}
	if progress == nil {
		progress = func(string) {}
	}
	ctx = s.context(ctx)
	unlock, err := s.locks.lock(ctx, ref.repo)
	if err != nil {
		return engine.Image{}, err
	}
	defer unlock()
	var image containerd.Image
	if ref.built() != "" {
		image, err = s.ensureBuilt(ctx, ref, progress)
	} else {
		image, err = s.ensurePulled(ctx, ref, req, progress)
	}
	if err != nil {
		return engine.Image{}, err
	}
	u, err := s.remember(ctx, ref, image)
	return u.Image, err
}

// Image returns an image that Ensure made usable. It is quick: only the first
// call for an image talks to containerd. The answer's slices are shared and
// must not be changed.
func (s *Store) Image(ctx context.Context, ref string) (Unpacked, error) {
	r, err := parse(ref)
	if err != nil {
		return Unpacked{}, err
	}
	s.mu.RLock()
	u, ok := s.known[r.name]
	s.mu.RUnlock()
	if ok {
		return u, nil
	}
	ctx = s.context(ctx)
	image, err := s.client.GetImage(ctx, r.name)
	if errdefs.IsNotFound(err) {
		return Unpacked{}, absent(ref)
	}
	if err != nil {
		return Unpacked{}, translate(r, err)
	}
	return s.remember(ctx, r, image)
}

func absent(ref string) error {
	return engine.Errorf(engine.KindNotFound, "image %q is not on this runner", ref)
}

// List returns all images, by name, without their sizes. Pins are left out.
func (s *Store) List(ctx context.Context) ([]engine.Image, error) {
	ctx = s.context(ctx)
	images, err := s.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var all []engine.Image
	for _, image := range images {
		ref, err := parse(image.Name())
		if err != nil || image.Labels()[labelPinOf] != "" {
			continue
		}
		described, err := describe(ctx, ref, image)
		if err != nil {
			return nil, err
		}
		all = append(all, described)
	}
	slices.SortFunc(all, func(a, b engine.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return all, nil
}

// Remove drops an image and its unpacked layers, unless another name stands
// for the same content. The caller knows that no sandbox uses it. Removing an
// absent image is not an error.
func (s *Store) Remove(ctx context.Context, ref string) error {
	r, err := parse(ref)
	if err != nil {
		return err
	}
	ctx = s.context(ctx)
	unlock, err := s.locks.lock(ctx, r.repo)
	if err != nil {
		return err
	}
	defer unlock()
	image, err := s.client.ImageService().Get(ctx, r.name)
	if errdefs.IsNotFound(err) {
		s.forget(r.name)
		return nil
	}
	if err != nil {
		return translate(r, err)
	}
	return s.removeImage(ctx, r, image.Target.Digest.String())
}

func (s *Store) forget(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		delete(s.known, n)
	}
}

// keyedMutex is a mutex per key. The zero value is ready.
type keyedMutex struct {
	mu    sync.Mutex
	holds map[string]*hold
}

type hold struct {
	turn  chan struct{} // holds one token while nobody has the lock
	users int
}

// lock waits for the key's turn or for ctx.
func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.holds == nil {
		k.holds = map[string]*hold{}
	}
	h := k.holds[key]
	if h == nil {
		h = &hold{turn: make(chan struct{}, 1)}
		h.turn <- struct{}{}
		k.holds[key] = h
	}
	h.users++
	k.mu.Unlock()

	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(k.holds, key)
		}
	}
	select {
	case <-h.turn:
		return func() { h.turn <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
