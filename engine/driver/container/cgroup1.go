package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// cgroup1 is version 1: one tree per controller.
type cgroup1 struct{}

func (cgroup1) version() int { return 1 }

func (cgroup1) dir(controller, path string) string {
	return filepath.Join(cgroupRoot, controller, path)
}

func (cgroup1) dirs(path string) []string {
	mounted, _ := os.ReadDir(cgroupRoot)
	var dirs []string
	for _, m := range mounted {
		if m.IsDir() {
			dirs = append(dirs, filepath.Join(cgroupRoot, m.Name(), path))
		}
	}
	return dirs
}

func (c cgroup1) watched(path string) string { return c.dir("pids", path) }

func (cgroup1) swapAccounted() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory/memory.memsw.limit_in_bytes"))
	return err == nil
}

// mounts is the whole set, read-only: a runtime mounts each controller's tree
// from the sandbox's own control group down.
func (cgroup1) mounts() []specs.Mount {
	return []specs.Mount{{
		Destination: cgroupRoot, Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
	}}
}

func (c cgroup1) exists(path string) bool {
	_, err := os.Stat(c.dir("freezer", path))
	return err == nil
}

func (c cgroup1) setFrozen(ctx context.Context, path string, frozen bool) error {
	want := "THAWED"
	if frozen {
		want = "FROZEN"
	}
	dir := c.dir("freezer", path)
	return awaitFreezer(ctx, path, func() (bool, error) {
		// The kernel gives up freezing when a process forks meanwhile, so the
		// wish is repeated.
		if err := writeFile(dir, "freezer.state", want); err != nil {
			return false, err
		}
		state, err := readFile(dir, "freezer.state")
		return state == want, err
	}, func() {
		if frozen {
			_ = writeFile(dir, "freezer.state", "THAWED")
		}
	})
}

func (c cgroup1) frozen(path string) bool {
	state, err := readFile(c.dir("freezer", path), "freezer.state")
	return err == nil && state != "THAWED"
}

func (c cgroup1) setLimits(path string, r engine.Resources) error {
	if r.MemoryMiB > 0 {
		if err := c.setMemory(path, r.MemoryMiB<<20); err != nil {
			return err
		}
	}
	if r.CPU > 0 {
		cpu := c.dir("cpu", path)
		if err := writeFile(cpu, "cpu.cfs_quota_us", strconv.FormatInt(int64(r.CPU*cpuPeriod), 10)); err != nil {
			return fmt.Errorf("set cpu quota of %s: %w", path, err)
		}
		if err := writeFile(cpu, "cpu.shares", strconv.FormatUint(cpuShares(r.CPU), 10)); err != nil {
			return fmt.Errorf("set cpu shares of %s: %w", path, err)
		}
	}
	if r.PIDs > 0 {
		if err := writeFile(c.dir("pids", path), "pids.max", strconv.FormatInt(r.PIDs, 10)); err != nil {
			return fmt.Errorf("set process limit of %s: %w", path, err)
		}
	}
	return nil
}

// setMemory writes two limits of which the one with swap may never be the
// lower: it goes first when growing and last when shrinking.
func (c cgroup1) setMemory(path string, limit int64) error {
	dir := c.dir("memory", path)
	files := []string{"memory.memsw.limit_in_bytes", "memory.limit_in_bytes"}
	if !c.swapAccounted() {
		files = files[1:]
	}
	now, err := readNumber(dir, "memory.limit_in_bytes")
	if err != nil {
		return fmt.Errorf("read memory limit of %s: %w", path, err)
	}
	if uint64(limit) < now {
		files = reversed(files)
	}
	for i, name := range files {
		err := writeFile(dir, name, strconv.FormatInt(limit, 10))
		if err == nil {
			continue
		}
		if i > 0 { // bring back the first, so that both say the same
			_ = writeFile(dir, files[0], strconv.FormatUint(now, 10))
		}
		if errors.Is(err, unix.EBUSY) {
			used, _ := readNumber(dir, "memory.usage_in_bytes")
			return errTooSmall(limit, used)
		}
		return fmt.Errorf("set memory limit of %s: %w", path, err)
	}
	return nil
}

func reversed(in []string) []string {
	out := make([]string, 0, len(in))
	for i := len(in) - 1; i >= 0; i-- {
		out = append(out, in[i])
	}
	return out
}

func (c cgroup1) usage(path string) (usage, error) {
	var u usage
	var err error
	memory := c.dir("memory", path)
	if u.oomKills, err = readKey(memory, "memory.oom_control", "oom_kill"); err != nil {
		return u, fmt.Errorf("read memory kills of %s: %w", path, err)
	}
	if u.memory, err = readNumber(memory, "memory.usage_in_bytes"); err != nil {
		return u, fmt.Errorf("read memory use of %s: %w", path, err)
	}
	u.cache, _ = readKey(memory, "memory.stat", "total_cache")
	if cache, err := readKey(memory, "memory.stat", "total_inactive_file"); err == nil {
		u.memory -= min(u.memory, cache)
	}
	if u.cpuNanos, err = readNumber(c.dir("cpuacct", path), "cpuacct.usage"); err != nil {
		return u, fmt.Errorf("read cpu use of %s: %w", path, err)
	}
	if u.pids, err = readNumber(c.dir("pids", path), "pids.current"); err != nil {
		return u, fmt.Errorf("read process count of %s: %w", path, err)
	}
	return u, nil
}

func (c cgroup1) procs(path string) ([]int, error) { return readPIDs(c.dir("freezer", path)) }
