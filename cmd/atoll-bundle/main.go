// Command atoll-bundle writes what agents' own stores and package managers take:
// a plugin for Claude Code with a marketplace, an extension for Gemini CLI, an
// .mcpb bundle, and a server.json for the registry of MCP servers. All are made
// from the embedded skills and one description, so that they cannot drift.
package main

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/atoll-sh/atoll/skills"
)

func main() {
	var b bundle
	flag.StringVar(&b.out, "out", "bin/bundles", "directory to write, which is replaced")
	flag.StringVar(&b.binary, "binary", "bin/atoll", "the program to put into the .mcpb bundle")
	flag.StringVar(&b.license, "license", "LICENSE", "the license's text")
	version := flag.String("version", "0.0.0", "version, of which the leading number is used")
	flag.Parse()
	b.version = number(*version)
	if err := b.write(); err != nil {
		fmt.Fprintln(os.Stderr, "atoll-bundle:", err)
		os.Exit(1)
	}
}

// number is the x.y.z that a version begins with; the stores take nothing else.
func number(version string) string {
	if m := regexp.MustCompile(`^v?(\d+\.\d+\.\d+)`).FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return "0.0.0"
}

const (
	name        = "atoll"
	title       = "Atoll"
	registry    = "io.github.atoll-sh/atoll"
	home        = "https://github.com/atoll-sh/atoll"
	description = "Computers for AI agents: isolated Linux sandboxes to run commands, code and servers in."
)

type bundle struct {
	out, binary, license, version string
	files                         map[string][]byte // path below out → content
}

// write makes all bundles or fails.
func (b *bundle) write() error {
	b.files = map[string][]byte{}
	license, err := os.ReadFile(b.license)
	if err != nil {
		return err
	}
	all, err := skills.All()
	if err != nil {
		return err
	}
	for _, dir := range []string{"claude", "gemini"} {
		b.files[dir+"/LICENSE"] = license
		for _, s := range all {
			for _, f := range s.Files {
				b.files[path.Join(dir, "skills", s.Name, f.Path)] = f.Data
			}
		}
	}
	picture, err := icon()
	if err != nil {
		return err
	}
	b.files["claude/.claude-plugin/icon.png"], b.files["mcpb/icon.png"] = picture, picture
	program, err := os.ReadFile(b.binary)
	if err != nil {
		return err
	}
	for file, v := range b.manifests() {
		if b.files[file], err = marshal(v); err != nil {
			return err
		}
	}
	b.files["claude/README.md"] = []byte(readme)
	b.files["gemini/GEMINI.md"] = []byte(context)
	if err := b.save(); err != nil {
		return err
	}
	digest, err := pack(filepath.Join(b.out, "atoll.mcpb"), []entry{
		{"manifest.json", b.files["mcpb/manifest.json"], 0o644},
		{"server/atoll", program, 0o755},
		{"icon.png", picture, 0o644},
		{"LICENSE", license, 0o644},
	})
	if err != nil {
		return err
	}
	text, err := marshal(b.server(digest))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.out, "server.json"), text, 0o644)
}

func (b *bundle) save() error {
	if err := os.RemoveAll(b.out); err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(b.files)) {
		to := filepath.Join(b.out, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, b.files[file], 0o644); err != nil {
			return err
		}
	}
	return nil
}

func marshal(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), err
}

// entry is a file of a bundle that is one archive.
type entry struct {
	name string
	data []byte
	mode os.FileMode
}

// pack writes a zip archive and returns its SHA-256.
func pack(file string, entries []entry) (digest string, err error) {
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	z := zip.NewWriter(io.MultiWriter(f, sum))
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			return "", err
		}
		if _, err := w.Write(e.data); err != nil {
			return "", err
		}
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), f.Close()
}
