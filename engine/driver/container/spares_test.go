package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitSpare returns the process of the only spare shim of a driver.
func awaitSpare(t *testing.T, d *Driver) int {
	t.Helper()
	for range 12000 {
		entries, _ := os.ReadDir(d.spares.dir)
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && unix.Kill(pid, 0) == nil {
				return pid
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("there is no spare shim")
	return 0
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	for range 12000 {
		if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("process %d is there still", pid)
}

// TestSpare follows a spare shim from its start to the removal of what it got.
func TestSpare(t *testing.T) {
	r, _ := ownDaemon(t)
	spare := awaitSpare(t, r.driver)
	if shims, err := r.driver.shims(); err != nil || len(shims) != 0 {
		t.Errorf("got shims %v (%v), want none: a spare has no instance", shims, err)
	}
	h := r.start(t, nil)
	if got := shimPID(t, r.driver, h); got != spare {
		t.Errorf("got shim %d, want the spare one, %d", got, spare)
	}
	if shims, err := r.driver.shims(); err != nil || !slices.Equal(shims[h.ID], []int{spare}) {
		t.Errorf("got shims %v (%v), want %d for %s", shims, err, spare, h.ID)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", spare))
	if err != nil || strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", os.Getpid())) {
		t.Errorf("the shim is our child (%v), want one that outlives us", err)
	}

	next := awaitSpare(t, r.driver)
	d := r.reopen(t)
	awaitEnd(t, next)
	if _, out := r.exec(t, h, "/bin/echo", "still", "here"); out != "still here" {
		t.Errorf("got %q after the server's end, want an answer", out)
	}
	if err := d.Recover(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, spare)
}

// TestSpareDead starts although the spare shim died, hangs, or left its socket
// behind.
func TestSpareDead(t *testing.T) {
	r, _ := ownDaemon(t)
	for name, harm := range map[string]func(pid int) error{
		"killed": func(pid int) error { return unix.Kill(pid, unix.SIGKILL) },
		"stopped, so that it never answers": func(pid int) error {
			return unix.Kill(pid, unix.SIGSTOP)
		},
	} {
		spare := awaitSpare(t, r.driver)
		if err := harm(spare); err != nil {
			t.Fatal(err)
		}
		h := r.start(t, nil)
		if got := shimPID(t, r.driver, h); got == spare {
			t.Errorf("%s: got the spare shim, want a new one", name)
		}
		awaitEnd(t, spare)
		if _, err := os.Stat(filepath.Join(r.driver.spares.dir, strconv.Itoa(spare))); err == nil {
			t.Errorf("%s: its socket is left", name)
		}
	}
}

// TestSpareMissing starts without any.
func TestSpareMissing(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Shim = filepath.Join(shared.dir, "no-such-program") })
	h := r.start(t, nil)
	if code, _ := r.exec(t, h, "/bin/true"); code != 0 {
		t.Errorf("got exit %d, want 0", code)
	}
}
