package activity

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fileCounts are those of files only, which the programs do not know.
type fileCounts struct {
	told, lost, repeated uint64
	second               time.Time // when used began
	used                 uint64    // bytes
}

// fileWatch is one file system of a sandbox.
type fileWatch struct {
	group int
	tree  tree
}

// Watch begins to tell what happens to the files of a sandbox that was added.
// root is its root directory, as /proc/PID/root or where the host has it
// mounted; with the former the file systems in memory that are mounted now
// below it are watched, too. upper is the upper directory of the overlay that
// root is, on the host; "" when root is no overlay. Changes by processes outside
// of the sandbox's control groups are not told.
//
// Nothing on these file systems is held open between two looks except the
// file systems in memory. Remove the sandbox before its disk is unmounted.
//
// The error wraps ErrNotSupported where the kernel (before 5.17) or the file
// system does not tell of changes; the sandbox is then watched without files.
func (r *Recorder) Watch(sandbox uint32, root, upper string) error {
	trees, err := trees(root, upper)
	if err != nil {
		return fmt.Errorf("watch the files of sandbox %d: %w", sandbox, err)
	}
	var all []*fileWatch
	for _, t := range trees {
		group := -1
		if group, err = NewGroup(t.path()); err != nil {
			break
		}
		all = append(all, &fileWatch{group: group, tree: t})
	}
	if err == nil {
		err = r.adopt(sandbox, all)
	}
	if err != nil {
		for _, f := range all {
			err = errors.Join(err, f.close())
		}
		for _, t := range trees[len(all):] {
			err = errors.Join(err, t.close())
		}
		return fmt.Errorf("watch the files of sandbox %d: %w", sandbox, err)
	}
	return nil
}

// adopt makes file systems a sandbox's. After an error they are still the
// caller's.
func (r *Recorder) adopt(sandbox uint32, all []*fileWatch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[sandbox]
	switch {
	case r.closed:
		return os.ErrClosed
	case w == nil || !w.removed.IsZero():
		return errors.New("it was not added")
	case len(w.files) > 0:
		return errors.New("they are watched already")
	}
	for _, f := range all {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(f.group)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, f.group, &e); err != nil {
			return fmt.Errorf("wait for a fanotify group: %w", err)
		}
	}
	w.files = all
	for _, f := range all {
		r.byGroup[int32(f.group)] = sandbox
	}
	return nil
}

func (f *fileWatch) close() error { return errors.Join(unix.Close(f.group), f.tree.close()) }

func (w *watch) closeFiles() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.close())
	}
	w.files = nil
	return errors.Join(errs...)
}

// lookAll returns what happened to files since it was asked last. It is Read's.
// all is false when something waits for the next time.
func (r *Recorder) lookAll() (events []Event, all bool) {
	all = true
	ready := make([]unix.EpollEvent, 64)
	for seen := map[int32]bool{}; ; {
		n := r.ready(ready)
		fresh := false
		for _, e := range ready[:n] {
			if seen[e.Fd] {
				continue
			}
			seen[e.Fd], fresh = true, true
			more, done := r.lookAt(e.Fd)
			events, all = append(events, more...), all && done
		}
		// The kernel gives the ready ones in turn, so that all come.
		if !fresh || n < len(ready) {
			return events, all
		}
	}
}

// ready says which groups have something to read, and how many.
func (r *Recorder) ready(list []unix.EpollEvent) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	n, err := unix.EpollWait(r.epoll, list, 0)
	if err != nil {
		return 0
	}
	return n
}

// lookAt looks at one group.
func (r *Recorder) lookAt(group int32) (events []Event, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sandbox := r.byGroup[group]
	w := r.watched[sandbox]
	if w == nil {
		return nil, true
	}
	for _, f := range w.files {
		if int32(f.group) == group {
			return r.look(sandbox, w, f, maxChanges)
		}
	}
	return nil, true
}

// lookLocked returns what is left to tell of one sandbox.
func (r *Recorder) lookLocked(sandbox uint32, w *watch) []Event {
	var out []Event
	for _, f := range w.files {
		delete(r.byGroup, int32(f.group))
		events, _ := r.look(sandbox, w, f, 1<<15)
		out = append(out, events...)
	}
	return out
}

// maxChanges is how many changes of one file system are taken at one look, so
// that nobody else waits long.
const maxChanges = 1 << 9

// look reads one group and tells what it says; done when that is all.
func (r *Recorder) look(sandbox uint32, w *watch, f *fileWatch, most int) (events []Event, done bool) {
	b := batch{fileWatch: f, most: most, buffer: r.buffer}
	defer b.close()
	if !b.read() {
		return nil, true
	}
	now := bootNow()
	actors := map[int]actor{}
	for ; b.next < len(b.changes); b.next++ {
		c := b.changes[b.next] // reading more may move them
		a, ok := actors[c.pid]
		if !ok {
			a = r.actor(c.pid, sandbox)
			actors[c.pid] = a
		}
		if !a.known || a.sandbox != sandbox {
			b.tree.forget(&c)
			continue
		}
		if !w.counts.affordable(r.budget) {
			b.tree.forget(&c)
			b.lost++
			continue
		}
		at := now
		if a.end > 0 {
			at = min(at, a.end)
		}
		b.tell(&c, Event{Time: at, Sandbox: sandbox, Process: a.Process}, &w.counts)
	}
	w.counts.told += uint64(len(b.events))
	if b.lost > 0 || b.overflow {
		e := Event{Kind: KindLost, Time: now, Sandbox: sandbox, Lost: b.lost, Unknown: b.overflow}
		if b.overflow {
			e.Lost++
		}
		w.counts.lost += e.Lost
		b.events = append(b.events, e)
	}
	return b.events, len(b.changes) < most
}

// affordable counts one change against the sandbox's budget of a second.
func (c *fileCounts) affordable(budget uint64) bool {
	const cost = 512 // about what one is in memory
	if now := time.Now(); now.Sub(c.second) >= time.Second {
		c.second, c.used = now, 0
	}
	c.used += cost
	return c.used <= budget
}
