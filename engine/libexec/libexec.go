// Package libexec carries the two helper programs that run beside the server:
// the toolbox, which is process 1 of every sandbox, and the containerd shim.
// They are embedded, so that one file is all that has to be installed.
package libexec

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/atoll-sh/atoll/engine"
)

// The names of the programs, as the build puts them into bin.
const (
	toolbox = "atoll-toolbox"
	shim    = "containerd-shim-runc-v2" // containerd derives this name from the runtime's
)

// Fast-built and fresh checkouts have an empty bin; Extract then falls back to
// the files beside the running executable.
//
//go:embed all:bin
var embedded embed.FS

// Paths tells where the programs are on this host.
type Paths struct {
	Toolbox string // the toolbox binary
	ShimDir string // directory holding containerd-shim-runc-v2, for containerd's PATH
}

// Shim is the path of the shim's program.
func (p Paths) Shim() string { return filepath.Join(p.ShimDir, shim) }

// Extract writes the programs below dir and returns their paths. Each version
// has its own directory named after its content, because sandboxes of an older
// server still run from theirs. A second Extract of the same version writes
// nothing. When the binary was built without the programs, the ones beside the
// executable are used where they are.
func Extract(dir string) (Paths, error) {
	programs, err := fs.Sub(embedded, "bin")
	if err != nil {
		return Paths{}, fmt.Errorf("open embedded programs: %w", err)
	}
	p, err := extract(programs, dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if p, ok := beside(); ok {
		return p, nil
	}
	return Paths{}, engine.Errorf(engine.KindUnavailable, "this build of atoll lacks its helper programs").
		WithHint(`run "make build"`).Wrap(err)
}

func extract(programs fs.FS, dir string) (Paths, error) {
	var p Paths
	for _, name := range []string{toolbox, shim} {
		data, err := fs.ReadFile(programs, name)
		if err != nil {
			return Paths{}, err
		}
		path, err := place(dir, name, data)
		if err != nil {
			return Paths{}, err
		}
		if name == toolbox {
			p.Toolbox = path
		} else {
			p.ShimDir = filepath.Dir(path)
		}
	}
	return p, nil
}

// place puts data at dir/<hash>/name. A file of the right size is taken for
// whole, since it only ever appears by rename.
func place(dir, name string, data []byte) (string, error) {
	sum := sha256.Sum256(data)
	path := filepath.Join(dir, hex.EncodeToString(sum[:8]), name)
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Size() == int64(len(data)) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("create directory for %s: %w", name, err)
	}
	if err := write(path, data); err != nil {
		return "", fmt.Errorf("extract %s: %w", name, err)
	}
	return path, nil
}

// write makes the file appear at once and executable by everybody: the toolbox
// runs inside sandboxes under mapped ids that own nothing on the host.
func write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	err = writePieces(f, data)
	err = errors.Join(err, f.Chmod(0o755), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// piece is what the kernel maps around a fault. The page cache holds a file in
// pieces as large as it was written in, up to two megabytes. A process that
// touches a byte of a larger one gets all of it mapped and accounted; of smaller
// ones the kernel has to map many, which shows in each start of a program.
const piece = 64 << 10

func writePieces(w io.Writer, data []byte) error {
	for p := range slices.Chunk(data, piece) {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// beside finds the programs next to the running executable, or in the libexec
// directory next to its bin.
func beside() (Paths, bool) {
	exe, err := os.Executable()
	if err != nil {
		return Paths{}, false
	}
	bin := filepath.Dir(exe)
	for _, dir := range []string{bin, filepath.Join(bin, "..", "libexec", "atoll")} {
		if isFile(filepath.Join(dir, toolbox)) && isFile(filepath.Join(dir, shim)) {
			return Paths{Toolbox: filepath.Join(dir, toolbox), ShimDir: dir}, true
		}
	}
	return Paths{}, false
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
