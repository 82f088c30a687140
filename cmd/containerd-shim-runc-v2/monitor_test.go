package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]call{
		"/usr/sbin/runc --root /r/ns --log /b/log.json --log-format json start a-1":         {"start", "/r/ns", "a-1"},
		"runc --root /r/ns --systemd-cgroup start a-1":                                      {"start", "/r/ns", "a-1"},
		"runc --root /r/ns --log /b/log.json create --bundle /b --pid-file /b/init.pid a-1": {"create", "/r/ns", "a-1"},
		"runc --root /r/ns start --anything a-1":                                            {},
		"crun --root /r/ns start a-1":                                                       {},
		"runc start":                                                                        {},
		"runc --root":                                                                       {},
		"":                                                                                  {},
	} {
		if got := parse(strings.Fields(line)); got != want {
			t.Errorf("parse(%q) = %+v, want %+v", line, got, want)
		}
	}
}

// created makes what runc leaves of a created container below a new root and
// runs a process in the place of process 1, which starts with script.
func created(t *testing.T, script string) (root string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "root")
	for _, d := range []string{"root/a-1", "bundles/a-1"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "a-1", "exec.fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = filepath.Join(root, "a-1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	t.Chdir(filepath.Join(dir, "bundles/a-1"))
	if err := os.WriteFile("init.pid", []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestRelease(t *testing.T) {
	for name, script := range map[string]string{
		"waits":      "printf 0 >exec.fifo",
		"comes late": "sleep 0.05; printf 0 >exec.fifo",
	} {
		root := created(t, script)
		if err := release(root, "a-1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(root, "a-1", "exec.fifo")); err == nil {
			t.Errorf("%s: the pipe is left, so the container counts as created still", name)
		}
		if err := release(root, "a-1"); err == nil {
			t.Errorf("%s: got a second start, want an error", name)
		}
	}
}

func TestReleaseDead(t *testing.T) {
	root := created(t, "exit 1")
	if err := release(root, "a-1"); err == nil {
		t.Error("got a start of a dead container, want an error")
	}
	for _, id := range []string{"", "..", "../a-1", "a-2"} {
		if err := release(root, id); err == nil {
			t.Errorf("release(%q): got nil, want an error", id)
		}
	}
}

// recorder notes which commands are really run.
type recorder struct {
	ran    []string
	status map[string]int // by command; 7 when nil
}

func (r *recorder) Start(c *exec.Cmd) (chan runc.Exit, error) { return r.StartLocked(c) }

func (r *recorder) StartLocked(c *exec.Cmd) (chan runc.Exit, error) {
	r.ran = append(r.ran, parse(c.Args).command)
	c.Process = &os.Process{}
	return make(chan runc.Exit), nil
}

func (r *recorder) Wait(c *exec.Cmd, _ chan runc.Exit) (int, error) {
	if r.status != nil {
		return r.status[parse(c.Args).command], nil
	}
	return 7, nil
}

func TestMonitor(t *testing.T) {
	root := created(t, "printf 0 >exec.fifo")
	inside := &recorder{}
	m := newMonitor(inside)
	run := func(args ...string) int {
		c := exec.Command("runc", append([]string{"--root", root}, args...)...)
		done, err := m.StartLocked(c)
		if err != nil {
			t.Fatal(err)
		}
		status, err := m.Wait(c, done)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	if got := run("start", "a-1"); got != 0 || len(inside.ran) != 0 {
		t.Errorf("got status %d after running %q, want 0 and no process", got, inside.ran)
	}
	if got := run("start", "a-1"); got != 7 || len(inside.ran) != 1 {
		t.Errorf("a second start: got status %d after running %q, want the runtime's answer", got, inside.ran)
	}
}

// TestMonitorAtOnce starts a container with its creation.
func TestMonitorAtOnce(t *testing.T) {
	for _, spec := range []string{`{"annotations":{"atoll.start-at-once":""}}`, `{"annotations":{}}`, `{`} {
		root := created(t, "printf 0 >exec.fifo")
		if err := os.WriteFile("config.json", []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		m := newMonitor(&recorder{status: map[string]int{"create": 0, "start": 7}})
		run := func(args ...string) int {
			c := exec.Command("runc", append([]string{"--root", root}, args...)...)
			done, err := m.StartLocked(c)
			if err != nil {
				t.Fatal(err)
			}
			status, err := m.Wait(c, done)
			if err != nil {
				t.Fatal(err)
			}
			return status
		}
		if got := run("create", "--bundle", ".", "a-1"); got != 0 {
			t.Errorf("%s: create gave %d, want 0", spec, got)
		}
		if got, want := len(m.released), strings.Count(spec, "at-once"); got != want {
			t.Errorf("%s: got %d started at once, want %d", spec, got, want)
		}
		if got := run("start", "a-1"); got != 0 {
			t.Errorf("%s: start gave %d, want 0", spec, got)
		}
		if got := run("start", "a-1"); got != 7 {
			t.Errorf("%s: a second start gave %d, want the runtime's answer", spec, got)
		}
	}
}

// TestListener: the shim waits where the specification says, and a container of
// which it did not get the listener counts as not created.
func TestListener(t *testing.T) {
	dir := t.TempDir()
	bundle, path := filepath.Join(dir, "bundles/a-1"), filepath.Join(dir, "l.sock")
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(bundle)
	spec := `{"annotations":{"` + atOnce + `":""},"linux":{"seccomp":{"listenerPath":"` + path + `","listenerMetadata":"` + dir + `/s"}}}`
	if err := os.WriteFile("config.json", []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	c, m := call{"create", filepath.Join(dir, "root"), "a-1"}, newMonitor(nil)
	for _, ok := range []bool{false, true} {
		if err := m.expect(c); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(`{"fds":["seccompFd"],"state":{"id":"a-1"}}`)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if err := m.arrive(c, ok); (err != nil) != ok {
			t.Errorf("runc has created it: %v; got %v", ok, err)
		}
		if m.released[call{"start", c.root, c.id}] != nil {
			t.Error("it was started")
		}
	}
	if err := os.WriteFile("config.json", []byte(`{"linux":{"seccomp":{"listenerPath":"/nowhere/l"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.expect(c); err == nil {
		t.Error("got a container whose listener nobody waits for")
	}
}
