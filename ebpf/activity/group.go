package activity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// version1 marks ids of that hierarchy, which are unique only within it.
const version1 = 1 << 63

// maxDepths is at how many depths below the root groups may lie, as in activity.h.
const maxDepths = 4

// group is a control group as the programs know it.
type group struct {
	id    uint64
	depth uint32
	v1    bool
}

// findGroup reads what a directory is. The id of a group is its inode.
func findGroup(dir string) (group, error) {
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err != nil {
		return group{}, fmt.Errorf("look at control group %s: %w", dir, err)
	}
	v1 := fsys.Type == unix.CGROUP_SUPER_MAGIC
	if !v1 && fsys.Type != unix.CGROUP2_SUPER_MAGIC {
		return group{}, fmt.Errorf("%s is not a control group", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "pids.current")); v1 && err != nil {
		return group{}, fmt.Errorf("%s is not a control group of the pids controller: %w", dir, err)
	}
	g := group{v1: v1}
	var st, up unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return group{}, err
	}
	g.id = st.Ino
	for dir = filepath.Clean(dir); ; g.depth++ {
		dir = filepath.Dir(dir)
		if err := unix.Stat(dir, &up); err != nil {
			return group{}, err
		}
		if up.Dev != st.Dev {
			break
		}
		st.Ino = up.Ino
	}
	if st.Ino != 1 || g.depth == 0 {
		return group{}, fmt.Errorf("control group %s is a root, or does not lie below the root of its hierarchy", dir)
	}
	if v1 {
		g.id |= version1
	}
	return g, nil
}

// Add begins to tell what the processes in a control group and those below it
// do, as sandbox. dir is a directory of the version 2 tree, or of the pids
// controller of version 1. A sandbox may have several. When processes are there
// already, Read tells of a gap: whatever they did before is not known.
func (r *Recorder) Add(dir string, sandbox uint32) error {
	if sandbox == 0 {
		return errors.New("a sandbox cannot have the number 0")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	g, err := findGroup(dir)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	if err := r.watchLocked(g, sandbox); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	running, err := processes(dir)
	if err != nil {
		return fmt.Errorf("count the processes of %s: %w", dir, err)
	}
	if running > 0 {
		r.pending = append(r.pending, Event{Kind: KindGap, Time: bootNow(), Sandbox: sandbox, Running: running})
	}
	return nil
}

func (r *Recorder) watchLocked(g group, sandbox uint32) error {
	if err := r.depthLocked(g); err != nil {
		return err
	}
	w := r.watched[sandbox]
	if w == nil {
		if err := r.maps.States.Put(sandbox, bpfState{}); err != nil {
			return err
		}
		w = &watch{}
		r.watched[sandbox] = w
	}
	w.removed = time.Time{}
	if err := r.maps.Groups.Put(g.id, sandbox); err != nil {
		return err
	}
	if !slices.Contains(w.groups, g.id) {
		w.groups = append(w.groups, g.id)
	}
	return nil
}

// depthLocked makes the programs look at this depth.
func (r *Recorder) depthLocked(g group) error {
	name := "depths2"
	if g.v1 {
		name = "depths1"
	}
	known := r.depths[name]
	if slices.Contains(known, g.depth) {
		return nil
	}
	if len(known) == maxDepths {
		return fmt.Errorf("control groups already lie at %d different depths", maxDepths)
	}
	known = append(known, g.depth)
	var all [maxDepths]uint32
	copy(all[:], known)
	if err := r.programs.Variables[name].Set(all); err != nil {
		return err
	}
	r.depths[name] = known
	return nil
}

// Remove ends what Add and Watch began. Events that happened before, and how
// many were lost, are still told. Nothing of the sandbox's disk is held when it
// returns. nil when the sandbox is unknown.
func (r *Recorder) Remove(sandbox uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[sandbox]
	if w == nil || r.closed {
		return nil
	}
	r.pending = append(r.pending, r.lookLocked(sandbox, w)...)
	errs := []error{w.closeFiles()}
	for _, id := range w.groups {
		errs = append(errs, gone(r.maps.Groups.Delete(id)))
	}
	w.groups, w.removed = nil, time.Now()
	return errors.Join(errs...)
}

// processes counts those in a control group and below it.
func processes(dir string) (int, error) {
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || err == nil && !d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		n += strings.Count(string(b), "\n")
		return err
	})
	return n, err
}

// bootNow is the clock of events.
func bootNow() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
