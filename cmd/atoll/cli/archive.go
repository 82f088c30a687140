package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// pack writes a directory as a tar archive. Symbolic links stay links; what is
// neither file, directory nor link is left out.
func pack(dir string, w io.Writer) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		return packOne(t, name, filepath.ToSlash(rel), d)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func packOne(t *tar.Writer, name, rel string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(name); err != nil {
			return err
		}
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = rel
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows meanwhile is cut at the size in its header.
	_, err = io.CopyN(t, f, h.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}

// unpack writes an archive that a sandbox made below dir. The sandbox is not
// trusted: os.Root keeps every name below dir, also through links that the
// archive made before; links that point out of dir, devices and set-id bits
// are left out and told of.
func unpack(r io.Reader, dir string, notes io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return localError(dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return localError(dir, err)
	}
	defer root.Close()
	t := tar.NewReader(r)
	modes := map[string]fs.FileMode{} // of directories, set last
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := unpackOne(root, t, h, modes, notes); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
	}
	for name, mode := range modes {
		_ = root.Chmod(name, mode)
	}
	_, err = io.Copy(io.Discard, r) // padding after the end
	return err
}

func unpackOne(root *os.Root, r io.Reader, h *tar.Header, modes map[string]fs.FileMode, notes io.Writer) error {
	name := path.Clean(h.Name)
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		fmt.Fprintf(notes, "left out %q: it points out of the directory\n", h.Name)
		return nil
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm //nolint:gosec // masked
	switch h.Typeflag {
	case tar.TypeDir:
		modes[name] = mode | 0o700
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		return unpackFile(root, r, name, mode)
	case tar.TypeSymlink:
		return unpackLink(root, name, h.Linkname, notes)
	case tar.TypeLink:
		target := path.Clean(h.Linkname)
		_ = root.Remove(name)
		return root.Link(target, name)
	}
	fmt.Fprintf(notes, "left out %q: it is no file, directory or link\n", h.Name)
	return nil
}

func unpackFile(root *os.Root, r io.Reader, name string, mode fs.FileMode) error {
	if err := makeParent(root, name); err != nil {
		return err
	}
	// Remove first: what stands there may be a link or not writable.
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

func unpackLink(root *os.Root, name, target string, notes io.Writer) error {
	inside := !path.IsAbs(target) && filepath.IsLocal(path.Join(path.Dir(name), target))
	if !inside {
		fmt.Fprintf(notes, "left out %q: the link points out of the directory\n", name)
		return nil
	}
	if err := makeParent(root, name); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.Symlink(target, name)
}

func makeParent(root *os.Root, name string) error {
	if dir := path.Dir(name); dir != "." && !strings.HasPrefix(dir, "..") {
		return root.MkdirAll(dir, 0o755)
	}
	return nil
}
