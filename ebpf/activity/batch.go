package activity

import (
	"errors"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// batch is one look at a file system: changes, and the events that they become.
type batch struct {
	*fileWatch
	most     int    // changes
	buffer   []byte // for reading
	changes  []change
	overflow bool
	lost     uint64
	events   []Event

	root   *os.File
	prefix string            // the path of root
	left   map[handle][]left // directories that these changes moved or removed
	next   int               // the change that is told next
}

// left says where a directory was until a change.
type left struct {
	change int
	at     place
}

func (b *batch) close() {
	if b.root != nil {
		_ = b.root.Close()
	}
}

// read takes what waits, up to the limit, and tells whether anything did.
func (b *batch) read() bool {
	before, overflow := len(b.changes), b.overflow
	for len(b.changes) < b.most {
		n, err := unix.Read(b.group, b.buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		var over bool
		b.changes, over, err = parse(b.buffer[:n], b.changes)
		b.overflow = b.overflow || over || err != nil
	}
	for i, c := range b.changes[before:] {
		if c.has(unix.FAN_ONDIR) && c.has(unix.FAN_DELETE|unix.FAN_RENAME) {
			if b.left == nil {
				b.left = map[handle][]left{}
			}
			b.left[c.target] = append(b.left[c.target], left{before + i, c.at})
		}
	}
	return len(b.changes) > before || b.overflow != overflow
}

// directory is the path of a directory; outside says that the sandbox does not
// see it. ok is false when it is gone and nothing says where it was.
func (b *batch) directory(h handle, depth int) (dir string, outside, ok bool) {
	if p, known := b.tree.paths[h]; known {
		return p, p == "", true
	}
	p, err := b.ask(h)
	if err == nil {
		keep(b.tree.paths, h, p)
		return p, p == "", true
	}
	was, known := b.leaves(h)
	if !known && b.read() { // its removal has been told in the meantime
		was, known = b.leaves(h)
	}
	if !known || depth > 64 {
		return "", false, false
	}
	if dir, outside, ok = b.directory(was.dir, depth+1); !ok || outside {
		return dir, outside, ok
	}
	return path.Join(dir, was.name), false, true
}

// leaves is the place that a directory has now, of which it is known that it
// goes away later.
func (b *batch) leaves(h handle) (place, bool) {
	for _, l := range b.left[h] {
		if l.change >= b.next {
			return l.at, true
		}
	}
	return place{}, false
}

// ask gives the path that a directory has now.
func (b *batch) ask(h handle) (string, error) {
	if b.root == nil {
		root, err := b.tree.open()
		if err != nil {
			return "", err
		}
		b.root = root
		if b.prefix, err = os.Readlink(fdPath(root)); err != nil {
			return "", err
		}
	}
	f, err := h.open(b.root)
	if err != nil {
		return "", err
	}
	defer f.Close()
	p, err := os.Readlink(fdPath(f))
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	if st.Nlink == 0 {
		return "", unix.ESTALE
	}
	return b.tree.below(b.prefix, p), nil
}

// name is the path of a place. cut says that its directory is not known.
func (b *batch) name(p place) (name string, outside, cut bool) {
	dir, outside, ok := b.directory(p.dir, 0)
	if !ok {
		return p.name, false, true
	}
	return path.Join(dir, p.name), outside, false
}

// inspect looks at a file; ok is false when it is gone.
func (b *batch) inspect(h handle) (found, bool) {
	if b.root == nil {
		if _, err := b.ask(h); b.root == nil || err != nil && b.prefix == "" {
			return found{}, false
		}
	}
	o, err := b.tree.inspect(b.root, h)
	if err == nil && o.whiteout {
		keep(b.tree.whiteouts, h, true)
	}
	return o, err == nil
}

// add tells an event. e has what all of a change have in common.
func (b *batch) add(e Event, kind Kind, name, to string, cut bool) {
	e.Kind, e.Path, e.To, e.Cut = kind, name, to, cut
	b.events = append(b.events, e)
}

// tell makes events of a change, in the order that its parts must have had.
func (b *batch) tell(c *change, e Event, counts *fileCounts) {
	if c.has(unix.FAN_RENAME) {
		b.rename(c, e)
		b.tree.forget(c)
		return
	}
	name, outside, cut := b.name(c.at)
	if outside {
		return
	}
	if c.has(unix.FAN_CREATE) {
		b.create(c, e, name, cut)
	} else if c.has(unix.FAN_CLOSE_WRITE) {
		b.open(c, e, name, cut, counts)
	}
	// What an overlay puts in place of a removed file is nothing that a
	// sandbox sees.
	if c.has(unix.FAN_DELETE) && !b.tree.whiteouts[c.target] {
		kind := KindUnlink
		if c.has(unix.FAN_ONDIR) {
			kind = KindRmdir
		}
		b.add(e, kind, name, "", cut)
	}
}

func (b *batch) open(c *change, e Event, name string, cut bool, counts *fileCounts) {
	if b.tree.repeats(c.target, time.Now()) {
		counts.repeated++
		return
	}
	b.add(e, KindOpen, name, "", cut)
}

// create tells of a new name. In an overlay it may be a file of the image that
// is copied, because it is going to be changed.
func (b *batch) create(c *change, e Event, name string, cut bool) {
	o, there := b.inspect(c.target)
	isDir := c.has(unix.FAN_ONDIR)
	copied := there && o.copied && b.tree.told[c.target].IsZero() || !there && b.copied(c)
	switch {
	case there && o.whiteout:
	case there && o.copied && isDir:
	case copied:
		b.tree.repeats(c.target, time.Now())
		b.add(e, KindOpen, name, "", cut)
	case isDir:
		b.add(e, KindMkdir, name, "", cut)
	case there && o.mode == unix.S_IFLNK:
		b.add(e, KindSymlink, o.text, name, cut)
	default:
		b.tree.repeats(c.target, time.Now())
		b.add(e, KindCreate, name, "", cut)
	}
}

// rename tells of a new name for an old file. An overlay also renames where the
// sandbox only makes or removes something: from and to a directory of its own.
func (b *batch) rename(c *change, e Event) {
	from, hidden, cut := b.name(c.at)
	to, outside, cut2 := b.name(c.to)
	switch {
	case outside: // what was there before, and was told with what took its place
	case !hidden:
		b.add(e, KindRename, from, to, cut || cut2)
	case c.has(unix.FAN_ONDIR):
		// For the mark of a removal, a new directory. For nothing, one of the
		// image. For another directory, that one without its marks.
		if p := b.replaced(c); p != nil && !p.has(unix.FAN_ONDIR) {
			b.add(e, KindMkdir, to, "", cut2)
		}
	default:
		o, there := b.inspect(c.target)
		if p := b.replaced(c); p != nil && p.has(unix.FAN_ONDIR) {
			b.add(e, KindRmdir, to, "", cut2)
		} else if there && o.whiteout || b.tree.whiteouts[c.target] {
			b.add(e, KindUnlink, to, "", cut2)
		} else {
			b.create(c, e, to, cut2)
		}
	}
}

// replaced is the other half of an exchange: what went where this came from.
// The kernel tells of it at once.
func (b *batch) replaced(c *change) *change {
	at, pid := c.to, c.pid
	return b.ahead(func(o *change) bool { return o.pid == pid && o.has(unix.FAN_RENAME) && o.at == at })
}

// copied tells whether a file, which is gone, was one of the image: an overlay
// closes what it copied under another name.
func (b *batch) copied(c *change) bool {
	at, target := c.at, c.target
	o := b.ahead(func(o *change) bool { return o.target == target && o.has(unix.FAN_CLOSE_WRITE) && o.at.dir != at.dir })
	if o == nil {
		return false
	}
	_, outside, ok := b.directory(o.at.dir, 0)
	return ok && outside
}

// ahead looks for a change that comes soon. Others may come between.
func (b *batch) ahead(is func(*change) bool) *change {
	const near = 64
	for i := b.next + 1; i < b.next+near; i++ {
		if i >= len(b.changes) && !b.read() {
			return nil
		}
		if i < len(b.changes) && is(&b.changes[i]) {
			return &b.changes[i]
		}
	}
	return nil
}
