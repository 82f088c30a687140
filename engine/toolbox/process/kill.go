package process

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"syscall"
	"time"
)

// killWait bounds the wait for a killed process, which may be stuck in the
// kernel.
const killWait = 5 * time.Second

// Kill ends the process and all that can be traced to it: its session, its
// group and its living descendants, also those in sessions of their own. It
// returns once the process itself is reaped, or is stuck in the kernel.
func (c *Child) Kill() {
	c.SignalTree(syscall.SIGKILL)
	t := time.NewTimer(killWait)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
	// What forked while we looked is still in the session of a dead leader.
	for range 4 {
		left := members(c.PID, nil)
		if len(left) == 0 {
			return
		}
		killAll(left, syscall.SIGKILL)
	}
}

// Terminate sends SIGTERM to everything that Kill would end, and kills what is
// left when ctx ends or grace has passed.
func (c *Child) Terminate(ctx context.Context, grace time.Duration) {
	if c.tty {
		c.SignalTree(syscall.SIGHUP) // interactive shells ignore SIGTERM
	}
	c.SignalTree(syscall.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	case <-ctx.Done():
	}
	c.Kill()
}

// SignalTree sends sig to the process, its session and its descendants.
func (c *Child) SignalTree(sig syscall.Signal) {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if c.ended() {
		return
	}
	tree := members(c.PID, []int{c.PID})
	_ = syscall.Kill(-c.PID, sig)
	killAll(tree, sig)
	_ = syscall.Kill(c.PID, sig)
}

func killAll(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}

// stat is the part of /proc/PID/stat that kin are found by.
type stat struct {
	pid, parent, group, session int
	state                       byte
}

// members returns the living processes in session sid and the descendants of
// roots and of those, without the roots.
func members(sid int, roots []int) []int {
	all := processes()
	in := map[int]bool{}
	for _, r := range roots {
		in[r] = true
	}
	var found []int
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if in[s.pid] || s.state == 'Z' || (s.session != sid && s.group != sid && !in[s.parent]) {
				continue
			}
			in[s.pid] = true
			found = append(found, s.pid)
			grown = true
		}
	}
	return found
}

// processes lists all processes that /proc shows, the toolbox excluded.
func processes() []stat {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	self := os.Getpid()
	var all []stat
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || pid == self {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue
		}
		if s, ok := parseStat(b); ok {
			all = append(all, s)
		}
	}
	return all
}

// CountProcesses returns how many processes live beside the toolbox.
func CountProcesses() int {
	n := 0
	for _, s := range processes() {
		if s.state != 'Z' && s.parent != 2 && s.pid != 2 { // 2 is the kernel's, on a host
			n++
		}
	}
	return n
}

// parseStat reads the first six fields of /proc/PID/stat. The second is in
// parentheses and may hold anything, so the last parenthesis counts.
func parseStat(b []byte) (stat, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return stat{}, false
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 4 || len(f[0]) != 1 {
		return stat{}, false
	}
	s := stat{state: f[0][0]}
	for _, v := range []struct {
		to   *int
		text []byte
	}{{&s.pid, bytes.TrimSpace(b[:open])}, {&s.parent, f[1]}, {&s.group, f[2]}, {&s.session, f[3]}} {
		n, err := strconv.Atoi(string(v.text))
		if err != nil {
			return stat{}, false
		}
		*v.to = n
	}
	return s, true
}
