package files

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	maxMatches   = 20_000
	maxLine      = 64 << 10 // longer lines are searched, but shown cut
	maxFound     = 16 << 20 // bytes of all shown lines together
	sniff        = 8000     // a NUL byte in these first bytes makes a file binary
	maxReplace   = 64 << 20
	noneToSearch = "pattern: it is empty; give the text to look for"
)

// walk visits everything below root, which may be a file. It skips what cannot
// be read and the kernel's own file systems, unless root lies in one.
func walk(ctx context.Context, root string, fn func(p string, d fs.DirEntry) error) error {
	if _, err := os.Stat(root); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if d != nil && d.IsDir() && p != root {
				return fs.SkipDir
			}
			if p == root {
				return err
			}
			return nil
		}
		if d.IsDir() && p != root && kernels(p) {
			return fs.SkipDir
		}
		return fn(p, d)
	})
}

func kernels(p string) bool { return p == "/proc" || p == "/sys" || p == "/dev" }

// Find returns the lines that hold pattern in the text files below path.
func (f *FS) Find(ctx context.Context, path, pattern string) ([]wire.Match, error) {
	p, err := f.path("path", path)
	if err != nil {
		return nil, err
	}
	if pattern == "" {
		return nil, wire.BadRequest(noneToSearch)
	}
	g := grep{pattern: []byte(pattern), matches: []wire.Match{}}
	err = walk(ctx, p, func(p string, d fs.DirEntry) error {
		if !d.Type().IsRegular() {
			return nil
		}
		return g.file(p)
	})
	if err != nil && !errors.Is(err, fs.SkipAll) {
		return nil, fail(err, path)
	}
	return g.matches, nil
}

// grep collects matches up to its bounds.
type grep struct {
	pattern []byte
	matches []wire.Match
	shown   int
}

func (g *grep) file(p string) error {
	in, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil // unreadable files hold no matches
	}
	defer in.Close()
	r := bufio.NewReaderSize(in, 32<<10)
	if head, _ := r.Peek(sniff); bytes.IndexByte(head, 0) >= 0 {
		return nil
	}
	for n := 1; ; n++ {
		line, err := readLine(r)
		if len(line) > 0 && bytes.Contains(line, g.pattern) {
			if err := g.add(p, n, line); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// readLine returns a line without its end. A very long one is joined up to
// maxReplace bytes; the rest is dropped.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = r.ReadSlice('\n')
			if len(long) < maxReplace {
				long = append(long, line...)
			}
		}
		line = long
	}
	return bytes.TrimRight(line, "\r\n"), err
}

func (g *grep) add(p string, n int, line []byte) error {
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	g.matches = append(g.matches, wire.Match{File: p, Line: n, Content: string(line)})
	g.shown += len(line)
	if len(g.matches) >= maxMatches || g.shown >= maxFound {
		return fs.SkipAll
	}
	return nil
}

// Search returns the paths below path whose base name matches a glob.
func (f *FS) Search(ctx context.Context, root, pattern string) ([]string, error) {
	p, err := f.path("path", root)
	if err != nil {
		return nil, err
	}
	if pattern == "" {
		return nil, wire.BadRequest("pattern: it is empty; give a glob, for example *.py")
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, wire.BadRequest("pattern: %q is not a valid glob; close its brackets", pattern)
	}
	found := []string{}
	err = walk(ctx, p, func(p string, d fs.DirEntry) error {
		if ok, _ := path.Match(pattern, d.Name()); ok {
			found = append(found, p)
		}
		if len(found) >= maxList {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.SkipAll) {
		return nil, fail(err, root)
	}
	return found, nil
}

// Replace replaces a text in files. Each file succeeds or fails by itself.
func (f *FS) Replace(ctx context.Context, q wire.ReplaceRequest) ([]wire.ReplaceResult, error) {
	if q.Pattern == "" {
		return nil, wire.BadRequest(noneToSearch)
	}
	if len(q.Files) == 0 {
		return nil, wire.BadRequest("files: it is empty; name at least one file")
	}
	results := make([]wire.ReplaceResult, 0, len(q.Files))
	for _, name := range q.Files {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r := wire.ReplaceResult{File: name, Success: true}
		if err := f.replaceIn(name, q.Pattern, q.NewValue); err != nil {
			r.Success, r.Error = false, err.Error()
		}
		results = append(results, r)
	}
	return results, nil
}

func (f *FS) replaceIn(name, pattern, value string) error {
	d, err := f.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Size > maxReplace {
		return wire.BadRequest("%s: it is larger than %d MiB; use a command such as sed", name, maxReplace>>20)
	}
	old, err := io.ReadAll(io.LimitReader(d, maxReplace))
	if err != nil {
		return fail(err, name)
	}
	changed := bytes.ReplaceAll(old, []byte(pattern), []byte(value))
	if bytes.Equal(old, changed) {
		return nil
	}
	p, err := f.path("files", name)
	if err != nil {
		return err
	}
	_, err = f.replace(p, bytes.NewReader(changed))
	return fail(err, name)
}
