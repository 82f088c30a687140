package activity

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree names the files of one watched file system as the sandbox sees them.
type tree struct {
	dir     string   // on the host: what the sandbox has at "at"
	kept    *os.File // instead of dir, where no path of the host leads
	at      string
	overlay bool // dir is the upper directory of an overlay

	paths     map[handle]string    // of directories; "" is outside of dir
	whiteouts map[handle]bool      // what an overlay puts where something was removed
	told      map[handle]time.Time // files that were told as opened
}

// remembered is how many entries each of a tree's maps may have.
const remembered = 1 << 12

func newTree(dir, at string) tree {
	return tree{dir: dir, at: at, paths: map[handle]string{}, whiteouts: map[handle]bool{}, told: map[handle]time.Time{}}
}

// trees lists what Watch has to watch.
func trees(root, upper string) ([]tree, error) {
	main := newTree(root, "/")
	if upper != "" {
		main = newTree(upper, "/")
		main.overlay = true
	}
	if err := main.check(); err != nil {
		return nil, err
	}
	all := []tree{main}
	mounts, err := memoryMounts(root)
	if gonePath(err) != nil {
		return nil, err
	}
	for _, m := range mounts {
		f, err := openIn(root, m.point)
		if err != nil || !m.is(f) {
			if f != nil {
				_ = f.Close()
			}
			continue // covered by another mount
		}
		t := newTree("", m.point)
		t.kept = f
		all = append(all, t)
	}
	return all, nil
}

// check refuses what is no directory, and the file system that the host itself
// lives on: whatever happens there would be looked at.
func (t *tree) check() error {
	f, err := t.open()
	if err != nil {
		return err
	}
	defer f.Close()
	var st, host unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &st), unix.Stat("/", &host)); err != nil {
		return err
	}
	if st.Dev == host.Dev {
		return fmt.Errorf("%s lies on the file system of the host", t.dir)
	}
	return nil
}

// open gives a descriptor of the file system for as long as a look takes.
func (t *tree) open() (*os.File, error) {
	if t.kept != nil {
		fd, err := unix.FcntlInt(t.kept.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), t.at), nil
	}
	fd, err := unix.Open(t.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: t.dir, Err: err}
	}
	return os.NewFile(uintptr(fd), t.dir), nil
}

func (t *tree) path() string {
	if t.kept != nil {
		return fdPath(t.kept)
	}
	return t.dir
}

func (t *tree) close() error {
	if t.kept == nil {
		return nil
	}
	return t.kept.Close()
}

// below makes of a path of the host one of the sandbox; "" is outside.
func (t *tree) below(prefix, host string) string {
	rest, ok := strings.CutPrefix(host, strings.TrimSuffix(prefix, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return ""
	}
	return path.Join(t.at, rest)
}

// forget drops what a change makes untrue.
func (t *tree) forget(c *change) {
	if c.has(unix.FAN_ONDIR) && c.has(unix.FAN_RENAME) {
		clear(t.paths)
	}
}

// repeats tells whether a file was told as open a moment ago, and remembers it.
func (t *tree) repeats(h handle, now time.Time) bool {
	const often = time.Minute
	if last, ok := t.told[h]; ok && now.Sub(last) < often {
		return true
	}
	keep(t.told, h, now)
	return false
}

// keep adds to a map that must not grow without end.
func keep[V any](m map[handle]V, h handle, v V) {
	if len(m) >= remembered {
		clear(m)
	}
	m[h] = v
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// found is what is known of a file that still exists.
type found struct {
	mode     uint32
	whiteout bool // of an overlay: the mark that something was removed
	copied   bool // of an overlay: it lies in a layer of the image as well
	text     string
}

func (t *tree) inspect(at *os.File, h handle) (found, error) {
	f, err := h.open(at)
	if err != nil {
		return found{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return found{}, err
	}
	o := found{mode: st.Mode & unix.S_IFMT}
	if o.mode == unix.S_IFLNK {
		b := make([]byte, unix.PathMax)
		if n, err := unix.Readlinkat(int(f.Fd()), "", b); err == nil {
			o.text = string(b[:n])
		}
	}
	if t.overlay {
		o.whiteout = o.mode == unix.S_IFCHR && st.Rdev == 0
		_, err := unix.Getxattr(fdPath(f), "trusted.overlay.origin", nil)
		o.copied = err == nil || errors.Is(err, unix.ERANGE)
	}
	return o, nil
}
