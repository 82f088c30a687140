// Package files is the sandbox's file system as seen through the API: thirteen
// operations that stream, leave nothing half-made and report plain errors. It
// runs inside the sandbox, so the kernel's own path resolution is the boundary.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// FS is the file system. What it creates belongs to the default user.
type FS struct {
	space *process.Space
}

// New returns an FS.
func New(s *process.Space) *FS { return &FS{space: s} }

// path checks and resolves a path that a caller gave in the named field.
func (f *FS) path(field, p string) (string, error) {
	if p == "" {
		return "", wire.BadRequest("%s: it is missing; give the path of a file or directory", field)
	}
	if strings.IndexByte(p, 0) >= 0 {
		return "", wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: it holds a NUL byte; remove it", field)
	}
	return f.space.Resolve(p), nil
}

// fail translates an error of the kernel. shown is the path as the caller knows it.
func fail(err error, shown string) error {
	var known *wire.Error
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return wire.Errorf(http.StatusNotFound, wire.CodeFileNotFound, "%s: file or directory not found", shown)
	case errors.Is(err, fs.ErrPermission):
		return wire.Errorf(http.StatusForbidden, wire.CodeFileDenied, "%s: permission denied", shown)
	case errors.As(err, &errno):
		return failErrno(errno, shown)
	}
	return fmt.Errorf("%s: %w", shown, err)
}

func failErrno(errno syscall.Errno, shown string) error {
	switch errno {
	case unix.ENOSPC, unix.EDQUOT:
		return wire.Errorf(http.StatusInsufficientStorage, wire.CodeDiskFull, "%s: the sandbox's disk is full; delete files or resize the disk", shown)
	case unix.EROFS:
		return wire.Errorf(http.StatusForbidden, wire.CodeFileDenied, "%s: the file system is read-only", shown)
	case unix.ENOTDIR:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: a part of the path is not a directory", shown)
	case unix.EISDIR:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: it is a directory", shown)
	case unix.ENAMETOOLONG:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%.100s...: the name is too long", shown)
	case unix.ELOOP:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: too many symbolic links", shown)
	case unix.EEXIST:
		return wire.Errorf(http.StatusConflict, wire.CodeConflict, "%s: it exists already", shown)
	case unix.EBUSY:
		return wire.Errorf(http.StatusConflict, wire.CodeConflict, "%s: it is in use as a mount point", shown)
	}
	return wire.Errorf(http.StatusBadRequest, wire.CodeBadRequest, "%s: %s", shown, errno.Error())
}

// own gives path to the default user.
func (f *FS) own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u := f.space.User()
	return os.Lchown(path, int(u.UID), int(u.GID))
}

// mkdirAll makes a directory and its missing parents, all owned by the user.
// A parent that is a symbolic link is followed.
func (f *FS) mkdirAll(dir string, mode fs.FileMode) error {
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := f.mkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, mode); err != nil {
		if info, serr := os.Stat(dir); serr == nil && info.IsDir() { // somebody else made it
			return nil
		}
		return err
	}
	if err := os.Chmod(dir, mode); err != nil { // Mkdir minds the umask
		return err
	}
	return f.own(dir)
}

// parseMode reads an octal mode as 755, 0755 or 0o755.
func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		return 0, wire.BadRequest("mode: %q is not an octal mode; use for example 644 or 0755", s)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, m := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= m
		}
	}
	return mode, nil
}

// Info describes what path names; a symbolic link is followed if it leads
// somewhere.
func (f *FS) Info(path string) (wire.FileInfo, error) {
	p, err := f.path("path", path)
	if err != nil {
		return wire.FileInfo{}, err
	}
	info, err := os.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Lstat(p)
	}
	if err != nil {
		return wire.FileInfo{}, fail(err, path)
	}
	return f.describe(p, info), nil
}

func (f *FS) describe(path string, info fs.FileInfo) wire.FileInfo {
	w := wire.FileInfo{
		Name: info.Name(), Path: path, IsDir: info.IsDir(), Size: info.Size(),
		Mode: info.Mode().String(), Permissions: fmt.Sprintf("%04o", permissions(info.Mode())),
		ModTime: info.ModTime().UTC().String(), ModifiedAt: info.ModTime().UTC(),
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		w.Owner, w.Group = f.space.Users.Names(st.Uid, st.Gid)
	}
	return w
}

func permissions(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	for bit, f := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&f != 0 {
			n |= bit
		}
	}
	return n
}

// maxList bounds an answer that lists files.
const maxList = 100_000

// List describes the entries of a directory and, to the given depth, of those
// below it. An empty path is the work directory.
func (f *FS) List(path string, depth int) ([]wire.FileInfo, error) {
	if path == "" {
		path = "."
	}
	p, err := f.path("path", path)
	if err != nil {
		return nil, err
	}
	if depth < 1 {
		return nil, wire.BadRequest("depth: %d is not possible; use 1 or more", depth)
	}
	list := []wire.FileInfo{}
	if err := f.list(p, depth, &list); err != nil {
		return nil, fail(err, path)
	}
	return list, nil
}

func (f *FS) list(dir string, depth int, to *[]wire.FileInfo) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it went away meanwhile
		}
		p := filepath.Join(dir, e.Name())
		w := f.describe(p, info)
		if info.Mode()&fs.ModeSymlink != 0 {
			if t, err := os.Stat(p); err == nil {
				w.IsDir = t.IsDir()
			}
		}
		if len(*to) >= maxList {
			return wire.BadRequest("path: there are more than %d files; list a directory further down or use a smaller depth", maxList)
		}
		*to = append(*to, w)
		if e.IsDir() && depth > 1 {
			if err := f.list(p, depth-1, to); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Mkdir makes a directory with its parents. One that exists is fine.
func (f *FS) Mkdir(path, mode string) error {
	p, err := f.path("path", path)
	if err != nil {
		return err
	}
	if mode == "" {
		mode = "0755"
	}
	m, err := parseMode(mode)
	if err != nil {
		return err
	}
	return fail(f.mkdirAll(p, m), path)
}

// Delete removes a file, or a directory with all in it when recursive is set.
// A symbolic link is removed, not followed.
func (f *FS) Delete(path string, recursive bool) error {
	p, err := f.path("path", path)
	if err != nil {
		return err
	}
	if p == "/" {
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "path: the root directory cannot be deleted")
	}
	info, err := os.Lstat(p)
	if err != nil {
		return fail(err, path)
	}
	if info.IsDir() {
		if !recursive {
			return wire.Errorf(http.StatusBadRequest, wire.CodeBadRequest, "%s: it is a directory; set recursive to delete it with all in it", path)
		}
		return fail(os.RemoveAll(p), path)
	}
	return fail(os.Remove(p), path)
}

// SetPermissions changes owner, group and mode; empty ones stay.
func (f *FS) SetPermissions(path, owner, group, mode string) error {
	p, err := f.path("path", path)
	if err != nil {
		return err
	}
	uid, gid := -1, -1
	if owner != "" {
		u, err := f.space.Users.Lookup(owner)
		if err != nil {
			return err
		}
		uid = int(u.UID)
	}
	if group != "" {
		g, err := f.space.Users.GroupID(group)
		if err != nil {
			return err
		}
		gid = int(g)
	}
	var m fs.FileMode
	if mode != "" {
		if m, err = parseMode(mode); err != nil {
			return err
		}
	}
	if _, err := os.Stat(p); err != nil {
		return fail(err, path)
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(p, uid, gid); err != nil {
			return fail(err, path)
		}
	}
	if mode != "" { // after the owner, since a change of owner clears setuid
		return fail(os.Chmod(p, m), path)
	}
	return nil
}
