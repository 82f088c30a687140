package lineage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is one that is process 1 of a namespace.
type shell struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{cmd: exec.Command("/bin/sh")}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	return s
}

// numbers runs a line and returns the numbers that it prints.
func (s *shell) numbers(t *testing.T, line string) (n []int) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		t.Fatal(err)
	}
	text, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(text) {
		i, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		n = append(n, i)
	}
	return n
}

// made finds the process that has a number in its namespace.
func (l *Lineage) made(inner int) (Process, bool) {
	var k bpfProcess
	var o bpfOrigin
	for it := l.maps.Origins.Iterate(); it.Next(&k, &o); {
		if int(o.Inner) == inner {
			return Process{int(k.Tgid), time.Duration(k.Start)}, true
		}
	}
	return Process{}, false
}

func open(t *testing.T) *Lineage {
	t.Helper()
	l, err := Open()
	if errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestDoubleFork follows a process whose parent is gone, and that was given to
// process 1, back to where it came from.
func TestDoubleFork(t *testing.T) {
	l, s := open(t), newShell(t)
	if _, err := l.Watch(s.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	n := s.numbers(t, `sh -c 'a=$$; (b=$(exec sh -c "echo \$PPID"); sh -c "echo $a $b \$\$"; true) & wait'`)
	first, middle, last := n[0], n[1], n[2]
	p, ok := l.made(last)
	if !ok {
		t.Fatalf("process %d is unknown", last)
	}
	for _, want := range []int{middle, first} {
		maker, _, ok := l.Origin(p)
		if !ok {
			t.Fatalf("process %+v has no origin", p)
		}
		if _, inner, ok := l.Origin(maker); !ok || inner != want {
			t.Fatalf("process %+v was made by %d, want %d", p, inner, want)
		}
		p = maker
	}
	if maker, _, ok := l.Origin(p); !ok || maker.ID != s.cmd.Process.Pid {
		t.Errorf("the first was made by %+v, want %d", maker, s.cmd.Process.Pid)
	}
}

// TestOnlyWatched knows nothing of processes outside, nor after Forget.
func TestOnlyWatched(t *testing.T) {
	l, s, other := open(t), newShell(t), newShell(t)
	space, err := l.Watch(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s.numbers(t, "(true); echo 1")
	other.numbers(t, "for i in 1 2 3 4 5 6 7 8 9; do (true); done; echo 1")
	if _, ok := l.made(2); !ok {
		t.Error("a process of the watched namespace is unknown")
	}
	if p, ok := l.made(9); ok {
		t.Errorf("%+v is of another namespace", p)
	}
	if err := l.Forget(space); err != nil {
		t.Fatal(err)
	}
	if err := l.Forget(space); err != nil {
		t.Errorf("forgotten twice: %v", err)
	}
	s.numbers(t, "(true); (true); echo 1")
	if p, ok := l.made(4); ok {
		t.Errorf("%+v began after the end", p)
	}
}
