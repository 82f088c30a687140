package storage

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

func TestDiskIsAHardLimit(t *testing.T) {
	const base = 1_000_000
	p := openPool(t, Config{})
	lowers := image(t)
	target := root(t, p, create(t, p, "greedy", testSize), lowers, base)
	neighbour := create(t, p, "neighbour", testSize)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- writeUntil(stop, neighbour.Dir+"/upper/f") }()

	got := inside(t, target, base, `dd if=/dev/zero of=fill bs=1M 2>&1 | grep -o 'No space left on device'; df -B1 --output=size,avail . | tail -1`)
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("the neighbour could not write: %v", err)
	}
	verdict, df, _ := strings.Cut(got, "\n")
	if verdict != "No space left on device" {
		t.Errorf("got %q, want ENOSPC", verdict)
	}
	used, total, err := p.Usage(t.Context(), "greedy")
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.FormatInt(total, 10) + " " + strconv.FormatInt(total-used, 10); strings.Join(strings.Fields(df), " ") != want {
		t.Errorf("df inside shows %q, want %q", df, want)
	}
	if used < total*99/100 || total < testSize*9/10 || total > testSize {
		t.Errorf("got %d of %d bytes used, want all of about %d", used, total, testSize)
	}
	inside(t, target, base, `rm fill; echo fits > f`)
}

func writeUntil(stop chan struct{}, path string) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := errors.Join(os.WriteFile(path, make([]byte, mib), 0o644), syncPath(path)); err != nil {
			return err
		}
	}
}

func TestDeletedFilesGiveSpaceBack(t *testing.T) {
	p := openPool(t, Config{})
	d := create(t, p, "one", testSize)
	fillFile(t, d.Dir+"/upper/f", 128*mib)
	full, _, err := space(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(d.Dir+"/upper/f"), syncPath(d.Dir)); err != nil {
		t.Fatal(err)
	}
	// ext4 discards with its next commit, and XFS frees a moment later.
	for range 1000 {
		free, _, err := space(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		if free >= full+100*mib {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the pool has not got the space of a deleted file of 128 MiB back")
}

func TestFullPoolTakesNoNewDisks(t *testing.T) {
	p := openPool(t, Config{Size: gib, Ready: map[int64]int{testSize: 1}})
	waitReady(t, p)
	d := create(t, p, "early", testSize)
	free, total, err := space(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(p.dir, "ballast")
	allocate(t, ballast, free-lowWater(total)+mib)
	_, err = p.Create(t.Context(), "late", testSize)
	wantKind(t, err, engine.KindExhausted)
	_, err = p.Save(t.Context(), "early", "cut")
	wantKind(t, err, engine.KindExhausted)
	if hint := engine.AsError(err).Hint; !strings.Contains(hint, "delete") {
		t.Errorf("the hint %q names no fix", hint)
	}
	fillFile(t, d.Dir+"/upper/f", 64*mib) // what exists goes on
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	create(t, p, "late", testSize)
}

// A sparse pool on a full disk fails the writes that need a new block, also
// those of journals, whose disks are then read-only until they are mounted
// anew. No file that had reached the disk may change.
func TestFullHostDiskCorruptsNothing(t *testing.T) {
	host := mountNew(t, "ext4", 3*gib/2)
	p := openPool(t, Config{Home: host, Size: 4 * gib})
	quiet, greedy := create(t, p, "quiet", 512*mib), create(t, p, "greedy", 512*mib)
	fillFile(t, quiet.Dir+"/upper/f", 32*mib)
	before := read(t, quiet.Dir+"/upper/f")
	free, _, err := space(host)
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(host, "ballast")
	allocate(t, ballast, free-64*mib)

	_, err = p.Create(t.Context(), "late", testSize)
	wantKind(t, err, engine.KindExhausted)
	if err := tryFill(greedy.Dir+"/upper/f", 256*mib); err == nil {
		t.Error("256 MiB went to a host disk with 64 MiB free")
	} else {
		t.Logf("greedy: %v", err)
	}
	t.Logf("neighbour: %v", tryFill(quiet.Dir+"/upper/small", mib))

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	p = openPool(t, Config{Home: host})
	for _, id := range []string{"quiet", "greedy"} {
		d, err := p.Mount(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := tryFill(d.Dir+"/upper/new", mib); err != nil {
			t.Errorf("%s after the host has room again: %v", id, err)
		}
		if err := p.Unmount(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := awaitDetached(t.Context(), p.image(id)); err != nil {
			t.Fatal(err)
		}
		if err := runTool(t.Context(), "e2fsprogs", []int{0}, "e2fsck", "-f", "-n", p.image(id)); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := p.Mount(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, p.mnt("quiet")+"/upper/f") != before {
		t.Error("the neighbour's file has changed")
	}
}

func TestPoolGrows(t *testing.T) {
	p := openPool(t, Config{Size: gib})
	create(t, p, "one", testSize)
	_, before, err := space(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = openPool(t, Config{Home: p.home, Size: 3 * gib})
	_, after, err := space(p.dir)
	if err != nil || after < before+2*gib*9/10 {
		t.Errorf("got a pool of %d bytes, %d before (%v), want 2 GiB more", after, before, err)
	}
}

func allocate(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		t.Fatal(err)
	}
}

func fillFile(t *testing.T, path string, size int) {
	t.Helper()
	if err := tryFill(path, size); err != nil {
		t.Fatal(err)
	}
}

// tryFill writes random bytes that have reached the disk when it returns nil.
func tryFill(path string, size int) error {
	chunk := make([]byte, mib)
	rand.Read(chunk)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Repeat(chunk, size/mib))
	return errors.Join(err, f.Sync(), f.Close())
}
