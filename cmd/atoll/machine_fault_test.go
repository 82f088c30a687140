package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cgroupPIDs lists the processes of all of m's sandboxes.
func cgroupPIDs(m *machine) []string {
	var pids []string
	for _, cg := range m.footprint().Cgroups {
		b, _ := os.ReadFile(filepath.Join(cg, "cgroup.procs"))
		pids = append(pids, strings.Fields(string(b))...)
	}
	return pids
}

func killPID(t tester, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.Kill(n, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// whole checks that every sandbox the server lists works or can be started,
// and that the host holds exactly what these need.
func whole(t *testing.T, m *machine, story string) {
	t.Helper()
	n := 0
	for _, sb := range m.sandboxes() {
		switch sb.State {
		case "destroyed":
			continue
		case "stopped":
			m.must("POST", "/api/sandbox/"+sb.ID+"/start", nil, nil)
		case "started":
		default:
			t.Errorf("%s: sandbox %s is %s (%s) after restart", story, sb.Name, sb.State, sb.ErrorReason)
			continue
		}
		n++
		if code, out := m.sh(sb.ID, `test -n "$WHO" && echo whole`); code != 0 || strings.TrimSpace(out) != "whole" {
			t.Errorf("%s: sandbox %s is not whole: exit %d %q", story, sb.Name, code, out)
		}
	}
	want := map[string]int{"shims": n, "disks": n, "records": n, "cgroups": n * len(cgroupHierarchies())}
	eventually(t, story+": host", time.Minute, want, func() map[string]int { return m.footprint().counts() })
}

// cgroupHierarchies lists where one sandbox has a cgroup.
func cgroupHierarchies() []string {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if len(dirs) == 0 {
		return []string{"unified"}
	}
	return dirs
}

func TestMachineKillPoints(top *testing.T) {
	m := sharedMachine(top)
	ops := map[string][]string{
		"create": {"disk", "network", "create", "start", "identity"},
		"start":  {"network", "create", "start", "identity"},
		"stop":   {"stopping", "driver-stopped", "unmade"},
		"delete": {"removing", "unmade", "disk-removed"},
	}
	for op, steps := range ops {
		for _, step := range steps {
			top.Run(op+"/"+step, func(t *testing.T) {
				m.t = t
				defer func() { m.t = top }()
				if op != "create" {
					m.create(map[string]any{"name": "victim", "env": map[string]string{"WHO": "x"}})
				}
				if op == "start" {
					m.must("POST", "/api/sandbox/victim/stop", nil, nil)
				}
				if err := os.WriteFile(m.fault, []byte(step), 0o600); err != nil {
					t.Fatal(err)
				}
				_, _, err := act(m, op)
				if err == nil {
					t.Errorf("the server survived step %s of %s", step, op)
				}
				<-m.ended
				_ = os.Remove(m.fault)
				m.start()
				whole(t, m, op+" killed at "+step)
				_, _, _ = m.call("DELETE", "/api/sandbox/victim", nil)
				whole(t, m, "after delete")
			})
		}
	}
}

func act(m *machine, op string) (int, []byte, error) {
	switch op {
	case "create":
		return m.call("POST", "/api/sandbox", map[string]any{"name": "victim", "env": map[string]string{"WHO": "x"}})
	case "start", "stop":
		return m.call("POST", "/api/sandbox/victim/"+op, nil)
	}
	return m.call("DELETE", "/api/sandbox/victim", nil)
}

// TestMachineKillAtRandom kills servers 200 times at any instant of creates,
// stops, starts and deletes, with the warm pool on. Two servers take turns of
// their own, since each waits most of its time.
func TestMachineKillAtRandom(t *testing.T) {
	t.Parallel()
	rounds := 100
	if testing.Short() {
		rounds = 5
	}
	for _, lane := range []string{"first", "second"} {
		t.Run(lane, func(t *testing.T) {
			t.Parallel()
			killAtRandom(t, rounds)
		})
	}
}

func killAtRandom(t *testing.T, rounds int) {
	m := newMachine(t, "--pool-size", "1")
	for round := range rounds {
		name := fmt.Sprintf("r%d", round%4)
		done := make(chan struct{})
		go func() {
			defer close(done)
			switch rand.IntN(4) {
			case 0, 1:
				_, _, _ = m.call("POST", "/api/sandbox", map[string]any{"name": name, "env": map[string]string{"WHO": name}})
			case 2:
				_, _, _ = m.call("POST", "/api/sandbox/"+name+"/stop", nil)
			case 3:
				_, _, _ = m.call("DELETE", "/api/sandbox/"+name, nil)
			}
		}()
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		m.kill()
		<-done
		m.start()
		if t.Failed() {
			return
		}
		if round%10 == 9 {
			m.stop()
			m.args = noPool
			m.start()
			whole(t, m, fmt.Sprintf("round %d", round))
			m.stop()
			m.args = []string{"--pool-size", "1"}
			m.start()
		}
	}
}
