package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A server that is killed while containerd starts a task can leave a shim that
// containerd itself has forgotten: the call was cut off between the start of
// the shim and its registration. Such shims are found by their command line.

// shims returns the shim processes of our containerd and namespace by instance.
func (d *Driver) shims() (map[string][]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := map[string][]int{}
	for _, dir := range dirs {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		if id := d.shimOf(line); id != "" {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err == nil {
				found[id] = append(found[id], pid)
			}
		}
	}
	return found, nil
}

// shimOf returns the instance that a command line is the shim of, or "".
func (d *Driver) shimOf(cmdline []byte) string {
	args := strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")
	if filepath.Base(args[0]) != "containerd-shim-runc-v2" {
		return ""
	}
	flag := func(name string) string {
		for i, a := range args[1:] {
			if a == name && i+2 < len(args) {
				return args[i+2]
			}
		}
		return ""
	}
	if flag("-namespace") != d.cfg.Namespace || flag("-address") != d.cfg.Address || !strings.HasPrefix(flag("-id"), "a-") {
		return ""
	}
	return flag("-id")
}

// killStray ends shims of an instance whose task is gone, and whatever they
// had started.
func (d *Driver) killStray(ctx context.Context, id string) error {
	shims, err := d.shims()
	if err != nil || len(shims[id]) == 0 {
		return err
	}
	for _, pid := range shims[id] {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill shim %d: %w", pid, err)
		}
	}
	return removeCgroup(ctx, d.cgroups, d.template.cgroupPath(id))
}
