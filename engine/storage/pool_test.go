package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/atoll-sh/atoll/engine"
)

const testSize = 256 * mib

// openPool opens a pool in a new home and destroys it when the test ends.
func openPool(t *testing.T, c Config) *Pool {
	t.Helper()
	if c.Home == "" {
		c.Home = t.TempDir()
		// Processes of a sandbox must reach their root.
		if err := os.Chmod(filepath.Dir(c.Home), 0o711); err != nil {
			t.Fatal(err)
		}
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

// wantNothingLeft fails when a loop device or mount below home is left. The
// kernel lets go of a loop device a moment after its last user.
func wantNothingLeft(t *testing.T, home string) {
	t.Helper()
	loops := loopsBelow(t, home)
	for end := time.Now().Add(time.Minute); len(loops) > 0 && time.Now().Before(end); loops = loopsBelow(t, home) {
		time.Sleep(10 * time.Millisecond)
	}
	if len(loops) > 0 {
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

func create(t *testing.T, p *Pool, id string, size int64) Disk {
	t.Helper()
	d, err := p.Create(t.Context(), id, size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wantKind(t *testing.T, err error, want engine.Kind) {
	t.Helper()
	if got := engine.KindOf(err); got != want {
		t.Errorf("got an error of kind %q (%v), want %q", got, err, want)
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func waitReady(t *testing.T, p *Pool) {
	t.Helper()
	for p.ready.missing() != 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("no ready disks")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestOneProcessHoldsThePool(t *testing.T) {
	p := openPool(t, Config{})
	_, err := Open(t.Context(), Config{Home: p.home})
	wantKind(t, err, engine.KindConflict)
}

func TestCreateFromTemplateAndReady(t *testing.T) {
	p := openPool(t, Config{Ready: map[int64]int{testSize: 4}})
	t.Logf("capabilities: %+v", p.Capabilities())
	waitReady(t, p)
	create(t, p, "warm-up", 2*testSize) // formats the template of the other size
	for i := range 4 {
		start := time.Now()
		create(t, p, fmt.Sprintf("ready-%d", i), testSize)
		t.Logf("create from ready: %v", time.Since(start))
	}
	for i := range 4 {
		start := time.Now()
		create(t, p, fmt.Sprintf("template-%d", i), 2*testSize)
		t.Logf("create from template: %v", time.Since(start))
	}
	again := create(t, p, "ready-0", testSize)
	if want := p.mnt("ready-0"); again.Dir != want {
		t.Errorf("creating again: got %s, want %s", again.Dir, want)
	}
	_, err := p.Create(t.Context(), "ready-0", 2*testSize)
	wantKind(t, err, engine.KindConflict)
}

func TestReopenAdoptsDisks(t *testing.T) {
	p := openPool(t, Config{Ready: map[int64]int{testSize: 2}})
	d := create(t, p, "one", testSize)
	write(t, d.Dir+"/upper/file", "kept")
	waitReady(t, p)
	if err := os.MkdirAll(p.dir+"/tmp/half/mnt", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	before := loopsBelow(t, p.home)
	p = openPool(t, Config{Home: p.home, Ready: map[int64]int{testSize: 2}})
	if diff := cmp.Diff(before, loopsBelow(t, p.home)); diff != "" {
		t.Errorf("loop devices changed (-before +after):\n%s", diff)
	}
	if got := read(t, d.Dir+"/upper/file"); got != "kept" {
		t.Errorf("got %q, want kept", got)
	}
	if left, _ := os.ReadDir(p.dir + "/tmp"); len(left) > 0 {
		t.Errorf("tmp holds %v", left)
	}
}

func TestDestroyThenOpenMountsAgain(t *testing.T) {
	p := openPool(t, Config{})
	write(t, create(t, p, "one", testSize).Dir+"/upper/file", "kept")
	if err := p.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, p.home)
	p = openPool(t, Config{Home: p.home})
	d, err := p.Mount(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, d.Dir+"/upper/file"); got != "kept" {
		t.Errorf("got %q, want kept", got)
	}
}

func TestThirtyAtOnceLeaveNothing(t *testing.T) {
	p := openPool(t, Config{Ready: map[int64]int{testSize: 3}})
	start := time.Now()
	var g errgroup.Group
	for i := range 30 {
		g.Go(func() error {
			id := fmt.Sprintf("d%d", i)
			d, err := p.Create(t.Context(), id, testSize)
			if err != nil {
				return err
			}
			if err := os.WriteFile(d.Dir+"/upper/f", []byte(id), 0o644); err != nil {
				return err
			}
			if _, err := p.Save(t.Context(), id, id); err != nil {
				return err
			}
			return errors.Join(p.Remove(t.Context(), id), p.Drop(t.Context(), id))
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("30 disks made, saved and removed in %v", time.Since(start))
	waitReady(t, p)
	disks, saved, err := p.List(t.Context())
	if err != nil || len(disks) > 0 || len(saved) > 0 {
		t.Errorf("got %v, %v, %v, want nothing", disks, saved, err)
	}
	if got, want := len(loopsBelow(t, p.home)), 1+3; got != want { // the pool and the ready ones
		t.Errorf("got %d loop devices, want %d", got, want)
	}
	if left, _ := os.ReadDir(p.dir + "/tmp"); len(left) > 0 {
		t.Errorf("tmp holds %v", left)
	}
}

func TestRemoveIsIdempotent(t *testing.T) {
	p := openPool(t, Config{})
	create(t, p, "one", testSize)
	for range 2 {
		if err := errors.Join(p.Unmount(t.Context(), "one"), p.Remove(t.Context(), "one"), p.Drop(t.Context(), "none")); err != nil {
			t.Error(err)
		}
	}
	_, err := p.Mount(t.Context(), "one")
	wantKind(t, err, engine.KindNotFound)
	_, err = p.Save(t.Context(), "one", "s")
	wantKind(t, err, engine.KindNotFound)
	_, err = p.Clone(t.Context(), "two", "none", 0)
	wantKind(t, err, engine.KindNotFound)
	_, _, err = p.Usage(t.Context(), "one")
	wantKind(t, err, engine.KindNotFound)
	wantKind(t, p.Grow(t.Context(), "one", testSize), engine.KindNotFound)
	wantKind(t, p.Remove(t.Context(), "../one"), engine.KindInvalid)
	_, err = p.Create(t.Context(), "small", mib)
	wantKind(t, err, engine.KindInvalid)
}

func TestPoolInHomeWithReflinks(t *testing.T) {
	for _, fs := range []string{"xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			home := mountNew(t, fs, 2*gib)
			p := openPool(t, Config{Home: home, Ready: map[int64]int{testSize: 1}})
			want := Capabilities{Reflink: true, HardLimit: true, Kind: fs, Detail: p.caps.Detail}
			if diff := cmp.Diff(want, p.Capabilities()); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
			forkWorks(t, p)
		})
	}
}

func TestPoolWithoutReflinks(t *testing.T) {
	path := os.Getenv("PATH")
	t.Setenv("PATH", withoutTool(t, "mkfs.xfs"))
	p := openPool(t, Config{Ready: map[int64]int{testSize: 1}})
	want := Capabilities{HardLimit: true, Kind: "copy", Detail: p.caps.Detail}
	if diff := cmp.Diff(want, p.Capabilities()); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
	forkWorks(t, p)
	if err := p.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path) // a later Open must not hide the disks below a new pool
	p = openPool(t, Config{Home: p.home})
	if _, err := p.Mount(t.Context(), "source"); err != nil {
		t.Error(err)
	}
}

// forkWorks saves a disk in use, clones it and compares.
func forkWorks(t *testing.T, p *Pool) {
	t.Helper()
	write(t, create(t, p, "source", testSize).Dir+"/upper/f", "content")
	if _, err := p.Save(t.Context(), "source", "cut"); err != nil {
		t.Fatal(err)
	}
	d, err := p.Clone(t.Context(), "fork", "cut", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, d.Dir+"/upper/f"); got != "content" {
		t.Errorf("got %q, want content", got)
	}
}

// mountNew formats and mounts a new file system and returns its directory.
func mountNew(t *testing.T, fs string, size int64) string {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(t.TempDir(), "host.img")
	write(t, image, "")
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	args := map[string][]string{"ext4": {"-q", "-F", "-b", "4096"}, "xfs": {"-q", "-f", "-s", "size=4096"}, "btrfs": {"-q", "-f"}}[fs]
	if err := runTool(t.Context(), fs, []int{0}, "mkfs."+fs, append(args, image)...); err != nil {
		t.Fatal(err)
	}
	if _, err := mountImage(image, dir, fs, 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmountAll(dir, false); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// withoutTool returns a PATH with all our tools but one.
func withoutTool(t *testing.T, missing string) string {
	t.Helper()
	dir := t.TempDir()
	for _, tool := range []string{"mkfs.xfs", "mkfs.ext4", "e2fsck", "resize2fs"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if tool == missing {
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
