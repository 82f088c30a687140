package storage

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testSize = 256 * mib

// openPool opens a pool in a new home and destroys it when the test ends.
func openPool(t *testing.T, c Config) *Pool {
	t.Helper()
	if c.Home == "" {
		c.Home = t.TempDir()
	}
	if c.Size == 0 {
		c.Size = 8 * gib
	}
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	p, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := p.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
		wantNothingLeft(t, p.home)
	})
	return p
}

// wantNothingLeft fails when a loop device or mount below home is left.
func wantNothingLeft(t *testing.T, home string) {
	t.Helper()
	if loops := loopsBelow(t, home); len(loops) > 0 {
		t.Errorf("loop devices are left: %v", loops)
	}
	if mounts := mountsBelow(t, home); len(mounts) > 0 {
		t.Errorf("mounts are left: %v", mounts)
	}
}

func loopsBelow(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir+"/") {
			found = append(found, strings.TrimSpace(string(b)))
		}
	}
	return found
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestSmoke(t *testing.T) {
	start := time.Now()
	p := openPool(t, Config{Ready: map[int64]int{testSize: 5}})
	t.Logf("open: %v %+v", time.Since(start), p.Capabilities())
	waitReady(t, p)
	lower := t.TempDir()
	os.WriteFile(lower+"/hello", []byte("x"), 0o644)
	for i := range 10 {
		start = time.Now()
		d := must(p.Create(t.Context(), fmt.Sprintf("d%d", i), testSize))(t)
		t.Logf("create: %v", time.Since(start))
		start = time.Now()
		target := filepath.Join(p.home, fmt.Sprintf("root%d", i))
		if err := MountRoot(t.Context(), Root{ID: "x", Target: target, Lowers: []string{lower}, Disk: d, UIDBase: 200000 + uint32(i/2)*65536}); err != nil {
			t.Fatal(err)
		}
		t.Logf("mountroot: %v", time.Since(start))
		var st unix.Stat_t
		unix.Stat(target+"/hello", &st)
		t.Log(st.Uid)
		start = time.Now()
		p.Save(t.Context(), d.ID, "s")
		t.Logf("save: %v", time.Since(start))
		defer func() {
			start = time.Now()
			UnmountRoot(t.Context(), target)
			t.Logf("umount: %v", time.Since(start))
			start = time.Now()
			p.Remove(t.Context(), d.ID)
			t.Logf("remove: %v", time.Since(start))
		}()
	}
}

func waitReady(t *testing.T, p *Pool) {
	t.Helper()
	for p.ready.missing() != 0 {
		time.Sleep(10 * time.Millisecond)
	}
}
