package early

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequest(t *testing.T) {
	for _, want := range []Request{
		{Dir: "/b", Args: []string{"shim", "-id", "a-1", "start"}, Env: []string{"PATH=/bin", "X="}, Input: []byte("a\x00b\x00")},
		{Dir: "/b", Args: []string{"shim"}, Env: []string{}, Input: []byte{}},
	} {
		got, err := Decode(want.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("5\x00/b\x001\x00x"))
	f.Add([]byte("-1\x00"))
	f.Add(Request{Dir: "/b", Args: []string{"x", "start"}, Env: []string{"A=b"}, Input: []byte("in")}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(r.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Error(diff)
		}
	})
}

// TestClaim lets many claim one spare.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			fd, err := claim(dir, "1")
			if err == nil {
				won.Add(1)
				_ = syscall.Close(fd)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("got %d claims, want 1", won.Load())
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("got %v left, want nothing", left)
	}
}

// TestClaimStale clears what a dead spare left.
func TestClaimStale(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "1"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := claim(dir, "1"); err == nil {
		t.Error("got a claim of a dead spare, want an error")
	}
	if _, err := claim(dir, ".2"); err == nil {
		t.Error("got a claim of what another one claimed, want an error")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("got %v left, want nothing", left)
	}
}

func TestFlag(t *testing.T) {
	args := []string{"shim", "-id", "a-1", "-address"}
	for name, want := range map[string]string{"-id": "a-1", "-address": "", "-x": ""} {
		if got := Flag(args, name); got != want {
			t.Errorf("Flag(%q) = %q, want %q", name, got, want)
		}
	}
}
