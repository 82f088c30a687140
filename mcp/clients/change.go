package clients

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Change is what is to be done to one file.
type Change struct {
	Agent  Agent
	Path   string // as the agent names it; symbolic links are followed when writing
	Before []byte
	After  []byte // nil: the file goes away
	Exists bool
	scope  Scope
}

// Plan reads the agent's file and works out the change that adds s, or with
// remove takes the server of its name out. It writes nothing.
func Plan(a Agent, e Env, scope Scope, s Server, remove bool) (Change, error) {
	path, err := a.Path(e, scope)
	if err != nil {
		return Change{}, err
	}
	c := Change{Agent: a, Path: path, scope: scope}
	c.Before, err = os.ReadFile(path)
	switch {
	case err == nil:
		c.Exists = true
	case !errors.Is(err, fs.ErrNotExist):
		return c, fmt.Errorf("read the configuration of %s: %w", a.Title, err)
	}
	if remove {
		c.After, err = a.Remove(c.Before, s.Name)
	} else {
		c.After, err = a.Add(c.Before, s)
	}
	if err != nil {
		return c, fmt.Errorf("%s was not changed: %w", path, err)
	}
	return c, nil
}

// Nothing tells whether the file is as wanted already.
func (c Change) Nothing() bool {
	return bytes.Equal(c.Before, c.After) && (c.Exists || len(c.After) == 0)
}

// Apply writes the file in one step and returns the path of the backup, "" when
// there was no file. It refuses when the file has changed since Plan.
func (c Change) Apply(now time.Time) (backup string, err error) {
	if c.Nothing() {
		return "", nil
	}
	path, err := follow(c.Path)
	if err != nil {
		return "", err
	}
	dirMode, fileMode := fs.FileMode(0o755), fs.FileMode(0o644)
	if c.scope == User {
		dirMode, fileMode = 0o700, 0o600
	}
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return "", fmt.Errorf("make the directory of %s: %w", c.Path, err)
	}
	unlock, err := lock(path)
	if err != nil {
		return "", err
	}
	defer unlock()

	info, err := os.Stat(path)
	if err == nil {
		fileMode = info.Mode().Perm()
	}
	now2, err := os.ReadFile(path)
	if (err == nil) != c.Exists || !bytes.Equal(now2, c.Before) {
		return "", fmt.Errorf("%s has changed meanwhile; run the command again", c.Path)
	}
	if c.Exists {
		backup = path + ".bak-" + now.UTC().Format("20060102-150405")
		if err := write(backup, c.Before, fileMode, info); err != nil {
			return "", fmt.Errorf("back up %s: %w", c.Path, err)
		}
	}
	if len(c.After) == 0 && path == c.Path {
		return backup, os.Remove(path)
	}
	after := c.After
	if len(after) == 0 {
		after = []byte("{}\n") // a link should not dangle
	}
	if err := write(path, after, fileMode, info); err != nil {
		return backup, fmt.Errorf("write %s: %w", c.Path, err)
	}
	return backup, nil
}

// follow resolves symbolic links, also one whose target does not exist yet.
func follow(path string) (string, error) {
	for range 32 {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// write replaces a file in one step: readers see the old content or the new.
func write(path string, content []byte, mode fs.FileMode, like fs.FileInfo) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".atoll-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	keepOwner(f, like)
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// stale is when a lock is taken for that of a process that died.
const stale = 30 * time.Second

// lock keeps other runs of this program from changing the same file.
func lock(path string) (unlock func(), err error) {
	name := path + ".atoll-lock"
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			f.Close()
			return func() { os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > stale {
			os.Remove(name)
			continue
		}
		if time.Since(began) > 10*time.Second {
			return nil, fmt.Errorf("%s is being changed by another process; if none runs, delete %s", path, name)
		}
	}
}

// Diff shows the change as a unified diff, "" when there is none.
func (c Change) Diff() string {
	if c.Nothing() {
		return ""
	}
	old, neu := splitLines(c.Before), splitLines(c.After)
	head := 0
	for head < len(old) && head < len(neu) && old[head] == neu[head] {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(neu)-head && old[len(old)-1-tail] == neu[len(neu)-1-tail] {
		tail++
	}
	const around = 3
	from := max(0, head-around)
	after := min(around, tail)
	var b strings.Builder
	from2 := func(n int) int {
		if n == 0 {
			return 0
		}
		return from + 1
	}
	n1, n2 := len(old)-tail+after-from, len(neu)-tail+after-from
	fmt.Fprintf(&b, "--- %s\n+++ %s\n@@ -%d,%d +%d,%d @@\n", c.Path, c.Path, from2(n1), n1, from2(n2), n2)
	put := func(mark string, lines []string) {
		for _, l := range lines {
			b.WriteString(mark + l)
			if !strings.HasSuffix(l, "\n") {
				b.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	put(" ", old[from:head])
	put("-", old[head:len(old)-tail])
	put("+", neu[head:len(neu)-tail])
	put(" ", old[len(old)-tail:len(old)-tail+after])
	return b.String()
}

func splitLines(b []byte) []string {
	lines := strings.SplitAfter(string(b), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
