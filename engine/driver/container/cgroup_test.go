package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

// unifiedRoot is a mounted version 2 tree, which hosts with version 1
// controllers have as well.
func unifiedRoot(t *testing.T) string {
	t.Helper()
	if (detectHierarchy()).version() == 2 {
		return cgroupRoot
	}
	return filepath.Join(cgroupRoot, "unified")
}

// TestFreezeVersion2 freezes a real process through the version 2 files, on
// whatever kind of host this is.
func TestFreezeVersion2(t *testing.T) {
	c := cgroup2{root: unifiedRoot(t)}
	path := "/atoll-" + filepath.Base(shared.dir) + "-v2"
	if err := os.Mkdir(c.dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // it is killed
	if err := writeFile(c.dir(path), "cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false, true} {
		if err := c.setFrozen(t.Context(), path, want); err != nil {
			t.Fatal(err)
		}
		if got := c.frozen(path); got != want {
			t.Errorf("got frozen %v, want %v", got, want)
		}
	}
	if err := removeCgroup(t.Context(), c, path); err != nil {
		t.Fatal(err)
	}
	if c.exists(path) {
		t.Error("the control group is left")
	}
}

// TestLimitsVersion2 checks what is written and read, on plain files.
func TestLimitsVersion2(t *testing.T) {
	c := cgroup2{root: t.TempDir()}
	dir := c.dir("/box")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"memory.max": "", "memory.current": "52428800\n", "memory.stat": "anon 1\ninactive_file 10485760\n",
		"memory.events": "low 0\noom 1\noom_kill 3\n", "cpu.max": "", "cpu.weight": "",
		"cpu.stat": "usage_usec 1500\nuser_usec 1000\n", "pids.max": "", "pids.current": "7\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.usage("/box")
	if err != nil {
		t.Fatal(err)
	}
	want := usage{cpuNanos: 1500000, memory: 40 << 20, pids: 7, oomKills: 3}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := c.setLimits("/box", engine.Resources{MemoryMiB: 30}); engine.KindOf(err) != engine.KindConflict {
		t.Errorf("got %v for a limit below use, want a conflict", err)
	}
	if err := c.setLimits("/box", engine.Resources{CPU: 1.5, MemoryMiB: 64, PIDs: 9}); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range []string{"memory.max", "cpu.max", "cpu.weight", "pids.max"} {
		files[name], _ = readFile(dir, name)
	}
	written := map[string]string{"memory.max": "67108864", "cpu.max": "150000 100000", "cpu.weight": "59", "pids.max": "9"}
	if diff := cmp.Diff(written, files); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}
