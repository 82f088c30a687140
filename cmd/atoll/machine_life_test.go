package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noPool keeps the warm pool out of tests that count what is on the host.
var noPool = []string{"--pool-size", "0"}

func TestMachineLife(t *testing.T) {
	m := sharedMachine(t)
	before := m.footprint().counts()

	if code, out := m.cli("create", "--name", "t1"); code != 0 || !strings.Contains(out, "t1") {
		t.Fatalf("create: exit %d: %s", code, out)
	}
	if code, out := m.cli("exec", "t1", "--", "python3", "-c", "print(6*7)"); code != 0 || strings.TrimSpace(out) != "42" {
		t.Errorf("exec: exit %d, output %q; want 0 and 42", code, out)
	}
	if code, _ := m.cli("exec", "t1", "--", "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exit code %d did not pass through; want 7", code)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := m.cli("cp", filepath.Join(dir, "in"), "t1:/home/daytona/in"); code != 0 {
		t.Errorf("cp in: %s", out)
	}
	if code, out := m.cli("stop", "t1"); code != 0 {
		t.Fatalf("stop: %s", out)
	}
	if f := m.footprint(); len(f.Cgroups)+len(f.Shims) != 0 {
		t.Errorf("a stopped sandbox holds %+v", f)
	}
	if code, out := m.cli("start", "t1"); code != 0 {
		t.Fatalf("start: %s", out)
	}
	if code, out := m.cli("cp", "t1:/home/daytona/in", filepath.Join(dir, "out")); code != 0 {
		t.Errorf("cp out: %s", out)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "out")); string(b) != "hello\n" {
		t.Errorf("file came back as %q after stop and start", b)
	}
	if code, out := m.cli("delete", "t1"); code != 0 {
		t.Errorf("delete: %s", out)
	}
	eventually(t, "host after delete", time.Minute, before, func() map[string]int { return m.footprint().counts() })
}

func TestMachineImageAndUsers(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(nil)
	for line, want := range map[string]string{
		"id -un":                                 "atoll",
		"pwd":                                    "/home/daytona",
		"sudo id -u":                             "0",
		"id -u atoll":                            "1000",
		"node -e 'console.log(6*7)'":             "42",
		"npm --version >/dev/null && echo ok":    "ok",
		"python3 -m venv /tmp/v && echo ok":      "ok",
		"pip --version >/dev/null && echo ok":    "ok",
		"git --version >/dev/null && echo ok":    "ok",
		"gcc --version >/dev/null && echo ok":    "ok",
		"curl --version >/dev/null && echo ok":   "ok",
		"grep NoNewPrivs /proc/self/status":      "NoNewPrivs:\t1",
		"cat /proc/1/comm":                       "toolbox",
		"stat -c %u /etc/passwd":                 "0",
		"touch /etc/x 2>/dev/null || echo no":    "no",
		"sudo touch /etc/x && stat -c %u /etc/x": "0",
	} {
		if code, out := m.sh(sb.ID, line); code != 0 || strings.TrimSpace(out) != want {
			t.Errorf("%s: exit %d, output %q; want %q", line, code, out, want)
		}
	}
}

func TestMachineWarmClaimBindsLate(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "--pool-size", "1")
	eventually(t, "pool", time.Minute, true, func() bool {
		_, b, _ := m.call("GET", "/metrics", nil)
		_, rest, ok := strings.Cut(string(b), "\natoll_pool_ready{")
		line, _, _ := strings.Cut(rest, "\n")
		return ok && strings.HasSuffix(line, "} 1")
	})
	sb := m.create(map[string]any{"name": "late", "env": map[string]string{"A": "b c"}, "labels": map[string]string{"k": "v"}})
	if !sb.Warm {
		t.Errorf("a create with name, env and labels did not claim the warm member: %+v", sb)
	}
	if _, out := m.sh(sb.ID, `echo "$A $(hostname)"`); strings.TrimSpace(out) != "b c late" {
		t.Errorf("got %q; want the late-bound env and host name", out)
	}
}

func TestMachineRestartAdopts(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"name": "keep"})
	m.sh(sb.ID, "echo $$ > /tmp/pid; echo 0 > /tmp/tick; (while :; do date +%s%N >/tmp/tick.new; mv /tmp/tick.new /tmp/tick; sleep 0.1; done) >/dev/null 2>&1 &")
	for _, end := range []func(){m.stop, m.kill} {
		end()
		m.start()
		if code, out := m.sh("keep", "a=$(cat /tmp/tick); for i in $(seq 500); do sleep 0.1; test $a != $(cat /tmp/tick) && exec cat /tmp/pid; done; exit 1"); code != 0 {
			t.Errorf("the sandbox did not run on: exit %d %q", code, out)
		}
	}
}

func TestMachineSnapshotAndFork(t *testing.T) {
	m := sharedMachine(t)
	a := m.create(map[string]any{"name": "a"})
	m.sh(a.ID, "echo one > /home/daytona/f")
	m.must("POST", "/api/sandbox/a/snapshot", map[string]any{"name": "snap"}, nil)
	m.sh(a.ID, "echo two > /home/daytona/f")
	var fork apiSandbox
	m.must("POST", "/api/sandbox/a/fork", map[string]any{"name": "b"}, &fork)
	c := m.create(map[string]any{"name": "c", "snapshot": "snap"})
	m.sh(a.ID, "echo three > /home/daytona/f")
	for id, want := range map[string]string{a.ID: "three", fork.ID: "two", c.ID: "one"} {
		if _, out := m.sh(id, "cat /home/daytona/f; touch /home/daytona/mine && stat -c %U /home/daytona/f"); strings.TrimSpace(out) != want+"\natoll" {
			t.Errorf("sandbox %s has %q; want %s", id, out, want)
		}
	}
}

func TestMachineToolboxLoss(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"name": "frail"})
	m.sh(sb.ID, "echo kept > /home/daytona/f")
	killToolbox(t, m)
	eventually(t, "state", time.Minute, "error", func() string {
		var s apiSandbox
		m.must("GET", "/api/sandbox/frail", nil, &s)
		if s.State == "error" && s.ErrorReason == "" {
			t.Errorf("no reason is given: %+v", s)
		}
		return s.State
	})
	if code, out := m.cli("start", "frail"); code != 0 {
		t.Fatalf("start after loss: %s", out)
	}
	if _, out := m.sh("frail", "cat /home/daytona/f"); strings.TrimSpace(out) != "kept" {
		t.Errorf("file after recovery: %q", out)
	}
}

func TestMachineSideBySide(t *testing.T) {
	a, b := sharedMachine(t), newMachine(t, noPool...)
	sa, sb := a.create(map[string]any{"name": "same"}), b.create(map[string]any{"name": "same"})
	for _, x := range []struct {
		m  *machine
		id string
	}{{a, sa.ID}, {b, sb.ID}} {
		if _, out := x.m.sh(x.id, "echo ok"); strings.TrimSpace(out) != "ok" {
			t.Errorf("exec: %q", out)
		}
	}
	_, addr := a.sh(sa.ID, "hostname -I")
	if code, _ := b.sh(sb.ID, "ping -c1 -W1 "+strings.Fields(addr)[0]); code == 0 {
		t.Errorf("a sandbox reaches a sandbox of another server at %s", addr)
	}
}

// killToolbox kills the toolbox of m's only sandbox.
func killToolbox(t tester, m *machine) {
	t.Helper()
	for _, pid := range cgroupPIDs(m) {
		b, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		if strings.HasPrefix(string(b), "/.atoll/toolbox") {
			killPID(t, pid)
			return
		}
	}
	t.Fatal("no toolbox process found")
}
