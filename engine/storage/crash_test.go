package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashHome makes the test binary use the pool in that home until it is killed.
const crashHome = "ATOLL_STORAGE_CRASH_HOME"

// churn makes, forks, mounts, grows and removes disks for ever.
func churn(home string) error {
	ctx := context.Background()
	p, err := Open(ctx, Config{Home: home, Size: 8 * gib, Ready: map[int64]int{testSize: 2}})
	if err != nil {
		return err
	}
	fmt.Println("open")
	errs := make(chan error)
	for worker := range 2 {
		go func() {
			for {
				if err := churnOnce(ctx, p, fmt.Sprint("w", worker)); err != nil {
					errs <- err
				}
			}
		}()
	}
	return <-errs
}

func churnOnce(ctx context.Context, p *Pool, id string) error {
	d, err := p.Create(ctx, id, testSize)
	if err != nil {
		return err
	}
	target := filepath.Join(p.home, "roots", id)
	r := Root{ID: id, Target: target, Lowers: []string{filepath.Join(p.home, "layer")}, Disk: d, UIDBase: 1_000_000}
	steps := []func() error{
		func() error { return MountRoot(ctx, r) },
		func() error { return os.WriteFile(d.Dir+"/upper/f", make([]byte, mib), 0o644) },
		func() error { _, err := p.Save(ctx, id, "cut-"+id); return err },
		func() error { _, err := p.Clone(ctx, "fork-"+id, "cut-"+id, 2*testSize); return err },
		func() error { return UnmountRoot(ctx, target) },
		func() error { return p.Unmount(ctx, id) },
		func() error { return p.Grow(ctx, id, 2*testSize) },
		func() error { return p.Remove(ctx, id) },
		func() error { return p.Remove(ctx, "fork-"+id) },
		func() error { return p.Drop(ctx, "cut-"+id) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestKilledAtAnyPoint(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, "layer"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, "layer", "f"), "")
	for range 15 {
		killDuringChurn(t, home)
		roots, _ := filepath.Glob(filepath.Join(home, "roots", "w?"))
		for _, target := range roots {
			if err := UnmountRoot(t.Context(), target); err != nil {
				t.Fatal(err)
			}
		}
		cleanAll(t, home)
	}
}

// killDuringChurn kills a process somewhere in its work. What it wrote before
// must be no error.
func killDuringChurn(t *testing.T, home string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashHome+"="+home)
	var errors strings.Builder
	opened := &signalWriter{seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = opened, &errors
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	early := rand.IntN(4) == 0 // some die while they open the pool
	if !early {
		select {
		case <-opened.seen:
		case <-time.After(time.Minute):
		}
	}
	time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if errors.Len() > 0 {
		t.Errorf("the process failed by itself: %s", errors.String())
	}
}

type signalWriter struct {
	once sync.Once
	seen chan struct{}
}

func (w *signalWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.seen) })
	return len(b), nil
}

// cleanAll opens the pool, uses every disk there is, and removes everything.
func cleanAll(t *testing.T, home string) {
	t.Helper()
	p := openPool(t, Config{Home: home})
	disks, saved, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("left behind: %v and %v", disks, saved)
	for _, id := range disks {
		d, err := p.Mount(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		write(t, d.Dir+"/upper/after", "no freeze is left")
		if err := p.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range saved {
		if _, err := p.Clone(t.Context(), "check", id, 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Remove(t.Context(), "check"); err != nil {
			t.Fatal(err)
		}
		if err := p.Drop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"tmp", "disks", "saved", "ready"} {
		if left, err := os.ReadDir(filepath.Join(p.dir, sub)); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v (%v)", sub, left, err)
		}
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, home)
}
