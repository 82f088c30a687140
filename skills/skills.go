// Package skills holds what agents should know to work with Atoll: Markdown
// files in the Agent Skills format, embedded in the binary, served over MCP and
// installed by `atoll skills install`.
package skills

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed atoll-*
var files embed.FS

// Main is the file that every skill has.
const Main = "SKILL.md"

// Skill is one of them.
type Skill struct {
	Name        string         // also its directory
	Description string         // what it is and when to use it
	Frontmatter map[string]any // as in the file
	Files       []File         // sorted by path; Main is one of them
}

// File is one file of a skill.
type File struct {
	Path string // below the skill's directory, with slashes
	Data []byte
}

// Digest is the file's SHA-256, as sha256:hex.
func (f File) Digest() string {
	sum := sha256.Sum256(f.Data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// All returns the skills, sorted by name. The files are part of the program:
// that one cannot be read is an error of the build, found by the tests.
func All() ([]Skill, error) {
	dirs, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var all []Skill
	for _, d := range dirs {
		s, err := read(d.Name())
		if err != nil {
			return nil, fmt.Errorf("skill %s: %w", d.Name(), err)
		}
		all = append(all, s)
	}
	return all, nil
}

func read(name string) (Skill, error) {
	s := Skill{Name: name}
	err := fs.WalkDir(files, name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(p)
		if err != nil {
			return err
		}
		s.Files = append(s.Files, File{Path: strings.TrimPrefix(p, name+"/"), Data: data})
		if path.Base(p) == Main {
			s.Frontmatter, err = frontmatter(data)
		}
		return err
	})
	s.Description, _ = s.Frontmatter["description"].(string)
	return s, err
}

// frontmatter reads the YAML between the first two lines of dashes.
func frontmatter(data []byte) (map[string]any, error) {
	parts := bytes.SplitN(data, []byte("---\n"), 3)
	if len(parts) != 3 || len(parts[0]) > 0 {
		return nil, fmt.Errorf("%s begins without front matter", Main)
	}
	var m map[string]any
	if err := yaml.Unmarshal(parts[1], &m); err != nil {
		return nil, fmt.Errorf("read front matter: %w", err)
	}
	return m, nil
}
