package enforce

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary also be a process of a sandbox.
func TestMain(m *testing.M) {
	if os.Getenv("ENFORCE_AGENT") != "" {
		agentMain()
		return
	}
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// agentMain does what it is told, a line of JSON at a time, and answers with
// the number of the error.
func agentMain() {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for in.Scan() {
		var words []string
		if err := json.Unmarshal(in.Bytes(), &words); err != nil {
			panic(err)
		}
		var errno unix.Errno
		if err := acts[words[0]](append(words[1:], "")); err != nil && !errors.As(err, &errno) {
			panic(err)
		}
		fmt.Println(int(errno))
	}
}

// acts are what an agent can do; the arguments are paths.
var acts = map[string]func([]string) error{
	"run":      func(a []string) error { return exec.Command(a[0]).Run() },
	"read":     func(a []string) error { return open1(a[0], unix.O_RDONLY) },
	"write":    func(a []string) error { return open1(a[0], unix.O_WRONLY) },
	"change":   func(a []string) error { return open1(a[0], unix.O_RDWR|unix.O_TRUNC) },
	"empty":    func(a []string) error { return open1(a[0], unix.O_RDONLY|unix.O_TRUNC) },
	"create":   func(a []string) error { return open1(a[0], unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL) },
	"again":    again,
	"unlink":   func(a []string) error { return unix.Unlink(a[0]) },
	"mkdir":    func(a []string) error { return unix.Mkdir(a[0], 0o755) },
	"rmdir":    func(a []string) error { return unix.Rmdir(a[0]) },
	"mkfifo":   func(a []string) error { return unix.Mkfifo(a[0], 0o644) },
	"truncate": func(a []string) error { return unix.Truncate(a[0], 0) },
	"chmod":    func(a []string) error { return unix.Chmod(a[0], 0o600) },
	"chown":    func(a []string) error { return unix.Lchown(a[0], 7, 7) },
	"symlink":  func(a []string) error { return unix.Symlink(a[0], a[1]) },
	"link":     func(a []string) error { return unix.Link(a[0], a[1]) },
	"rename":   func(a []string) error { return unix.Rename(a[0], a[1]) },
	"exchange": func(a []string) error {
		return unix.Renameat2(unix.AT_FDCWD, a[0], unix.AT_FDCWD, a[1], unix.RENAME_EXCHANGE)
	},
	"memory": runMemory,
	"writes": writes,
	"tries":  tries,
	"reads":  func(a []string) error { return times(a[1], func() error { return open1(a[0], unix.O_RDONLY) }) },
	"runs":   func(a []string) error { return times(a[1], func() error { return exec.Command(a[0]).Run() }) },
	"bind":   func(a []string) error { return listen(a[0]) },
	"deep":   deep,
}

func open1(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// writes opens a file so often, and returns the last error.
func writes(a []string) (err error) {
	n, err := strconv.Atoi(a[1])
	for range n {
		err = open1(a[0], unix.O_WRONLY)
	}
	return err
}

// times does something so often, until it fails.
func times(often string, do func() error) error {
	n, err := strconv.Atoi(often)
	for ; n > 0 && err == nil; n-- {
		err = do()
	}
	return err
}

// tries opens a file until that works, or so often.
func tries(a []string) error {
	n, err := strconv.Atoi(a[1])
	for ; n > 0 && err == nil; n-- {
		if errno := open1(a[0], unix.O_WRONLY); errno != unix.EPERM {
			return errno
		}
	}
	return errors.Join(err, unix.EPERM)
}

// again opens a file for writing by a descriptor that names it only.
func again(a []string) error {
	fd, err := unix.Open(a[0], unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return open1("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY)
}

// runMemory runs a program from a file without a name.
func runMemory(a []string) error {
	b, err := os.ReadFile(a[0])
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("hidden", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, b); err != nil {
		return err
	}
	return exec.Command("/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(fd)).Run()
}

func listen(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

// deep makes a file below more directories than a path can name.
func deep(a []string) error {
	if err := unix.Chdir(a[0]); err != nil {
		return err
	}
	name := strings.Repeat("d", 250)
	for range 20 {
		if err := unix.Mkdir(name, 0o755); err != nil {
			return err
		}
		if err := unix.Chdir(name); err != nil {
			return err
		}
	}
	return nil
}

// agent is a process of a sandbox.
type agent struct {
	t       testing.TB
	sandbox uint32
	group   string
	in      *json.Encoder
	out     *bufio.Scanner
}

// startAgent starts one in a control group of its own.
func startAgent(t testing.TB) *agent {
	t.Helper()
	a := &agent{t: t, sandbox: lastSandbox.Add(1), group: makeGroup(t)}
	dir, err := os.Open(a.group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), "ENFORCE_AGENT=1")
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if shared.Enforcer == nil {
			return
		}
		if err := shared.Remove(a.sandbox); err != nil {
			t.Error(err)
		}
	})
	a.in, a.out = json.NewEncoder(in), bufio.NewScanner(out)
	if !a.out.Scan() || a.out.Text() != "ready" {
		t.Fatalf("the agent says %q", a.out.Text())
	}
	return a
}

// do has the agent do something.
func (a *agent) do(words ...string) unix.Errno {
	a.t.Helper()
	if err := a.in.Encode(words); err != nil {
		a.t.Fatal(err)
	}
	if !a.out.Scan() {
		a.t.Fatalf("the agent ended at %v: %v", words, a.out.Err())
	}
	n, err := strconv.Atoi(a.out.Text())
	if err != nil {
		a.t.Fatalf("the agent answers %q to %v", a.out.Text(), words)
	}
	return unix.Errno(n)
}

func (a *agent) may(words ...string) {
	a.t.Helper()
	if errno := a.do(words...); errno != 0 {
		a.t.Errorf("%s: %v", strings.Join(words, " "), errno)
	}
}

func (a *agent) mayNot(words ...string) {
	a.t.Helper()
	if errno := a.do(words...); errno != unix.EPERM {
		a.t.Errorf("%s: error number %d, want EPERM", strings.Join(words, " "), int(errno))
	}
}

// makeGroup makes a control group two levels down, as drivers do.
func makeGroup(t testing.TB) string {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		root = "/sys/fs/cgroup/unified"
	}
	parent, err := os.MkdirTemp(root, "enforce-test-")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "one")
	t.Cleanup(func() {
		if err := errors.Join(os.Remove(dir), os.Remove(parent)); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
