package storage

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// image makes two layers, top first, as an image store keeps them.
func image(t *testing.T) []string {
	t.Helper()
	top, bottom := filepath.Join(t.TempDir(), "2", "fs"), filepath.Join(t.TempDir(), "1", "fs")
	for _, dir := range []string{top, bottom + "/lib/deep"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, top+"/hello", "top")
	write(t, bottom+"/hello", "bottom")
	write(t, bottom+"/gone", "bottom")
	write(t, bottom+"/lib/deep/code", "code\n")
	return []string{top, bottom}
}

// root mounts a root on the disk and unmounts it when the test ends.
func root(t *testing.T, p *Pool, d Disk, lowers []string, base uint32) string {
	t.Helper()
	target := filepath.Join(p.home, "roots", d.ID)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err := MountRoot(t.Context(), Root{ID: d.ID, Target: target, Lowers: lowers, Disk: d, UIDBase: base})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mount root: %v", time.Since(start))
	unmountLater(t, target)
	return target
}

func unmountLater(t *testing.T, target string) {
	t.Cleanup(func() {
		if err := UnmountRoot(noCancel(t), target); err != nil {
			t.Error(err)
		}
	})
}

// inside runs a shell script in a user namespace as the sandbox's root, in dir.
func inside(t *testing.T, dir string, base uint32, script string) string {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(base), Size: idCount}}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-euc", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}

func TestRootMapsIDs(t *testing.T) {
	p := openPool(t, Config{})
	lowers := image(t)
	const baseA, baseB, baseFork = 1_000_000, 2_000_000, 3_000_000

	for id, base := range map[string]uint32{"a": baseA, "b": baseB} {
		d := create(t, p, id, testSize)
		target := root(t, p, d, lowers, base)
		got := inside(t, target, base, `
			stat -c %u:%g . hello lib/deep/code
			echo new > new; echo more >> hello; touch user; chown 1000:1000 user; stat -c %u:%g new hello user
			printf '#!/bin/sh\necho runs\n' > script; chmod 755 script; ./script; cat hello
			rm gone; mv lib/deep lib/renamed; cat lib/renamed/code; ls`)
		want := "0:0\n0:0\n0:0\n0:0\n0:0\n1000:1000\nruns\ntopmore\ncode\nhello\nlib\nnew\nscript\nuser"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("inside %s (-want +got):\n%s", id, diff)
		}
		upper := d.Dir + "/upper/"
		ids := []uint32{owner(t, upper+"new"), owner(t, upper+"hello"), owner(t, upper+"user"), owner(t, target+"/user"), owner(t, target+"/lib")}
		if diff := cmp.Diff([]uint32{0, 0, 1000, base + 1000, base}, ids); diff != "" {
			t.Errorf("owners of %s (-want +got):\n%s", id, diff)
		}
	}

	if _, err := p.Save(t.Context(), "a", "cut"); err != nil {
		t.Fatal(err)
	}
	inside(t, filepath.Join(p.home, "roots", "a"), baseA, `echo later > new`)
	d, err := p.Clone(t.Context(), "fork", "cut", 0)
	if err != nil {
		t.Fatal(err)
	}
	target := root(t, p, d, lowers, baseFork)
	got := inside(t, target, baseFork, `cat new lib/renamed/code; stat -c %u user; ls; echo fork > new; mkdir lib/d; rm -r lib`)
	if want := "new\ncode\n1000\nhello\nlib\nnew\nscript\nuser"; got != want {
		t.Errorf("inside the fork: got %q, want %q", got, want)
	}
	if got := read(t, filepath.Join(p.home, "roots", "a", "new")); got != "later\n" {
		t.Errorf("the source sees %q of its fork", got)
	}
}

func TestRootSurvivesStopAndStart(t *testing.T) {
	p := openPool(t, Config{})
	lowers := image(t)
	for i, base := range []uint32{1_000_000, 2_000_000} { // a restart may get another slot
		d, err := p.Create(t.Context(), "one", testSize)
		if err != nil {
			t.Fatal(err)
		}
		target := root(t, p, d, lowers, base)
		inside(t, target, base, `echo line >> log`)
		if got, want := strings.Count(read(t, target+"/log"), "line"), i+1; got != want {
			t.Errorf("got %d lines, want %d", got, want)
		}
		if err := UnmountRoot(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		if err := p.Unmount(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiskStaysConsistentUnderALingeringRoot(t *testing.T) {
	p := openPool(t, Config{})
	target := root(t, p, create(t, p, "one", testSize), image(t), 1_000_000)
	inside(t, target, 1_000_000, "echo > open")
	user, err := os.Open(target + "/open")
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := UnmountRoot(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if err := p.Unmount(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, p.Grow(t.Context(), "one", 2*testSize), engine.KindConflict)
	before := len(loopsBelow(t, p.home))
	d, err := p.Mount(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if after := len(loopsBelow(t, p.home)); after != before {
		t.Errorf("got %d loop devices, want %d: one image is attached twice", after, before)
	}
	if _, err := os.Stat(d.Dir + "/upper/open"); err != nil {
		t.Error(err)
	}
	if err := p.Unmount(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	user.Close()
	if err := p.Grow(t.Context(), "one", 2*testSize); err != nil {
		t.Error(err)
	}
}

func TestRootOfManyLayers(t *testing.T) {
	const many = 150
	p := openPool(t, Config{})
	base := t.TempDir()
	var lowers []string
	for i := range many {
		dir := filepath.Join(base, strings.Repeat("x", 40), fmt.Sprint(i), "fs")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, fmt.Sprint("f", i)), "")
		lowers = append(lowers, dir)
	}
	for name, mount := range map[string]func(*layers, string, string) error{
		"descriptors": mountLayers, "attached": mountAttached,
	} {
		d := create(t, p, name, testSize)
		users, err := d.users.open(1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		defer users.Close()
		target := filepath.Join(p.home, name)
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Fatal(err)
		}
		unmountLater(t, target)
		l, err := openLayers(Root{Lowers: lowers, Disk: d}, users)
		defer l.close()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := asOwner(1_000_000, func() error { return mount(l, d.ID, target) }); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %v", name, time.Since(start))
		if got := inside(t, target, 1_000_000, `ls | wc -l; stat -c %u f0`); got != "150\n0" {
			t.Errorf("%s: got %q, want 150 files of root", name, got)
		}
		if _, err := os.Stat(attachedDir(target)); !os.IsNotExist(err) {
			t.Errorf("%s: temporary mounts are left: %v", name, err)
		}
	}
}

func TestLayersOnSeveralFileSystems(t *testing.T) {
	p := openPool(t, Config{})
	lowers := append(image(t), mountNew(t, "ext4", testSize))
	write(t, lowers[2]+"/other", "x")
	target := root(t, p, create(t, p, "one", testSize), lowers, 1_000_000)
	if got := inside(t, target, 1_000_000, `stat -c %u hello other`); got != "0\n0" {
		t.Errorf("got %q, want files of root", got)
	}
}

func TestMountRootTwice(t *testing.T) {
	p := openPool(t, Config{})
	d, lowers := create(t, p, "one", testSize), image(t)
	root(t, p, d, lowers, 1_000_000)
	target := root(t, p, d, lowers, 1_000_000)
	for range 2 {
		if err := UnmountRoot(t.Context(), target); err != nil {
			t.Error(err)
		}
	}
	if mounted, err := isMounted(target); mounted || err != nil {
		t.Errorf("got %v, %v, want an unmounted target", mounted, err)
	}
}

func TestMountRootSpeed(t *testing.T) {
	const base = 1_000_000
	p := openPool(t, Config{Ready: map[int64]int{testSize: 8}})
	waitReady(t, p)
	start := time.Now()
	if err := p.Warm(base); err != nil {
		t.Fatal(err)
	}
	t.Logf("user namespace: %v", time.Since(start))
	lowers := image(t)
	for i := range 8 {
		root(t, p, create(t, p, fmt.Sprint("d", i), testSize), lowers, base)
	}
}
