package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/atoll-sh/atoll/engine"
)

// cgroup2 is version 2: one tree for all, mounted at root.
type cgroup2 struct{ root string }

func (cgroup2) version() int { return 2 }

func (c cgroup2) dir(path string) string { return filepath.Join(c.root, path) }

func (c cgroup2) dirs(path string) []string { return []string{c.dir(path)} }

func (c cgroup2) watched(path string) string { return c.dir(path) }

// swapAccounted asks any child of the root, because the root has no limits.
func (c cgroup2) swapAccounted() bool {
	found, _ := filepath.Glob(filepath.Join(c.root, "*/memory.swap.max"))
	return len(found) > 0
}

func (cgroup2) mounts() []specs.Mount {
	return []specs.Mount{{
		Destination: cgroupRoot, Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
	}}
}

func (c cgroup2) exists(path string) bool {
	_, err := os.Stat(c.dir(path))
	return err == nil
}

func (c cgroup2) setFrozen(ctx context.Context, path string, frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	dir := c.dir(path)
	if err := writeFile(dir, "cgroup.freeze", value); err != nil {
		return fmt.Errorf("set freezer of %s: %w", path, err)
	}
	return awaitFreezer(ctx, path, func() (bool, error) {
		state, err := readKey(dir, "cgroup.events", "frozen")
		return (state == 1) == frozen, err
	}, func() {
		if frozen {
			_ = writeFile(dir, "cgroup.freeze", "0")
		}
	})
}

func (c cgroup2) frozen(path string) bool {
	v, err := readFile(c.dir(path), "cgroup.freeze")
	return err == nil && v == "1"
}

func (c cgroup2) setLimits(path string, r engine.Resources) error {
	dir := c.dir(path)
	if r.MemoryMiB > 0 {
		if err := c.setMemory(path, r.MemoryMiB<<20); err != nil {
			return err
		}
	}
	if r.CPU > 0 {
		if err := writeFile(dir, "cpu.max", fmt.Sprintf("%d %d", int64(r.CPU*cpuPeriod), cpuPeriod)); err != nil {
			return fmt.Errorf("set cpu quota of %s: %w", path, err)
		}
		if err := writeFile(dir, "cpu.weight", strconv.FormatUint(cpuWeight(r.CPU), 10)); err != nil {
			return fmt.Errorf("set cpu weight of %s: %w", path, err)
		}
	}
	if r.PIDs > 0 {
		if err := writeFile(dir, "pids.max", strconv.FormatInt(r.PIDs, 10)); err != nil {
			return fmt.Errorf("set process limit of %s: %w", path, err)
		}
	}
	return nil
}

// setMemory refuses to go below what is in use: version 2 would take the value
// and kill for it.
func (c cgroup2) setMemory(path string, limit int64) error {
	u, err := c.memory(path)
	if err != nil {
		return err
	}
	if u > uint64(limit) {
		return errTooSmall(limit, u)
	}
	if err := writeFile(c.dir(path), "memory.max", strconv.FormatInt(limit, 10)); err != nil {
		return fmt.Errorf("set memory limit of %s: %w", path, err)
	}
	return nil // memory.swap.max stays 0 from the start
}

// cpuWeight maps shares, 1024 per core, to the range of version 2 as the
// runtimes do.
func cpuWeight(cpu float64) uint64 { return 1 + (cpuShares(cpu)-2)*9999/262142 }

func (c cgroup2) memory(path string) (uint64, error) {
	dir := c.dir(path)
	n, err := readNumber(dir, "memory.current")
	if err != nil {
		return 0, fmt.Errorf("read memory use of %s: %w", path, err)
	}
	if cache, err := readKey(dir, "memory.stat", "inactive_file"); err == nil {
		n -= min(n, cache)
	}
	return n, nil
}

func (c cgroup2) usage(path string) (usage, error) {
	var u usage
	var err error
	dir := c.dir(path)
	if u.oomKills, err = readKey(dir, "memory.events", "oom_kill"); err != nil {
		return u, fmt.Errorf("read memory kills of %s: %w", path, err)
	}
	if u.memory, err = c.memory(path); err != nil {
		return u, err
	}
	u.cache, _ = readKey(dir, "memory.stat", "file")
	micros, err := readKey(dir, "cpu.stat", "usage_usec")
	if err != nil {
		return u, fmt.Errorf("read cpu use of %s: %w", path, err)
	}
	u.cpuNanos = micros * 1000
	if u.pids, err = readNumber(dir, "pids.current"); err != nil {
		return u, fmt.Errorf("read process count of %s: %w", path, err)
	}
	return u, nil
}

func (c cgroup2) procs(path string) ([]int, error) { return readPIDs(c.dir(path)) }
