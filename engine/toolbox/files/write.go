package files

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// tempPrefix names files that are being written. Clients look for leftovers by
// this name.
const tempPrefix = "daytona-upload"

// A file is large once it has this many bytes; then it is copied in larger
// pieces, since each costs a switch to the sender and back.
const large = 1 << 20

var (
	buffers      = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, large); return &b }}
)

func copyBody(w io.Writer, r io.Reader) (int64, error) {
	n, err := copyWith(&buffers, w, io.LimitReader(r, large))
	if err != nil || n < large {
		return n, err
	}
	m, err := copyWith(&largeBuffers, w, r)
	return n + m, err
}

func copyWith(buffers *sync.Pool, w io.Writer, r io.Reader) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
}

// Upload writes r to path. The file appears whole or not at all: it is written
// under another name beside its target and then renamed. Missing parents are
// made, symbolic links are followed, also ones that lead nowhere yet.
func (f *FS) Upload(path string, r io.Reader) (wire.UploadedFile, int64, error) {
	p, err := f.path("path", path)
	if err != nil {
		return wire.UploadedFile{}, 0, err
	}
	if strings.HasSuffix(path, "/") {
		return wire.UploadedFile{}, 0, wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: it ends with a slash; give the path of the file itself", path)
	}
	n, err := f.replace(p, r)
	if err != nil {
		return wire.UploadedFile{}, 0, fail(err, path)
	}
	return wire.UploadedFile{Name: filepath.Base(p), Path: p, Type: "file"}, n, nil
}

// replace puts the content of r in place of the file at path. An existing file
// keeps its mode and owner.
func (f *FS) replace(path string, r io.Reader) (int64, error) {
	target, err := follow(path)
	if err != nil {
		return 0, err
	}
	old, err := os.Lstat(target)
	switch {
	case err == nil && old.IsDir():
		return 0, &fs.PathError{Op: "write", Path: target, Err: syscall.EISDIR}
	case err == nil && !old.Mode().IsRegular():
		return 0, wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: it is not a regular file", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, err
	case err != nil:
		old = nil
		if err := f.mkdirAll(filepath.Dir(target), 0o755); err != nil {
			return 0, err
		}
	}
	tmp := filepath.Join(filepath.Dir(target), tempPrefix+"-"+strings.ToLower(rand.Text()))
	n, err := f.writeTemp(tmp, old, r)
	if err == nil {
		defer lateFree(target, old)()
		err = os.Rename(tmp, target)
		if errors.Is(err, syscall.EBUSY) { // a file that is itself a mount point
			err = copyInto(target, tmp)
			os.Remove(tmp)
		}
	}
	if err != nil {
		os.Remove(tmp)
		return 0, err
	}
	return n, nil
}

// freeable is the size from which the blocks of a replaced file are worth being
// freed after the answer.
const freeable = 4 << 20

// lateFree keeps the file at path open, if it is large, while another is put in
// its place. The returned function lets go of it, and does not wait until its
// blocks are free.
func lateFree(path string, old fs.FileInfo) func() {
	if old == nil || old.Size() < freeable {
		return func() {}
	}
	held, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return func() {}
	}
	return func() { go held.Close() } // ends by itself
}

func (f *FS) writeTemp(tmp string, old fs.FileInfo, r io.Reader) (n int64, err error) {
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	if n, err = copyBody(out, r); err != nil {
		return n, err
	}
	mode := fs.FileMode(0o644)
	if old != nil {
		mode = old.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	if err := f.ownAs(tmp, old); err != nil {
		return n, err
	}
	return n, out.Chmod(mode)
}

// ownAs gives path to the owner of old, the default user without one.
func (f *FS) ownAs(path string, old fs.FileInfo) error {
	if old == nil {
		return f.own(path)
	}
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// copyInto overwrites target in place.
func copyInto(target, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// follow resolves symbolic links at the end of path, also a last one that leads
// nowhere.
func follow(path string) (string, error) {
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // not a link, or absent
		}
		if !filepath.IsAbs(to) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			to = filepath.Join(dir, to)
		}
		path = filepath.Clean(to)
	}
	return "", syscall.ELOOP
}

// Move renames. It never replaces what exists, and it also moves between file
// systems.
func (f *FS) Move(source, destination string) error {
	from, err := f.path("source", source)
	if err != nil {
		return err
	}
	to, err := f.path("destination", destination)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(from); err != nil {
		return fail(err, source)
	}
	if strings.HasPrefix(to+"/", from+"/") && to != from {
		return wire.BadRequest("destination: %s lies within %s; choose a place outside", destination, source)
	}
	err = rename(from, to)
	switch {
	case errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.ENOTEMPTY):
		return wire.Errorf(http.StatusConflict, wire.CodeConflict, "%s: it exists already; delete it first or choose another name", destination)
	case errors.Is(err, syscall.EXDEV):
		return f.moveAcross(from, to, destination)
	case errors.Is(err, fs.ErrNotExist):
		return wire.Errorf(http.StatusNotFound, wire.CodeFileNotFound, "%s: its directory was not found; create it first", destination)
	}
	return fail(err, source)
}

// rename fails with EEXIST when to exists.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err == nil || (!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS)) {
		return err
	}
	// The file system does not know the flag.
	if _, err := os.Lstat(to); err == nil {
		return syscall.EEXIST
	}
	return os.Rename(from, to)
}

// moveAcross copies to a name beside the destination, renames that and deletes
// the source.
func (f *FS) moveAcross(from, to, shown string) error {
	tmp := filepath.Join(filepath.Dir(to), tempPrefix+"-"+strings.ToLower(rand.Text()))
	err := copyTree(from, tmp)
	if err == nil {
		err = rename(tmp, to)
	}
	if err != nil {
		os.RemoveAll(tmp)
		return fail(err, shown)
	}
	return fail(os.RemoveAll(from), shown)
}

// copyTree copies files, directories and links with owner, mode and times.
func copyTree(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(link, to); err != nil {
			return err
		}
	case info.IsDir():
		if err := copyDir(from, to); err != nil {
			return err
		}
	case info.Mode().IsRegular():
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
		if err := copyInto(to, from); err != nil {
			return err
		}
	default:
		return wire.BadRequest("%s: only files, directories and links can be moved to another file system", from)
	}
	return copyAttributes(info, to)
}

func copyDir(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyAttributes(info fs.FileInfo, to string) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if err := os.Chmod(to, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}
