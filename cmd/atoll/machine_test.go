package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/enginetest"
)

// The tests of this file and of the other machine_*_test.go files start the
// real binary with its own home on this machine: real containerd, real
// network namespaces, real disks. The binary is built with the tag atollfaults,
// so that a test can kill it at a named step.

const machineKey = "atl_machinetest_0123456789abcdef0123456789"

var builtBinary struct {
	sync.Once
	path string
	err  error
}

// testPrograms names a directory where the programs of these tests are, for
// machines without a compiler.
const testPrograms = "ATOLL_TEST_PROGRAMS"

// binary builds the server once for all tests of this package.
func binary(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(testPrograms); dir != "" {
		return filepath.Join(dir, "atoll")
	}
	builtBinary.Do(func() {
		dir, err := os.MkdirTemp("", "atollbin")
		if err != nil {
			builtBinary.err = err
			return
		}
		builtBinary.path = filepath.Join(dir, "atoll")
		out, err := exec.Command("go", "build", "-tags", "atollfaults", "-o", builtBinary.path, ".").CombinedOutput()
		if err != nil {
			builtBinary.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if builtBinary.err != nil {
		t.Fatal(builtBinary.err)
	}
	return builtBinary.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.m != nil {
		t := &endOfRun{}
		shared.m.t = t
		shared.m.down()
		if t.failed {
			code = 1
		}
	}
	if builtBinary.path != "" {
		_ = os.RemoveAll(filepath.Dir(builtBinary.path))
	}
	os.Exit(code)
}

// shared is the server that tests without wishes of their own use one after
// the other: unpacking the image into a home takes seconds.
var shared struct{ m *machine }

// sharedMachine returns a running server without warm pool and without
// sandboxes. The test's sandboxes are deleted when it ends.
func sharedMachine(t *testing.T) *machine {
	t.Helper()
	if shared.m == nil {
		shared.m = startMachine(t, nil, noPool...)
	}
	m := shared.m
	m.t = t
	select {
	case <-m.ended: // a test before this one killed it
		m.start()
	default:
	}
	t.Cleanup(func() {
		for _, sb := range m.sandboxes() {
			if sb.State != "destroyed" {
				m.must("DELETE", "/api/sandbox/"+sb.ID, nil, nil)
			}
		}
		if t.Failed() {
			t.Logf("server log:\n%s", m.log())
		}
	})
	return m
}

// tester is the part of testing.T that a machine uses, so that the shared one
// can be taken down after the last test.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
	Logf(format string, args ...any)
	Failed() bool
}

// endOfRun reports what goes wrong after the last test.
type endOfRun struct{ failed bool }

func (e *endOfRun) Helper()                         {}
func (e *endOfRun) Failed() bool                    { return e.failed }
func (e *endOfRun) Logf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (e *endOfRun) Errorf(format string, args ...any) {
	e.failed = true
	fmt.Printf(format+"\n", args...)
}
func (e *endOfRun) Fatalf(format string, args ...any) { e.Errorf(format, args...) }
func (e *endOfRun) Fatal(args ...any)                 { e.Errorf("%s", fmt.Sprint(args...)) }

// machine is one server with its own home.
type machine struct {
	t     tester
	bin   string
	home  string
	addr  string
	url   string
	fault string // file that names the step to die at
	args  []string
	env   []string // beside this process's
	cmd   *exec.Cmd
	ended chan struct{}
}

// newMachine starts a server of the test's own. At the end of the test
// everything it made on this host is taken down, and the test fails when
// something is left. What is asked of the host is asked for this server's things
// alone, so that tests with servers of their own may run side by side: they wait
// most of their time.
func newMachine(t *testing.T, args ...string) *machine {
	t.Helper()
	return newMachineWith(t, nil, args...)
}

// newMachineWith has more in the server's environment.
func newMachineWith(t *testing.T, env []string, args ...string) *machine {
	t.Helper()
	m := startMachine(t, env, args...)
	t.Cleanup(m.down)
	return m
}

func startMachine(t *testing.T, env []string, args ...string) *machine {
	t.Helper()
	m := startServer(t, env, args...)
	m.waitImage()
	return m
}

// startServer does not wait for the default snapshot.
func startServer(t *testing.T, env []string, args ...string) *machine {
	t.Helper()
	addr := enginetest.FreeAddress(t)
	home, err := os.MkdirTemp("", "ah") // short: TempDir's names are long for sockets
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, bin: binary(t), home: home, addr: addr, url: "http://" + addr, fault: filepath.Join(home, "fault"), args: args, env: env}
	m.start()
	return m
}

// start runs the server and waits until it is ready.
func (m *machine) start() {
	m.t.Helper()
	m.launch()
	m.waitReady()
}

// launch runs the server.
func (m *machine) launch() {
	m.t.Helper()
	log, err := os.OpenFile(m.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command(m.bin, append([]string{"serve", "--home", m.home, "--listen", m.addr, "--ssh-listen", "127.0.0.1:0"}, m.args...)...)
	m.cmd.Env = append(append(os.Environ(), "ATOLL_API_KEY="+machineKey, "ATOLL_FAULT_FILE="+m.fault), m.env...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func(c *exec.Cmd) { _ = c.Wait(); close(ended) }(m.cmd)
}

func (m *machine) waitReady() {
	m.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		res, err := http.Get(m.url + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-m.ended:
			daemon, _ := os.ReadFile(filepath.Join(m.home, "containerd/log"))
			m.t.Fatalf("the server ended at start:\n%s\ncontainerd:\n%s", m.log(), daemon)
		default:
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("the server is not ready after three minutes: %v\n%s", err, m.log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitImage waits for the default snapshot, which the first start on a machine
// builds.
func (m *machine) waitImage() {
	m.t.Helper()
	deadline := time.Now().Add(15 * time.Minute)
	for {
		var page struct {
			Items []struct{ Name, State string }
		}
		m.must("GET", "/api/snapshots", nil, &page)
		for _, s := range page.Items {
			if s.Name == "atoll-small" && s.State == "active" {
				return
			}
			if s.State == "error" || s.State == "build_failed" {
				m.t.Fatalf("default snapshot: %+v\n%s", s, m.log())
			}
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("no default snapshot: %+v\n%s", page, m.log())
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// kill ends the server as a power cut would end its process.
func (m *machine) kill() {
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// stop ends the server as an operator would.
func (m *machine) stop() {
	m.t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		_ = m.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines are in the log then
		<-m.ended
		b, _ := os.ReadFile(m.logPath())
		m.t.Errorf("the server did not end within a minute of SIGTERM\n%s", b)
	}
}

// down is what `make down` does, and removes the home.
func (m *machine) down() {
	if m.cmd != nil {
		m.stop()
	}
	if m.t.Failed() {
		m.t.Logf("server log:\n%s", m.log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, m.bin, "down", "--home", m.home).CombinedOutput()
	if err != nil {
		m.t.Errorf("down: %v\n%s", err, out)
		return
	}
	if left := m.leftovers(); len(left) > 0 {
		m.t.Errorf("left on the host after down:\n%s", strings.Join(left, "\n"))
		return
	}
	_ = os.RemoveAll(m.home)
}

func (m *machine) logPath() string { return filepath.Join(m.home, "test-server.log") }

// log is the end of the server's log without the calls that tests poll with.
func (m *machine) log() string {
	b, _ := os.ReadFile(m.logPath())
	var lines []string
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, "msg=request") || !strings.Contains(line, "method=GET") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// id is the server's short id, which names everything it makes on the host.
func (m *machine) id() string {
	var v struct{ ID string }
	b, _ := os.ReadFile(filepath.Join(m.home, "server.json"))
	_ = json.Unmarshal(b, &v)
	return v.ID
}

// call sends JSON to the API and returns the status and body.
func (m *machine) call(method, path string, in any) (int, []byte, error) {
	return m.callWith(method, path, in, nil)
}

// callWith is call with further headers.
func (m *machine) callWith(method, path string, in any, header map[string]string) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, m.url+path, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+machineKey)
	req.Header.Set("Content-Type", "application/json")
	for key, value := range header {
		req.Header.Set(key, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// must is call that expects success and decodes the answer.
func (m *machine) must(method, path string, in, out any) {
	m.t.Helper()
	status, b, err := m.call(method, path, in)
	if err != nil || status >= 300 {
		m.t.Fatalf("%s %s: %d %v %s", method, path, status, err, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			m.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
}

type apiSandbox struct {
	ID, Name, State, ErrorReason string
	Warm                         bool
}

func (m *machine) create(body map[string]any) apiSandbox {
	m.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	var sb apiSandbox
	m.must("POST", "/api/sandbox", body, &sb)
	return sb
}

func (m *machine) sandboxes() []apiSandbox {
	m.t.Helper()
	var page struct{ Items []apiSandbox }
	m.must("GET", "/api/sandbox?includeErroredDeleted=true", nil, &page)
	return page.Items
}

// sh runs a shell line in a sandbox and returns its exit code and output.
func (m *machine) sh(id, line string) (int, string) {
	m.t.Helper()
	var out struct {
		ExitCode int
		Result   string
	}
	m.must("POST", "/toolbox/"+id+"/process/execute", map[string]any{"command": line, "timeout": 60}, &out)
	return out.ExitCode, out.Result
}

// cli runs the command line client and returns its exit code and output.
func (m *machine) cli(args ...string) (int, string) {
	m.t.Helper()
	cmd := exec.Command(m.bin, append([]string{"--url", m.url}, args...)...)
	cmd.Env = append(os.Environ(), "ATOLL_API_KEY="+machineKey)
	out, err := cmd.CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// footprint is what a server holds on the host, by kind.
type footprint struct {
	NetNS, Mounts, Cgroups, Shims, Disks, Devices, Records []string
}

// footprint looks at the host for what carries this server's id or home.
func (m *machine) footprint() footprint {
	id := m.id()
	var f footprint
	f.NetNS = grepDir("/run/netns", id)
	f.Devices = grepDir("/sys/class/net", id)
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, m.home+"/") || strings.HasPrefix(at, "/run/atoll/"+id+"/") {
			f.Mounts = append(f.Mounts, at)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/atoll-" + id + "/*", "/sys/fs/cgroup/*/atoll-" + id + "/*"} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			if st, err := os.Stat(d); err == nil && st.IsDir() {
				f.Cgroups = append(f.Cgroups, d)
			}
		}
	}
	for _, p := range processes() {
		if strings.Contains(p, "containerd-shim") && strings.Contains(p, "/run/atoll/"+id+"/") {
			f.Shims = append(f.Shims, p)
		}
	}
	f.Disks = grepDir(filepath.Join(m.home, "pool", "disks"), "a-")
	f.Records = grepDir(filepath.Join(m.home, "instances"), ".json")
	return f
}

// counts turns a footprint into numbers, which can be compared across time.
func (f footprint) counts() map[string]int {
	return map[string]int{
		"cgroups": len(f.Cgroups), "shims": len(f.Shims), "disks": len(f.Disks), "records": len(f.Records),
	}
}

// leftovers lists what is on the host although the server was taken down.
func (m *machine) leftovers() []string {
	f := m.footprint()
	f.Disks, f.Records = nil, nil // stopped sandboxes keep these
	var left []string
	for _, list := range [][]string{f.NetNS, f.Mounts, f.Cgroups, f.Shims, f.Devices} {
		left = append(left, list...)
	}
	for _, p := range processes() {
		if strings.Contains(p, m.home) && !strings.Contains(p, " down ") {
			left = append(left, "process: "+p)
		}
	}
	if id := m.id(); id != "" {
		out, _ := exec.Command("nft", "list", "tables").Output()
		if strings.Contains(string(out), id) {
			left = append(left, "nft table of "+id)
		}
		loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, l := range loops {
			if b, _ := os.ReadFile(l); strings.Contains(string(b), m.home) {
				left = append(left, l+": "+strings.TrimSpace(string(b)))
			}
		}
	}
	sort.Strings(left)
	return left
}

func grepDir(dir, part string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if part != "" && strings.Contains(e.Name(), part) {
			names = append(names, e.Name())
		}
	}
	return names
}

func processes() []string {
	var lines []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if len(b) > 0 {
			lines = append(lines, string(bytes.ReplaceAll(b, []byte{0}, []byte(" "))))
		}
	}
	return lines
}

// eventually waits until want equals what got returns.
func eventually[T any](t tester, what string, limit time.Duration, want T, got func() T) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		diff := cmp.Diff(want, got())
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v (-want +got):\n%s", what, limit, diff)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
