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

// slices of work that both states of the programs see alternately, so that both
// see the same noise of the machine.
const (
	benchRounds = 3
	benchSlices = 12
)

// steps are what a worker does on a line of input; it answers with the time of
// one step in nanoseconds.
var steps = map[string]struct {
	n  int
	do func(dir string)
}{
	"getppid": {20000, func(string) { _, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }},
	"read-open": {4000, func(dir string) {
		fd, err := unix.Open(dir+"/there", unix.O_RDONLY, 0)
		check(err)
		check(unix.Close(fd))
	}},
	"write-open": {4000, func(dir string) {
		fd, err := unix.Open(dir+"/there", unix.O_WRONLY, 0)
		check(err)
		check(unix.Close(fd))
	}},
	"create-unlink": {1000, func(dir string) {
		fd, err := unix.Open(dir+"/made", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		check(err)
		check(unix.Close(fd))
		check(unix.Unlink(dir + "/made"))
	}},
	"fork-exec": {60, func(string) {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
		check(err)
		_, err = syscall.Wait4(pid, nil, 0, nil)
		check(err)
	}},
}

func worker(args []string) {
	args = enter(args)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		s := steps[in.Text()]
		begin := time.Now()
		for range s.n {
			s.do(args[0])
		}
		fmt.Println(time.Since(begin).Nanoseconds() / int64(s.n))
	}
}

// BenchmarkOverhead compares work with and without the programs, inside a
// watched sandbox and outside of any.
func BenchmarkOverhead(b *testing.B) {
	for range b.N {
		measure(b)
	}
}

func measure(b *testing.B) {
	for _, root := range hierarchies() {
		dir, err := os.MkdirTemp(root, "activity-bench-")
		if err != nil {
			b.Fatal(err)
		}
		defer os.Remove(dir)
		in, out := startWorker(b, dir), startWorker(b, root)
		defer in.stop()
		defer out.stop()
		times := map[string][]int64{}
		slice := func(state string) {
			for range benchSlices {
				for name := range steps {
					times["in "+state+name] = append(times["in "+state+name], in.step(b, name))
					times["out "+state+name] = append(times["out "+state+name], out.step(b, name))
				}
			}
		}
		for range benchRounds {
			slice("off ")
			r, err := Open(Options{})
			if err != nil {
				b.Fatal(err)
			}
			if err := r.Add(dir, 1); err != nil {
				b.Fatal(err)
			}
			s := newStream(r)
			slice("on ")
			if err := s.close(); err != nil {
				b.Fatal(err)
			}
		}
		var table strings.Builder
		for name := range steps {
			for _, where := range []string{"in ", "out "} {
				off, on := quarter(times[where+"off "+name]), quarter(times[where+"on "+name])
				fmt.Fprintf(&table, "%-4s %-14s off %8d ns  on %8d ns  ratio %.3f\n", where, name, off, on, float64(on)/float64(off))
			}
		}
		fmt.Printf("%s\n%s", root, &table) // a log of a benchmark is cut
	}
}

// quarter is the first quartile: what the work takes on a quiet machine.
func quarter(v []int64) int64 {
	slices.Sort(v)
	return v[len(v)/4]
}

type benchWorker struct {
	c   *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func startWorker(b *testing.B, group string) *benchWorker {
	work, err := os.MkdirTemp("/dev/shm", "activity-bench-") // so that no disk is measured
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(work) })
	if err := os.WriteFile(filepath.Join(work, "there"), nil, 0o600); err != nil {
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

func (w *benchWorker) step(b *testing.B, name string) int64 {
	if _, err := fmt.Fprintln(w.in, name); err != nil {
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
