package activity

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// workloads are what this binary does inside a sandbox.
var workloads = map[string]func(args []string){
	"memfd":       memfd,
	"spawn":       spawn,
	"trace":       trace,
	"files":       files,
	"uring":       uring,
	"touch":       touch,
	"connections": connections,
	"privileges":  privileges,
	"threads":     threads,
	"worker":      worker,
}

func check(err error) {
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// memfd runs a program that lies in memory alone.
func memfd([]string) {
	b, err := os.ReadFile("/bin/true")
	check(err)
	fd, err := unix.MemfdCreate("hidden", 0)
	check(err)
	_, err = unix.Write(fd, b)
	check(err)
	check(syscall.Exec("/proc/self/fd/"+strconv.Itoa(fd), []string{"innocent"}, nil))
}

// spawn starts a program so many times, from two threads.
func spawn(args []string) {
	args = enter(args)
	n, err := strconv.Atoi(args[1])
	check(err)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range n / 2 {
				pid, err := syscall.ForkExec(args[0], []string{"spawned"}, &syscall.ProcAttr{})
				check(err)
				_, err = syscall.Wait4(pid, nil, 0, nil)
				check(err)
			}
		})
	}
	wg.Wait()
}

// threads ends while several threads sleep in the kernel.
func threads([]string) {
	var running sync.WaitGroup
	for range 8 {
		running.Add(1)
		go func() {
			runtime.LockOSThread()
			running.Done()
			for {
				_ = unix.Nanosleep(&unix.Timespec{Sec: 3600}, nil)
			}
		}()
	}
	running.Wait()
	os.Exit(7)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func real(t testing.TB, path string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExec(t *testing.T) {
	dir := real(t, t.TempDir())
	renamed, script := filepath.Join(dir, "harmless"), filepath.Join(dir, "script")
	copyFile(t, "/bin/true", renamed)
	if err := os.WriteFile(script, []byte("#!/bin/sh -e\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	loaders, _ := filepath.Glob("/lib*/ld-linux-*.so.*")
	if len(loaders) == 0 {
		t.Fatal("no loader")
	}
	truth, sh, loader := real(t, "/bin/true"), real(t, "/bin/sh"), real(t, loaders[0])
	eachHierarchy(t, func(t *testing.T, root string) {
		for _, test := range []struct {
			name   string
			run    []string
			path   string
			binary string
			args   []string
		}{
			{"plain", []string{"/bin/true", "a b", "", "c"}, "/bin/true", truth, []string{"/bin/true", "a b", "", "c"}},
			{"renamed", []string{renamed, "x"}, renamed, renamed, []string{renamed, "x"}},
			{"script", []string{script, "x"}, script, sh, []string{"/bin/sh", "-e", script, "x"}},
			{"loader", []string{loaders[0], "/bin/true", "x"}, loaders[0], loader, []string{loaders[0], "/bin/true", "x"}},
		} {
			t.Run(test.name, func(t *testing.T) {
				b := sandbox(t, root)
				b.run(test.run[0], test.run[1:]...)
				got := only(b.all(), KindExec, KindExit)
				if len(got) != 2 {
					t.Fatalf("got %+v", got)
				}
				e := got[0]
				if e.Path != test.path || e.Binary != test.binary || !slices.Equal(e.Args, test.args) || e.Cut || e.Unread || e.Detached {
					t.Errorf("got %+v", e)
				}
				var st unix.Stat_t
				if err := unix.Stat(e.Binary, &st); err != nil || st.Ino != e.Inode {
					t.Errorf("inode %d, want %d, %v", e.Inode, st.Ino, err)
				}
				if e.Process.Parent != os.Getpid() || e.Process.UID != 0 || e.Process.Inner == 0 {
					t.Errorf("process %+v", e.Process)
				}
			})
		}
	})
}

func TestExecFromMemory(t *testing.T) {
	b := sandbox(t, "")
	b.work("memfd")
	got := only(b.all(), KindExec)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	e := got[1]
	if !e.Detached || e.Binary != "memfd:hidden" || !strings.HasPrefix(e.Path, "/proc/self/fd/") || !slices.Equal(e.Args, []string{"innocent"}) {
		t.Errorf("got %+v", e)
	}
}

func TestLongArgumentsAreMarked(t *testing.T) {
	b := sandbox(t, "")
	long := strings.Repeat("x", 5000)
	b.run("/bin/true", "first", long)
	e := only(b.all(), KindExec)[0]
	size := len("/bin/true") + 1 + len("first") + 1 + len(long) + 1
	if !e.Cut || e.ArgsSize != size || len(e.Args) != 3 || len(strings.Join(e.Args, "\x00")) != 2048 {
		t.Errorf("cut %t, size %d of %d, %d arguments", e.Cut, e.ArgsSize, size, len(e.Args))
	}
}

func TestExit(t *testing.T) {
	b := sandbox(t, "")
	_ = b.command("/bin/sh", "-c", "exit 3").Run()
	_ = b.command("/bin/sh", "-c", "kill -9 $$").Run()
	_ = b.workload("threads").Run()
	got := only(b.all(), KindExit)
	if len(got) != 3 {
		t.Fatalf("%d exits: %+v", len(got), got)
	}
	if s := got[0].Status; !s.Exited() || s.ExitStatus() != 3 {
		t.Errorf("got %v", s)
	}
	if s := got[1].Status; !s.Signaled() || s.Signal() != unix.SIGKILL {
		t.Errorf("got %v", s)
	}
	if s := got[2].Status; !s.Exited() || s.ExitStatus() != 7 {
		t.Errorf("got %v", s)
	}
	for _, e := range got {
		if e.Duration <= 0 || e.Process.Start <= 0 {
			t.Errorf("lived %v from %v", e.Duration, e.Process.Start)
		}
	}
}

// TestOrphans are processes whose parents end before they do anything.
func TestOrphans(t *testing.T) {
	b := sandbox(t, "")
	b.run("/bin/sh", "-c", "( ( /bin/true orphan & ) & ); sleep 0.2")
	var found bool
	for _, e := range only(b.all(), KindExec) {
		found = found || slices.Equal(e.Args, []string{"/bin/true", "orphan"})
	}
	if !found {
		t.Error("the orphan was not seen")
	}
}

// tiny is a program that ends at once: it does exit_group(0).
func tiny(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny")
	if runtime.GOARCH != "amd64" {
		copyFile(t, "/bin/true", path)
		return path
	}
	const base = 0x400000
	code := []byte{0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05} // xor edi, edi; mov eax, 231; syscall
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: base + 120, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	size := uint64(120 + len(code))
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Filesz: size, Memsz: size, Align: 4096}
	var out bytes.Buffer
	for _, part := range []any{h, p, code} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, out.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(path).Run(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFloodOfProgramsAddsUp(t *testing.T) {
	const n = 100000
	b := sandbox(t, "")
	if err := b.joining("spawn", tiny(t), strconv.Itoa(n)).Run(); err != nil {
		t.Fatal(err)
	}
	events := b.all()
	told, lost := count(events)
	if told+lost != 2*n+1 {
		t.Errorf("%d told and %d lost of %d", told, lost, 2*n+1)
	}
	missed, err := b.r.Missed()
	if err != nil || missed != 0 {
		t.Errorf("missed %d, %v", missed, err)
	}
	t.Logf("%d told, %d lost", told, lost)
}
