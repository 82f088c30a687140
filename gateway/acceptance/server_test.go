package acceptance

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/atoll-sh/atoll/engine/enginetest"
)

const apiKey = "atl_sdktest_0123456789abcdef0123456789abcdef"

// server is the real binary with its own home.
type server struct {
	*testing.T
	bin, home, addr string
	cmd             *exec.Cmd
	ended           chan struct{}
}

// start builds and starts a server, and takes it down with the test.
func start(t *testing.T) *server {
	t.Helper()
	s := &server{T: t, bin: filepath.Join(t.TempDir(), "atoll"), addr: enginetest.FreeAddress(t), ended: make(chan struct{})}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin, "github.com/atoll-sh/atoll/cmd/atoll").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var err error
	if s.home, err = os.MkdirTemp("", "ah"); err != nil { // short: paths of sockets are limited
		t.Fatal(err)
	}
	logFile, err := os.Create(s.logPath())
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	// The command outlives t.Context, so that down finds it alive.
	s.cmd = exec.Command(s.bin, "serve", "--home", s.home, "--listen", s.addr, "--pool-size", "1", "--ssh-listen", "127.0.0.1:0") //nolint:noctx
	s.cmd.Env = append(os.Environ(), "ATOLL_API_KEY="+apiKey)
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.ended) }()
	t.Cleanup(s.down)
	s.wait("/readyz", time.Minute, func([]byte) bool { return true })
	s.wait("/api/snapshots", 15*time.Minute, func(b []byte) bool {
		var page struct {
			Items []struct{ Name, State string }
		}
		_ = json.Unmarshal(b, &page)
		for _, i := range page.Items {
			if i.Name == "atoll-small" {
				return i.State == "active"
			}
		}
		return false
	})
	return s
}

func (s *server) logPath() string { return filepath.Join(s.home, "test-server.log") }

// log is the end of the server's log.
func (s *server) log() string {
	b, _ := os.ReadFile(s.logPath())
	lines := strings.SplitAfter(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// wait asks until the server answers 200 with a body that will do.
func (s *server) wait(path string, limit time.Duration, enough func(body []byte) bool) {
	s.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+s.addr+path, nil)
		if err != nil {
			s.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+apiKey)
		if res, err := http.DefaultClient.Do(req); err == nil {
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusOK && enough(b) {
				return
			}
		}
		select {
		case <-s.ended:
			s.Fatalf("the server ended:\n%s", s.log())
		default:
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s: not ready after %v\n%s", path, limit, s.log())
		}
	}
}

// down ends the server and removes all that it made on this host.
func (s *server) down() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		s.Errorf("the server did not end within a minute of SIGTERM")
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	if s.Failed() {
		s.Logf("server log:\n%s", s.log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, s.bin, "down", "--home", s.home).CombinedOutput(); err != nil {
		s.Errorf("down: %v\n%s", err, out)
		return
	}
	_ = os.RemoveAll(s.home)
}

// serveImage serves a small image from a registry on this machine and returns
// its reference.
func serveImage(t *testing.T) string {
	t.Helper()
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(reg.URL, "http://")+"/tools/busybox:1.0", name.Insecure)
	if err == nil {
		err = remote.Write(ref, busybox(t), remote.WithContext(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

func busybox(t *testing.T) v1.Image {
	t.Helper()
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(box))})
	if err == nil {
		_, err = w.Write(box)
	}
	for _, applet := range []string{"sh", "cat", "echo"} {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"})
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		img, err = mutate.Config(img, v1.Config{Env: []string{"PATH=/bin"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}
