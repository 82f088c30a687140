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

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// Add begins to tell what the processes in a control group and those below it
// do, as sandbox. dir is a directory of the version 2 tree, or of the pids
// controller of version 1. A sandbox may have several. When processes are there
// already, Read tells of a gap: whatever they did before is not known.
func (r *Recorder) Add(dir string, sandbox uint32) error {
	if sandbox == 0 {
		return errors.New("a sandbox cannot have the number 0")
	}
	g, err := kernel.FindGroup(dir)
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
	running, err := processes(g.Dir)
	if err != nil {
		return fmt.Errorf("count the processes of %s: %w", dir, err)
	}
	if running > 0 {
		r.pending = append(r.pending, Event{Kind: KindGap, Time: bootNow(), Sandbox: sandbox, Running: running})
	}
	return nil
}

func (r *Recorder) watchLocked(g kernel.Group, sandbox uint32) error {
	if err := kernel.WatchDepth(r.maps.Depths, g); err != nil {
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
	if err := r.maps.Groups.Put(g.ID, sandbox); err != nil {
		return err
	}
	if !slices.Contains(w.groups, g.ID) {
		w.groups = append(w.groups, g.ID)
	}
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
