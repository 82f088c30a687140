package libexec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
)

func programs(toolboxText string) fs.FS {
	return fstest.MapFS{
		toolbox: {Data: []byte(toolboxText)},
		shim:    {Data: []byte("shim")},
	}
}

func TestExtractIsIdempotentAndKeepsOldVersions(t *testing.T) {
	dir := t.TempDir()
	one, err := extract(programs("one"), dir)
	if err != nil {
		t.Fatal(err)
	}
	before := stat(t, one.Toolbox)
	again, err := extract(programs("one"), dir)
	if err != nil || again != one {
		t.Fatalf("second extract: got %+v, %v, want %+v", again, err, one)
	}
	if after := stat(t, one.Toolbox); !os.SameFile(before, after) {
		t.Error("second extract replaced the file")
	}
	two, err := extract(programs("two, longer"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if two.Toolbox == one.Toolbox || two.ShimDir != one.ShimDir {
		t.Errorf("new version: got %+v beside %+v", two, one)
	}
	if got, err := os.ReadFile(one.Toolbox); err != nil || string(got) != "one" {
		t.Errorf("old version: got %q, %v", got, err)
	}
}

func TestExtractMakesExecutables(t *testing.T) {
	p, err := extract(programs("x"), filepath.Join(t.TempDir(), "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{p.Toolbox, filepath.Join(p.ShimDir, shim)} {
		if got := stat(t, path).Mode().Perm(); got != 0o755 {
			t.Errorf("%s: got mode %v, want 0755", filepath.Base(path), got)
		}
	}
}

func TestExtractReplacesATruncatedFile(t *testing.T) {
	dir := t.TempDir()
	p, err := extract(programs("whole"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p.Toolbox, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := extract(programs("whole"), dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(p.Toolbox); string(got) != "whole" {
		t.Errorf("got %q, want the whole file", got)
	}
}

func TestExtractAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := extract(programs("x"), dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	left, err := filepath.Glob(filepath.Join(dir, "*", ".new-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files: got %v, %v, want none", left, err)
	}
}

func TestExtractWithoutPrograms(t *testing.T) {
	_, err := extract(fstest.MapFS{}, t.TempDir())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want not exist", err)
	}
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st
}
