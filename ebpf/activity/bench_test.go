package activity

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The recorder is opened and closed so many times, so that work with and
// without it sees the same noise of the machine.
const (
	benchRounds = 8
	benchSlices = 5
)

// benchSteps are what a worker does on a line of input; it answers with the
// time of one step in nanoseconds: that of the processors, which other programs
// hardly change, and that of the clock.
var benchSteps = []benchStep{
	{"getppid", 20000, false, func(string) { _, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }},
	{"open", 2000, false, readOpen},
	{"exec", 20, false, forkExec},
	{"exec", 20, true, forkExec},
	{"compile", 1, true, func(dir string) { start("/usr/bin/cc", "-O1", "-c", dir+"/source.c", "-o", dir+"/object.o") }},
	{"open", 2000, true, readOpen},
	{"write-open", 2000, true, func(dir string) { open(dir+"/there", unix.O_WRONLY) }},
	{"create-unlink", 400, true, func(dir string) {
		open(dir+"/made", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
		check(unix.Unlink(dir + "/made"))
	}},
}

type benchStep struct {
	name   string
	n      int
	inside bool // measured in a watched sandbox, otherwise outside of all
	do     func(dir string)
}

func open(path string, flags int) {
	fd, err := unix.Open(path, flags, 0o600)
	check(err)
	check(unix.Close(fd))
}

func readOpen(dir string) { open(dir+"/there", unix.O_RDONLY) }

func forkExec(string) { start("/bin/true") }

func start(path string, args ...string) {
	pid, err := syscall.ForkExec(path, append([]string{path}, args...), &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	check(err)
	var status unix.WaitStatus
	_, err = unix.Wait4(pid, &status, 0, nil)
	check(err)
	if status.ExitStatus() != 0 {
		check(fmt.Errorf("%s ended with %d", path, status.ExitStatus()))
	}
}

func worker(args []string) {
	args = enter(args)
	check(os.Setenv("TMPDIR", args[0]))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		i, err := strconv.Atoi(in.Text())
		check(err)
		s := benchSteps[i]
		begin, used := time.Now(), processors()
		for range s.n {
			s.do(args[0])
		}
		fmt.Println((processors()-used).Nanoseconds()/int64(s.n), time.Since(begin).Nanoseconds()/int64(s.n))
	}
}

// processors is what this process and its ended children have used of them.
func processors() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		check(unix.Getrusage(who, &u))
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// BenchmarkActivity compares work with and without the recorder. control is the
// same without the recorder twice: what the machine's noise makes of 1.
func BenchmarkActivity(b *testing.B) {
	for range b.N {
		measure(b)
	}
}

// BenchmarkPrograms is how long the programs run for one fork and exec, as the
// kernel counts it, which adds about 100 ns to each run. What the machine does
// besides counts as well.
func BenchmarkPrograms(b *testing.B) {
	const each = 300
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skipf("the kernel does not count: %v", err)
	}
	defer stats.Close()
	root := anyHierarchy(b)
	dir := makeGroup(b, root)
	work, _ := overlay(b)
	in, out := startWorker(b, dir, work), startWorker(b, root, work)
	defer in.stop()
	defer out.stop()
	r, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	s := newStream(r)
	if err := r.Add(dir, 1); err != nil {
		b.Fatal(err)
	}
	step := slices.IndexFunc(benchSteps, func(s benchStep) bool { return s.name == "exec" })
	for range b.N {
		for where, w := range map[string]*benchWorker{"inside": in, "outside": out} {
			before := spent(b, r)
			for range each / benchSteps[step].n {
				w.step(b, step)
			}
			b.ReportMetric(float64((spent(b, r)-before).Nanoseconds())/each, "programs_"+where+"_exec_ns")
		}
	}
	b.ReportMetric(0, "ns/op")
	if err := s.close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWatched compares work in a sandbox that is watched and one that is
// not, in turns of milliseconds: closer together than the recorder can be opened
// and closed. What it costs everybody is not in it; BenchmarkPrograms has that.
func BenchmarkWatched(b *testing.B) {
	r, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	s := newStream(r)
	dir := makeGroup(b, anyHierarchy(b))
	root, upper := overlay(b)
	w := startWorker(b, dir, root)
	defer w.stop()
	for name, turns := range map[string]int{"open": 150, "exec": 100, "compile": 25} {
		step := slices.IndexFunc(benchSteps, func(s benchStep) bool { return s.inside && s.name == name })
		times := map[string][]int64{}
		turn := func(state string) {
			used, _ := w.step(b, step)
			times[state] = append(times[state], used)
		}
		turn("first")
		for i := range b.N * turns {
			if err := errors.Join(r.Add(dir, 1), r.Watch(1, root, upper)); err != nil {
				b.Fatal(err)
			}
			turn("on")
			if err := r.Remove(1); err != nil {
				b.Fatal(err)
			}
			turn([]string{"off", "control"}[i%2])
		}
		off := float64(tenth(times["off"]))
		b.ReportMetric(off, "off_watched_"+name+"_ns")
		b.ReportMetric(float64(tenth(times["on"]))/off, "ratio_watched_"+name)
		b.ReportMetric(float64(tenth(times["control"]))/off, "control_watched_"+name)
	}
	b.ReportMetric(0, "ns/op")
	if err := s.close(); err != nil {
		b.Fatal(err)
	}
}

// spent is how long all programs have run.
func spent(b *testing.B, r *Recorder) time.Duration {
	var sum time.Duration
	for _, p := range r.programs.Programs {
		s, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		sum += s.Runtime
	}
	return sum
}

func measure(b *testing.B) {
	root := anyHierarchy(b)
	dir := makeGroup(b, root)
	insideRoot, upper := overlay(b)
	outsideRoot, _ := overlay(b)
	in, out := startWorker(b, dir, insideRoot), startWorker(b, root, outsideRoot)
	defer in.stop()
	defer out.stop()
	times, clocks := map[string][]int64{}, map[string][]int64{}
	slice := func(state string) {
		for range benchSlices {
			for i, s := range benchSteps {
				w, where := out, "outside"
				if s.inside {
					w, where = in, "inside"
				}
				name := where + "_" + s.name + " " + state
				used, passed := w.step(b, i)
				times[name], clocks[name] = append(times[name], used), append(clocks[name], passed)
			}
		}
	}
	states := []string{"off", "on", "control"}
	slice("warm")
	for i := range benchRounds * len(states) {
		state := states[(i+i/len(states))%len(states)] // each comes after each other one
		if state != "on" {
			slice(state)
			continue
		}
		r, err := Open(Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Add(dir, 1); err != nil {
			b.Fatal(err)
		}
		if err := r.Watch(1, insideRoot, upper); err != nil {
			b.Fatal(err)
		}
		s := newStream(r)
		slice(state)
		if err := s.close(); err != nil {
			b.Fatal(err)
		}
	}
	for _, s := range benchSteps {
		name := "outside_" + s.name
		if s.inside {
			name = "inside_" + s.name
		}
		ratio := func(of map[string][]int64, state string) float64 {
			return float64(tenth(of[name+" "+state])) / float64(tenth(of[name+" off"]))
		}
		metric := strings.ReplaceAll(name, "-", "_")
		b.ReportMetric(float64(tenth(times[name+" off"])), "off_"+metric+"_ns")
		b.ReportMetric(ratio(times, "on"), "ratio_"+metric)
		b.ReportMetric(ratio(times, "control"), "control_"+metric)
		b.ReportMetric(ratio(clocks, "on"), "clock_"+metric)
	}
	b.ReportMetric(0, "ns/op")
}

// tenth is the first decile: what the work takes on a quiet machine.
func tenth(v []int64) int64 {
	slices.Sort(v)
	return v[len(v)/10]
}

type benchWorker struct {
	c   *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func startWorker(b *testing.B, group, work string) *benchWorker {
	if err := os.WriteFile(filepath.Join(work, "there"), nil, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "source.c"), source(), 0o600); err != nil {
		b.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	c := exec.CommandContext(b.Context(), self(b), filepath.Join(group, "cgroup.procs"), work)
	c.Env = append(os.Environ(), "ACTIVITY_WORKLOAD=worker")
	c.Stdin, c.Stderr = r, os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	_ = r.Close()
	return &benchWorker{c, w, bufio.NewReader(out)}
}

// source is a program of moderate size.
func source() []byte {
	var s strings.Builder
	s.WriteString("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n")
	for i := range 50 {
		fmt.Fprintf(&s, "int f%d(int n) { int s = 0; for (int i = 0; i < n; i++) s += i * %d; printf(\"%%d\\n\", s); return s; }\n", i, i)
	}
	return []byte(s.String())
}

func (w *benchWorker) step(b *testing.B, i int) (used, passed int64) {
	if _, err := fmt.Fprintln(w.in, i); err != nil {
		b.Fatal(err)
	}
	line, err := w.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &used, &passed); err != nil {
		b.Fatal(err)
	}
	return used, passed
}

func (w *benchWorker) stop() {
	_ = w.in.Close()
	_ = w.c.Wait()
}
