package main

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestMachineImageFromRegistry makes a sandbox from an image that has nothing
// but busybox: no users, no directories that the toolbox could count on.
func TestMachineImageFromRegistry(t *testing.T) {
	m := sharedMachine(t)
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	ref := strings.TrimPrefix(reg.URL, "http://") + "/tools/busybox:1.0"
	push(t, ref, busyboxImage(t))

	sb := m.create(map[string]any{"name": "bb", "image": ref})
	for line, want := range map[string]string{
		"echo $GREETING":     "from the image",
		"pwd":                "/srv",
		"busybox id -u":      "0",
		"busybox cat /srv/f": "data",
	} {
		if code, out := m.sh(sb.ID, line); code != 0 || strings.TrimSpace(out) != want {
			t.Errorf("%s: exit %d, %q; want %q", line, code, out, want)
		}
	}
	m.sh(sb.ID, "echo changed > /srv/f")

	// The tag moves on; the sandbox's layers do not.
	other, err := mutate.AppendLayers(empty.Image)
	if err != nil {
		t.Fatal(err)
	}
	push(t, ref, other)
	m.must("POST", "/api/sandbox/bb/stop", nil, nil)
	m.must("POST", "/api/sandbox/bb/start", nil, nil)
	if _, out := m.sh(sb.ID, "busybox cat /srv/f"); strings.TrimSpace(out) != "changed" {
		t.Errorf("after a restart: %q", out)
	}

	status, body, err := m.call("POST", "/api/sandbox", map[string]any{"image": strings.TrimSuffix(ref, "1.0") + "2.0"})
	if err != nil || status != 404 || !strings.Contains(string(body), "2.0") {
		t.Errorf("missing tag: %d %s %v; want 404 naming it", status, body, err)
	}
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	if err == nil {
		err = remote.Write(r, img, remote.WithContext(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func busyboxImage(t *testing.T) v1.Image {
	t.Helper()
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	return imageOf(t, []imageFile{
		{name: "bin/sh", mode: 0o755, data: box}, {name: "bin/busybox", mode: 0o755, data: box}, {name: "srv/f", mode: 0o644, data: []byte("data\n")},
	})
}

type imageFile struct {
	name string
	mode int64
	data []byte
	link string // what a symbolic link names; empty is a file
}

// imageOf makes an image of one layer.
func imageOf(t *testing.T, files []imageFile) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, f := range files {
			h := tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
			if f.link != "" {
				h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
			}
			if err := w.WriteHeader(&h); err != nil {
				return nil, err
			}
			if _, err := w.Write(f.data); err != nil {
				return nil, err
			}
		}
		return io.NopCloser(&b), w.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{Env: []string{"GREETING=from the image", "PATH=/bin"}, WorkingDir: "/srv"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.OS, file.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}
