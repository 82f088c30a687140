package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// testRegistry is a registry on loopback. The zero auth asks for nothing.
type testRegistry struct {
	t    *testing.T
	host string
	auth authn.Basic
	// spoil may change answers before they are sent; nil leaves them alone.
	spoil func(r *http.Request, body []byte) []byte
	close func()
}

func startRegistry(t *testing.T, auth authn.Basic) *testRegistry {
	t.Helper()
	reg := &testRegistry{t: t, auth: auth}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth.Username != "" {
			if u, p, _ := r.BasicAuth(); u != auth.Username || p != auth.Password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, "no", http.StatusUnauthorized)
				return
			}
		}
		if reg.spoil == nil || r.Method != http.MethodGet {
			inner.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		body := reg.spoil(r, rec.Body.Bytes())
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	}))
	t.Cleanup(srv.Close)
	reg.close = srv.Close
	reg.host = strings.TrimPrefix(srv.URL, "http://")
	return reg
}

// push stores an image and returns its reference.
func (r *testRegistry) push(repo string, image v1.Image) string {
	r.t.Helper()
	ref, opts := r.target(repo)
	if err := remote.Write(ref, image, opts...); err != nil {
		r.t.Fatal(err)
	}
	return ref.String()
}

func (r *testRegistry) pushIndex(repo string, index v1.ImageIndex) string {
	r.t.Helper()
	ref, opts := r.target(repo)
	if err := remote.WriteIndex(ref, index, opts...); err != nil {
		r.t.Fatal(err)
	}
	return ref.String()
}

func (r *testRegistry) target(repo string) (name.Reference, []remote.Option) {
	r.t.Helper()
	ref, err := name.ParseReference(r.host + "/" + repo)
	if err != nil {
		r.t.Fatal(err)
	}
	var opts []remote.Option
	if r.auth.Username != "" {
		opts = append(opts, remote.WithAuth(&r.auth))
	}
	return ref, opts
}

// files are the contents of a layer: a name ending in a slash is a directory.
type files map[string]string

func tarOf(t *testing.T, f files) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n, text := range f {
		h := &tar.Header{Name: n, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(n, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipLayer(t *testing.T, plain []byte) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return diffLayer{static.NewLayer(b.Bytes(), types.OCILayer), plain}
}

func zstdLayer(t *testing.T, plain []byte) v1.Layer {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return diffLayer{static.NewLayer(z.EncodeAll(plain, nil), types.OCILayerZStd), plain}
}

// diffLayer adds the right diff id to a compressed layer.
type diffLayer struct {
	v1.Layer
	plain []byte
}

func (l diffLayer) DiffID() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.plain))
	return h, err
}

func imageOf(t *testing.T, config v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

func read(t *testing.T, dir, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
