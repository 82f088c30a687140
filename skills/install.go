package skills

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Where agents look for skills, below a project or a home directory. Most read
// the first; Claude Code reads the second.
const (
	sharedDir = ".agents/skills"
	claudeDir = ".claude/skills"
)

// record is the file in an installed skill that says what we put there.
const record = ".atoll.json"

// Outcome is what was done to one skill, or would be.
type Outcome struct {
	Skill  string `json:"skill"`
	Path   string `json:"path"`
	Action string `json:"action"` // added, changed, unchanged, removed, absent
}

// The actions.
const (
	Added     = "added"
	Changed   = "changed"
	Unchanged = "unchanged"
	Removed   = "removed"
	Absent    = "absent"
)

// ErrForeign is returned for a directory that we did not write, or whose files
// were changed since.
var ErrForeign = errors.New("was not written by atoll, or was changed since")

// Tree is a directory that skills are installed below.
type Tree struct {
	Root   string // the project's or the user's home directory
	DryRun bool   // change nothing, only say what would be done
	Force  bool   // also replace what is not ours
	Copy   bool   // no symbolic links, as on Windows
}

// Install puts a skill where agents find it. It is whole or not there at any
// moment, and what is not ours stays as it is.
func (t Tree) Install(s Skill) ([]Outcome, error) {
	var all []Outcome
	for _, at := range t.places(s.Name) {
		o, err := t.install(s, at)
		if err != nil {
			return all, err
		}
		all = append(all, o)
	}
	return all, nil
}

// Remove takes a skill out. One that is not there is no error.
func (t Tree) Remove(name string) ([]Outcome, error) {
	var all []Outcome
	for _, at := range slices.Backward(t.places(name)) {
		o := Outcome{Skill: name, Path: at.path, Action: Removed}
		there, err := t.ours(at)
		switch {
		case err != nil:
			return all, err
		case !there:
			o.Action = Absent
		case !t.DryRun:
			if err := os.RemoveAll(at.path); err != nil {
				return all, err
			}
		}
		all = append(all, o)
	}
	return all, nil
}

// place is where a skill goes: a directory, or a link to one.
type place struct{ path, link string }

func (t Tree) places(name string) []place {
	shared := place{path: filepath.Join(t.Root, filepath.FromSlash(sharedDir), name)}
	claude := place{path: filepath.Join(t.Root, filepath.FromSlash(claudeDir), name)}
	if !t.Copy {
		claude.link = filepath.Join("..", "..", filepath.FromSlash(sharedDir), name)
	}
	return []place{shared, claude}
}

func (t Tree) install(s Skill, at place) (Outcome, error) {
	o := Outcome{Skill: s.Name, Path: at.path, Action: Added}
	there, err := t.ours(at)
	if err != nil {
		return o, err
	}
	if there {
		o.Action = Changed
		if at.holds(s) {
			o.Action = Unchanged
		}
	}
	if t.DryRun || o.Action == Unchanged {
		return o, nil
	}
	return o, at.write(s)
}

// ours tells whether something is there that we may replace.
func (t Tree) ours(at place) (bool, error) {
	info, err := os.Lstat(at.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case t.Force:
		return true, nil
	}
	mine := false
	if info.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(at.path)
		mine = err == nil && at.link != "" && to == at.link
	} else if info.IsDir() {
		mine = untouched(at.path)
	}
	if !mine {
		return false, fmt.Errorf("%s %w; move it away, or use --force", at.path, ErrForeign)
	}
	return true, nil
}

// untouched tells whether a directory holds exactly what its record says.
func untouched(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, record))
	var want map[string]string
	if err != nil || json.Unmarshal(text, &want) != nil {
		return false
	}
	got, err := digests(dir)
	if err != nil || len(got) != len(want) {
		return false
	}
	for path, digest := range want {
		if got[path] != digest {
			return false
		}
	}
	return true
}

func digests(dir string) (map[string]string, error) {
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == record {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		got[filepath.ToSlash(rel)] = File{Data: data}.Digest()
		return err
	})
	return got, err
}

// holds tells whether the place has this version of the skill.
func (at place) holds(s Skill) bool {
	if at.link != "" {
		to, err := os.Readlink(at.path)
		return err == nil && to == at.link
	}
	got, err := digests(at.path)
	if err != nil || len(got) != len(s.Files) {
		return false
	}
	for _, f := range s.Files {
		if got[f.Path] != f.Digest() {
			return false
		}
	}
	return true
}

// write makes the new directory or link beside its place and then moves it in.
func (at place) write(s Skill) error {
	parent := filepath.Dir(at.path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, ".atoll-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, "new")
	if at.link != "" {
		err = os.Symlink(at.link, fresh)
	} else {
		err = s.write(fresh)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(at.path, filepath.Join(dir, "old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(fresh, at.path)
}

// write writes the skill's files and their record below dir.
func (s Skill) write(dir string) error {
	written := map[string]string{}
	for _, f := range s.Files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
		written[f.Path] = f.Digest()
	}
	text, err := json.MarshalIndent(written, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, record), append(text, '\n'), 0o644)
}
