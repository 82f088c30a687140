package image

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/atoll-sh/atoll/engine"
)

func TestPull(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("team/app:v1", imageOf(t,
		v1.Config{User: "app", WorkingDir: "/srv", Env: []string{"A=b"}, Entrypoint: []string{"/run"}, Cmd: []string{"x"}},
		gzipLayer(t, tarOf(t, files{"etc/": "", "etc/keep": "one", "etc/gone": "x", "etc/new": "old"})),
		zstdLayer(t, tarOf(t, files{"etc/": "", "etc/.wh.gone": "", "etc/new": "new"})),
		gzipLayer(t, tarOf(t, files{"top": "three"})),
	))

	got, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: ref}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Image{
		Ref: ref, Digest: got.Digest, SizeBytes: got.SizeBytes,
		User: "app", WorkDir: "/srv", Env: []string{"A=b"}, Entrypoint: []string{"/run"}, Cmd: []string{"x"},
	}
	if diff := cmp.Diff(want, got); diff != "" || got.SizeBytes == 0 || got.Digest == "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	u, err := s.Image(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Lowers) != 3 || read(t, u.Lowers[0], "top") != "three" || read(t, u.Lowers[2], "etc/keep") != "one" {
		t.Errorf("lowers: got %q, want three, top first", u.Lowers)
	}
	root := overlay(t, u.Lowers)
	if got := read(t, root, "etc/new"); got != "new" {
		t.Errorf("etc/new: got %q", got)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/gone")); !os.IsNotExist(err) {
		t.Errorf("etc/gone: got %v, want it gone", err)
	}
}

func TestPullOneLayer(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("one", imageOf(t, v1.Config{}, gzipLayer(t, tarOf(t, files{"a": "b"}))))
	u := ensure(t, s, engine.EnsureImage{Ref: ref})
	if len(u.Lowers) != 1 || read(t, u.Lowers[0], "a") != "b" {
		t.Errorf("lowers: got %q, want one", u.Lowers)
	}
}

func TestPullOfAnIndexTakesThisPlatform(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	mine := imageOf(t, v1.Config{User: "mine"}, gzipLayer(t, tarOf(t, files{"a": "mine"})))
	other := imageOf(t, v1.Config{User: "other"}, gzipLayer(t, tarOf(t, files{"a": "other"})))
	linux := func(arch string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}
	}
	both := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: linux("s390x")},
		mutate.IndexAddendum{Add: mine, Descriptor: linux("amd64")})
	if u := ensure(t, s, engine.EnsureImage{Ref: reg.pushIndex("both", both)}); u.User != "mine" {
		t.Errorf("got the image of %q", u.User)
	}
	foreign := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: other, Descriptor: linux("s390x")})
	_, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: reg.pushIndex("foreign", foreign)}, nil)
	wantKind(t, err, engine.KindUnsupported)
}

func TestPullWithCredentials(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{Username: "u", Password: "p"})
	ref := reg.push("private", imageOf(t, v1.Config{}, gzipLayer(t, tarOf(t, files{"a": "b"}))))

	_, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: ref}, nil)
	wantKind(t, err, engine.KindDenied)
	_, err = s.Ensure(t.Context(), engine.EnsureImage{Ref: ref, Username: "u", Password: "wrong"}, nil)
	wantKind(t, err, engine.KindDenied)
	_, err = s.Ensure(t.Context(), engine.EnsureImage{Ref: ref, Username: "u"}, nil)
	wantKind(t, err, engine.KindInvalid)
	ensure(t, s, engine.EnsureImage{Ref: ref, Username: "u", Password: "p"})

	// That it is here now opens it to nobody else.
	_, err = s.Ensure(t.Context(), engine.EnsureImage{Ref: ref}, nil)
	wantKind(t, err, engine.KindDenied)
	reg.close()
	_, err = s.Ensure(t.Context(), engine.EnsureImage{Ref: ref}, nil)
	wantKind(t, err, engine.KindUnavailable)
}

func TestPublicImageOutlivesItsRegistry(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("public", imageOf(t, v1.Config{}, gzipLayer(t, tarOf(t, files{"a": "b"}))))
	want := ensure(t, s, engine.EnsureImage{Ref: ref})
	reg.close()
	if got := ensure(t, s, engine.EnsureImage{Ref: ref}); got.Digest != want.Digest {
		t.Errorf("got %s, want %s", got.Digest, want.Digest)
	}
}

func TestPullFaults(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	good := reg.push("good", imageOf(t, v1.Config{}, gzipLayer(t, tarOf(t, files{"a": "b"}))))
	junk := reg.push("junk", imageOf(t, v1.Config{}, gzipLayer(t, []byte("this is no tar archive, and it is long enough to be one"+strings.Repeat(".", 2000)))))
	closed := closedPort(t)
	for _, c := range []struct {
		ref  string
		http bool
		want engine.Kind
	}{
		{"", false, engine.KindInvalid},
		{"Upper", false, engine.KindInvalid},
		{"https://" + reg.host + "/good", false, engine.KindInvalid},
		{"a b", false, engine.KindInvalid},
		{strings.Repeat("a", 64), false, engine.KindInvalid},
		{"x\x00y", false, engine.KindInvalid},
		{"--all", false, engine.KindInvalid},
		{good + "@sha256:123", false, engine.KindInvalid},
		{"registry.example/x", true, engine.KindInvalid},
		{reg.host + "/absent", false, engine.KindNotFound},
		{reg.host + "/good:absent", false, engine.KindNotFound},
		{reg.host + "/good@sha256:" + strings.Repeat("0", 64), false, engine.KindNotFound},
		{closed + "/x", false, engine.KindUnavailable},
		{"no-such-host.invalid/x", false, engine.KindUnavailable},
		{junk, false, engine.KindInvalid},
	} {
		_, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: c.ref, PlainHTTP: c.http}, nil)
		if got := engine.KindOf(err); got != c.want {
			t.Errorf("%q: got %s (%v), want %s", c.ref, got, err, c.want)
		}
	}
}

func TestPullOfChangedContent(t *testing.T) {
	s := startContainerd(t).open("")
	for name, spoil := range map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"longer":  func(b []byte) []byte { return append(bytes.Clone(b), "more"...) },
	} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t, authn.Basic{})
			layer := gzipLayer(t, tarOf(t, files{"a": strings.Repeat(name, 999)}))
			ref := reg.push(name, imageOf(t, v1.Config{}, layer))
			digest, err := layer.Digest()
			if err != nil {
				t.Fatal(err)
			}
			reg.spoil = func(r *http.Request, b []byte) []byte {
				if strings.HasSuffix(r.URL.Path, "/blobs/"+digest.String()) {
					return spoil(b)
				}
				return b
			}
			_, err = s.Ensure(t.Context(), engine.EnsureImage{Ref: ref}, nil)
			wantKind(t, err, engine.KindInvalid)
			if _, err := s.Image(t.Context(), ref); engine.KindOf(err) != engine.KindNotFound {
				t.Errorf("afterwards: got %v, want no image", err)
			}
			reg.spoil = nil
			ensure(t, s, engine.EnsureImage{Ref: ref})
		})
	}
}

func TestMovedTagLeavesTheOldContent(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("app:latest", imageOf(t, v1.Config{User: "one"}, gzipLayer(t, tarOf(t, files{"a": "one"}))))
	old := ensure(t, s, engine.EnsureImage{Ref: ref})
	reg.push("app:latest", imageOf(t, v1.Config{User: "two"}, gzipLayer(t, tarOf(t, files{"a": "two"}))))
	if got := ensure(t, s, engine.EnsureImage{Ref: ref}); got.User != "two" {
		t.Errorf("moved tag: got %q", got.User)
	}
	collectGarbage(t, s)
	s.forget(ref, Pin(old.Image)) // as after a restart
	got, err := s.Image(t.Context(), Pin(old.Image))
	if err != nil || got.User != "one" || read(t, got.Lowers[0], "a") != "one" {
		t.Errorf("pinned: got %+v, %v", got, err)
	}

	if n, err := s.Prune(t.Context(), map[string]bool{old.Digest: true}); n != 0 || err != nil {
		t.Errorf("prune what is kept: got %d, %v", n, err)
	}
	if n, err := s.Prune(t.Context(), nil); n != 1 || err != nil {
		t.Errorf("prune: got %d, %v, want 1", n, err)
	}
	if _, err := s.Image(t.Context(), Pin(old.Image)); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("pruned: got %v, want not found", err)
	}
	if _, err := os.Stat(old.Lowers[0]); !os.IsNotExist(err) {
		t.Errorf("pruned layer: got %v, want it gone", err)
	}
	if got := ensure(t, s, engine.EnsureImage{Ref: ref}); got.User != "two" {
		t.Errorf("after prune: got %q", got.User)
	}
}

func TestRemove(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	shared := gzipLayer(t, tarOf(t, files{"base": "x"}))
	one := reg.push("one", imageOf(t, v1.Config{}, shared, gzipLayer(t, tarOf(t, files{"a": "1"}))))
	two := reg.push("two", imageOf(t, v1.Config{}, shared, gzipLayer(t, tarOf(t, files{"a": "2"}))))
	u1, u2 := ensure(t, s, engine.EnsureImage{Ref: one}), ensure(t, s, engine.EnsureImage{Ref: two})
	if u1.Lowers[1] != u2.Lowers[1] {
		t.Errorf("base layer: got %q and %q, want one for both", u1.Lowers[1], u2.Lowers[1])
	}
	for range 2 {
		if err := s.Remove(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Image(t.Context(), one); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("removed: got %v, want not found", err)
	}
	if got := read(t, overlay(t, u2.Lowers), "base"); got != "x" {
		t.Errorf("shared layer: got %q", got)
	}
	if err := s.Remove(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	if got := s.snapshots(t); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("list: got %v, %v, want none", all, err)
	}
}

func TestRemoveOfOneOfTwoNames(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	image := imageOf(t, v1.Config{}, gzipLayer(t, tarOf(t, files{"a": "1"})))
	v1, v2 := reg.push("app:v1", image), reg.push("app:v2", image)
	ensure(t, s, engine.EnsureImage{Ref: v1})
	u := ensure(t, s, engine.EnsureImage{Ref: v2})
	if err := s.Remove(t.Context(), v1); err != nil {
		t.Fatal(err)
	}
	collectGarbage(t, s)
	if got := read(t, u.Lowers[0], "a"); got != "1" {
		t.Errorf("got %q", got)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Ref != v2 {
		t.Errorf("list: got %v, %v, want %s", all, err, v2)
	}
}

func TestImageSurvivesContainerd(t *testing.T) {
	p := startContainerd(t)
	s := p.open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("app", imageOf(t, v1.Config{User: "u"}, gzipLayer(t, tarOf(t, files{"a": "1"})), gzipLayer(t, tarOf(t, files{"b": "2"}))))
	want := ensure(t, s, engine.EnsureImage{Ref: ref})
	p.stop()
	warm, err := s.Image(t.Context(), ref)
	if err != nil {
		t.Fatalf("while containerd is down: %v", err)
	}
	if diff := cmp.Diff(want, warm); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	p.start()
	collectGarbage(t, s)
	cold, err := p.open("").Image(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, cold); diff != "" {
		t.Errorf("new store: -want +got:\n%s", diff)
	}
}

func TestManyAtTheSameTime(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("app", imageOf(t, v1.Config{}, gzipLayer(t, tarOf(t, files{"a": "1"}))))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: ref}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(s.locks.holds) != 0 {
		t.Errorf("locks: got %d left", len(s.locks.holds))
	}
}

func TestEnsureEndsWithItsContext(t *testing.T) {
	s := startContainerd(t).open("")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Ensure(ctx, engine.EnsureImage{Ref: closedPort(t) + "/x"}, nil)
	wantKind(t, err, engine.KindCanceled)
}

func TestReferences(t *testing.T) {
	for _, c := range []struct {
		in, name string
		loopback bool
	}{
		{"python", "docker.io/library/python:latest", false},
		{"python:3.12-slim", "docker.io/library/python:3.12-slim", false},
		{DefaultRef, "docker.io/library/atoll:default", false},
		{"ghcr.io/o/r", "ghcr.io/o/r:latest", false},
		{"127.0.0.1:5000/r:x", "127.0.0.1:5000/r:x", true},
		{"[::1]:5000/r:x", "[::1]:5000/r:x", true},
		{"localhost/r", "localhost/r:latest", true},
		{"localhost.example/r", "localhost.example/r:latest", false},
		{"r:x@sha256:" + strings.Repeat("0", 64), "docker.io/library/r@sha256:" + strings.Repeat("0", 64), false},
	} {
		got, err := parse(c.in)
		if err != nil || got.name != c.name || got.loopback() != c.loopback {
			t.Errorf("%s: got %+v, %v, %v", c.in, got, got.loopback(), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("python:3")
	f.Add("[::1]:5/r@sha256:0")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := parse(in)
		if err != nil {
			return
		}
		again, err := parse(r.name)
		if err != nil || again.name != r.name {
			t.Errorf("%q: got %q, then %q, %v", in, r.name, again.name, err)
		}
	})
}

// ensure makes an image ready and returns it unpacked.
func ensure(t *testing.T, s *Store, req engine.EnsureImage) Unpacked {
	t.Helper()
	if _, err := s.Ensure(t.Context(), req, nil); err != nil {
		t.Fatal(err)
	}
	u, err := s.Image(t.Context(), req.Ref)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func collectGarbage(t *testing.T, s *Store) {
	t.Helper()
	if err := s.collect(s.context(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, want engine.Kind) {
	t.Helper()
	if got := engine.KindOf(err); got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}

// closedPort is an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
