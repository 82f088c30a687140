package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy reads and writes the control groups of instances directly, which
// takes microseconds and works while containerd is down. A path is the one
// written in the specification, as "/atoll-s1/a-0123".
type hierarchy interface {
	version() int
	swapAccounted() bool
	// mounts are those through which a sandbox sees its own limits.
	mounts() []specs.Mount
	exists(path string) bool
	setFrozen(ctx context.Context, path string, frozen bool) error
	frozen(path string) bool
	setLimits(path string, r engine.Resources) error
	usage(path string) (usage, error)
	procs(path string) ([]int, error)
	// watched is the one of dirs whose id stands for the control group.
	watched(path string) string
	// dirs are the directories that make up the control group.
	dirs(path string) []string
}

// usage is what a control group has used so far.
type usage struct {
	cpuNanos uint64
	memory   uint64 // bytes, without file pages that the kernel can drop
	cache    uint64 // bytes of file pages
	pids     uint64
	oomKills uint64
}

// detectHierarchy chooses by what is mounted. A hybrid set-up, with controllers
// in version 1 and an empty version 2 tree, counts as version 1.
func detectHierarchy() hierarchy {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroup2{root: cgroupRoot}
	}
	return cgroup1{}
}

// removeCgroup kills what is left in the control group and removes it. It is
// nil when there is none.
func removeCgroup(ctx context.Context, h hierarchy, path string) error {
	if err := killCgroup(ctx, h, path); err != nil {
		return err
	}
	var faults []error
	for _, dir := range h.dirs(path) {
		if err := removeTree(dir); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// killCgroup kills until no process is left, thawing first because the signal
// does not reach a frozen process.
func killCgroup(ctx context.Context, h hierarchy, path string) error {
	for h.exists(path) {
		pids, err := h.procs(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(pids) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list processes of %s: %w", path, err)
		}
		if h.frozen(path) {
			if err := h.setFrozen(ctx, path, false); err != nil {
				return err
			}
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have gone already
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("kill processes of %s: %w", path, err)
		}
	}
	return nil
}

// removeTree removes a control group directory and those below it. The kernel
// refuses for a moment after the last process died.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range 200 {
		err = unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove control group %s: %w", dir, err)
	}
	return nil
}

// awaitFreezer looks until the freezer of a control group has come to the
// state that was asked for. When ctx ends before, it is given back.
func awaitFreezer(ctx context.Context, path string, reached func() (bool, error), giveBack func()) error {
	for {
		ok, err := reached()
		if err != nil {
			return fmt.Errorf("use the freezer of %s: %w", path, err)
		}
		if ok {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			giveBack()
			return fmt.Errorf("freeze %s: %w", path, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeFile writes one value to an existing control file. O_CREATE would hide
// a control group that has gone.
func writeFile(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func readFile(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b)), err
}

func readNumber(dir, name string) (uint64, error) {
	s, err := readFile(dir, name)
	if err != nil {
		return 0, err
	}
	if s == "max" {
		return 1<<63 - 1, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// readKey returns the number behind a key in a "key value" file, 0 when it is
// not listed.
func readKey(dir, name, key string) (uint64, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if k, v, ok := strings.Cut(sc.Text(), " "); ok && k == key {
			return strconv.ParseUint(v, 10, 64)
		}
	}
	return 0, sc.Err()
}

func readPIDs(dir string) ([]int, error) {
	s, err := readFile(dir, "cgroup.procs")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, line := range strings.Fields(s) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// errTooSmall says that a memory limit cannot be lowered below what is in use.
func errTooSmall(limit int64, used uint64) error {
	return engine.Errorf(engine.KindConflict, "memory cannot be lowered to %d MiB: %d MiB are in use", limit>>20, (used+1<<20-1)>>20).
		WithHint("end some processes, or stop the sandbox before making it smaller")
}
