package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/container/daemon"
)

// TestMain also is the program whose command "containerd" the tests supervise.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "containerd" {
		if err := daemon.Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := runTests(m)
	if err := attacks.Report(); err != nil {
		fmt.Fprintln(os.Stderr, "write the attacks' results:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// shared is one containerd for all tests of the package.
var shared struct {
	dir        string // short, enterable by all
	toolbox    string
	shim       string
	supervisor *Supervisor
	address    string
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("/run", "atoll-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := setUp(dir); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	left := leftovers(dir)
	for end := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(end); left = leftovers(dir) {
		time.Sleep(50 * time.Millisecond) // processes take a moment to end
	}
	if err := shared.supervisor.Stop(ctx); err != nil {
		left = append(left, err.Error())
	}
	if len(left) > 0 {
		fmt.Fprintln(os.Stderr, "FAIL: left behind:\n  "+strings.Join(left, "\n  "))
		if log, err := os.ReadFile(filepath.Join(dir, "home/containerd/log")); err == nil {
			fmt.Fprintln(os.Stderr, string(log))
		}
		return 1
	}
	return code
}

func setUp(dir string) error {
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	shared.dir, shared.toolbox = dir, filepath.Join(dir, "toolbox")
	if err := build(shared.toolbox, "./testdata/toolbox"); err != nil {
		return err
	}
	shared.shim = filepath.Join(dir, "libexec", "containerd-shim-runc-v2")
	if err := build(shared.shim, "github.com/atoll-sh/atoll/cmd/containerd-shim-runc-v2"); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	shared.supervisor = &Supervisor{
		Home: filepath.Join(dir, "home"), RunDir: filepath.Join(dir, "run"), ServerID: filepath.Base(dir),
		Binary: self, ShimDir: filepath.Dir(shared.shim),
	}
	shared.address, err = shared.supervisor.Start(context.Background())
	return err
}

func build(out, pkg string) error {
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, b)
	}
	return nil
}

// leftovers looks for what tests must not leave: control groups, mounts and
// processes that name our directory, and shims.
func leftovers(dir string) []string {
	var left []string
	for _, pattern := range []string{"/sys/fs/cgroup/%s*", "/sys/fs/cgroup/*/%s*"} {
		found, _ := filepath.Glob(fmt.Sprintf(pattern, "atoll-"+filepath.Base(dir)))
		left = append(left, found...)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, dir) {
			left = append(left, line)
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range commands {
		b, _ := os.ReadFile(c)
		line := string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		if strings.Contains(line, dir) && !strings.Contains(line, "config.toml") {
			left = append(left, line)
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(dir, "run/s/*"))
	for _, name := range sockets {
		if conn, err := net.Dial("unix", name); err == nil { // a shim listens
			conn.Close()
			left = append(left, name)
		}
	}
	return left
}

var count atomic.Uint64

// rig is one driver and what its instances need.
type rig struct {
	driver *Driver
	config Config
}

// newRig opens a driver of a server of its own on the shared containerd.
func newRig(t testing.TB, edit func(*Config)) *rig {
	t.Helper()
	n := count.Add(1)
	c := Config{
		Address: shared.address, Namespace: "atoll-test", Runtime: "runc",
		ServerID: fmt.Sprintf("%s-%d", filepath.Base(shared.dir), n),
		StateDir: filepath.Join(shared.dir, fmt.Sprintf("state-%d", n)),
		Shim:     shared.shim, Spares: 1, Keep: true,
	}
	if edit != nil {
		edit(&c)
	}
	r := &rig{config: c}
	r.open(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.driver.Destroy(ctx); err != nil {
			t.Error(err)
		}
		if err := r.driver.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) open(t testing.TB) {
	t.Helper()
	d, err := New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.driver = d
}

// reopen is a restart of the server.
func (r *rig) reopen(t testing.TB) *Driver {
	t.Helper()
	if err := r.driver.Close(); err != nil {
		t.Fatal(err)
	}
	r.open(t)
	return r.driver
}

// spec prepares all that a runner would.
func (r *rig) spec(t testing.TB) driver.Spec {
	t.Helper()
	n := count.Add(1)
	id := fmt.Sprintf("a-%s-%d", strings.ToLower(strings.TrimPrefix(filepath.Base(shared.dir), "atoll-test-")), n)
	dir := filepath.Join(shared.dir, id)
	t.Cleanup(func() { os.RemoveAll(dir) })
	base := uint32(1<<20 + n%1000*idCount)
	root := filepath.Join(dir, "root")
	if err := makeRoot(root, int(base)); err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(dir, "control")
	if err := os.Mkdir(control, 0o700); err != nil {
		t.Fatal(err)
	}
	return driver.Spec{
		ID: id, Hostname: "box", RootFS: root, Image: "test:latest", UIDBase: base,
		NetNS: makeNetNS(t, filepath.Join(dir, "netns")), Toolbox: shared.toolbox, ControlDir: control,
		Env:       []string{"LANG=C.UTF-8"},
		Resources: engine.Resources{CPU: 1, MemoryMiB: 256, PIDs: 200},
	}
}

// makeRoot makes a root file system of busybox that belongs to root inside.
func makeRoot(root string, uid int) error {
	for _, dir := range []string{"bin", "etc", "tmp", "mnt", "proc", "dev", "sys", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("the package busybox-static is missing: %w", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sh", "cat", "id", "ls", "sleep", "hostname", "tail", "mount", "dmesg", "stat", "chown", "grep", "df", "nproc", "wc", "echo", "true", "ln", "rm"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"), 0o644); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// makeNetNS makes an empty network namespace that the host owns.
func makeNetNS(t testing.TB, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// start creates and starts an instance that is removed after the test.
func (r *rig) start(t testing.TB, edit func(*driver.Spec)) driver.Handle {
	t.Helper()
	h := r.create(t, edit)
	if err := r.driver.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	return h
}

func (r *rig) create(t testing.TB, edit func(*driver.Spec)) driver.Handle {
	t.Helper()
	spec := r.spec(t)
	if edit != nil {
		edit(&spec)
	}
	h, err := r.driver.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.remove(t, h) })
	return h
}

func (r *rig) remove(t testing.TB, h driver.Handle) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.driver.Remove(ctx, h); err != nil {
		t.Errorf("remove %s: %v", h.ID, err)
	}
}

// post asks the toolbox of an instance.
func (r *rig) post(t testing.TB, h driver.Handle, path string, body any) ([]byte, error) {
	t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return r.driver.Dial(ctx, h) },
	}}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://toolbox"+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// exec runs a command inside and returns its exit code and output.
func (r *rig) exec(t testing.TB, h driver.Handle, args ...string) (int, string) {
	t.Helper()
	b, err := r.post(t, h, "/exec", args)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Exit   int
		Output string
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return got.Exit, strings.TrimSpace(got.Output)
}

func (r *rig) sh(t testing.TB, h driver.Handle, script string) (int, string) {
	t.Helper()
	return r.exec(t, h, "/bin/sh", "-c", script)
}
