package activity

import (
	"bufio"
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

	"golang.org/x/sys/unix"
)

// The recorder is opened and closed so many times, so that work with and
// without it sees the same noise of the machine.
const (
	benchRounds = 8
	benchSlices = 10
)

// benchSteps are what a worker does on a line of input; it answers with the
// time of one step in nanoseconds.
var benchSteps = []struct {
	name   string
	n      int
	inside bool // measured in a watched sandbox, otherwise outside of all
	do     func(dir string)
}{
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
		begin := time.Now()
		for range s.n {
			s.do(args[0])
		}
		fmt.Println(time.Since(begin).Nanoseconds() / int64(s.n))
	}
}

// BenchmarkActivity compares work with and without the recorder. control is the
// same without the recorder twice: what the machine's noise makes of 1.
func BenchmarkActivity(b *testing.B) {
	for range b.N {
		measure(b)
	}
}

func measure(b *testing.B) {
	root := anyHierarchy(b)
	dir, err := os.MkdirTemp(root, "activity-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(dir)
	insideRoot, upper := overlay(b)
	outsideRoot, _ := overlay(b)
	in, out := startWorker(b, dir, insideRoot), startWorker(b, root, outsideRoot)
	defer in.stop()
	defer out.stop()
	times := map[string][]int64{}
	slice := func(state string) {
		for range benchSlices {
			for i, s := range benchSteps {
				w, where := out, "outside"
				if s.inside {
					w, where = in, "inside"
				}
				name := where + "_" + s.name + " " + state
				times[name] = append(times[name], w.step(b, i))
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
		off, on, control := tenth(times[name+" off"]), tenth(times[name+" on"]), tenth(times[name+" control"])
		name = strings.ReplaceAll(name, "-", "_")
		b.ReportMetric(float64(off), "off_"+name+"_ns")
		b.ReportMetric(float64(on)/float64(off), "ratio_"+name)
		b.ReportMetric(float64(control)/float64(off), "control_"+name)
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

func (w *benchWorker) step(b *testing.B, i int) int64 {
	if _, err := fmt.Fprintln(w.in, i); err != nil {
		b.Fatal(err)
	}
	line, err := w.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(line[:len(line)-1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func (w *benchWorker) stop() {
	_ = w.in.Close()
	_ = w.c.Wait()
}
