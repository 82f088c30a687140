package trace

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/enginetest/attack"
	toolboxprocess "github.com/atoll-sh/atoll/engine/toolbox/process"
)

// attacks are the rows of attack.json.
var attacks attack.Verdicts

// TestMain lets the test binary also be a toolbox, and what runs in a sandbox.
func TestMain(m *testing.M) {
	if role := roles[os.Getenv("TRACE_ROLE")]; role != nil {
		role(os.Args[1:])
		os.Exit(0)
	}
	code := m.Run()
	if shared.tracer != nil {
		shared.close()
	}
	if err := attacks.Report(); err != nil {
		fmt.Fprintln(os.Stderr, "write the attacks' results:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// order is what a toolbox is asked to run.
type order struct {
	Call string
	Argv []string
	Env  []string
}

// beToolbox is process 1 of a sandbox: it joins the control group and runs what
// it is asked for, as the real one does.
func beToolbox(args []string) {
	group, socket := args[0], args[1]
	check(os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0))
	table := toolboxprocess.NewTable(true)
	table.Calls = toolboxprocess.NewCalls(socket)
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Buffer(nil, 1<<22); in.Scan(); {
		var o order
		check(json.Unmarshal(in.Bytes(), &o))
		c, err := table.Start(toolboxprocess.Spec{Path: o.Argv[0], Argv: o.Argv, Env: o.Env, Dir: "/", Files: []int{2, 2, 2}, Call: o.Call})
		check(err)
		fmt.Println(c.Exit().Code)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// shared is the tracer of all tests, and the ledger that it tells.
var shared struct {
	sync.Once
	tracer *Tracer
	ledger *activity.Ledger
	dir    string
	err    error
	close  func()
}

func key32() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func openShared() error {
	dir, err := os.MkdirTemp("", "trace")
	if err != nil {
		return err
	}
	shared.dir = filepath.Join(dir, "ledger")
	l, err := activity.Open(activity.Config{Dir: shared.dir, Key: key32(), KeepBytes: 4 << 30})
	if err != nil {
		return err
	}
	tr, err := Open(Options{}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	shared.tracer, shared.ledger = tr, l
	ctx, stop := contextUntil()
	var run sync.WaitGroup
	run.Go(func() { _ = tr.Run(ctx, l.Record) })
	shared.close = func() {
		stop()
		run.Wait()
		_ = tr.Close()
		l.Close()
		_ = os.RemoveAll(dir)
	}
	return nil
}

// box is a sandbox.
type box struct {
	t     testing.TB
	id    string
	calls int
	in    io.Writer
	out   *bufio.Reader
}

// groups is where control groups can be made.
func groups() string {
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	return ""
}

var boxes int

func newBox(t testing.TB) *box {
	t.Helper()
	shared.Do(func() { shared.err = openShared() })
	if engine.KindOf(shared.err) == engine.KindUnsupported {
		t.Skip(shared.err)
	}
	must(t, shared.err)
	boxes++
	b := &box{t: t, id: fmt.Sprintf("box-%d-%d", os.Getpid(), boxes)}
	parent := filepath.Join(groups(), "trace-test-"+b.id)
	group, control := filepath.Join(parent, "a"), t.TempDir()
	must(t, os.MkdirAll(group, 0o755))
	must(t, shared.tracer.Begin(b.id, Group{Dir: group, Control: control}))
	cmd := exec.Command("/proc/self/exe", group, filepath.Join(control, "toolbox.sock"))
	cmd.Env = append(os.Environ(), "TRACE_ROLE=toolbox")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	var err error
	b.in, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	b.out = bufio.NewReader(out)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		shared.tracer.End(b.id)
		for _, dir := range []string{group, parent} {
			for end := time.Now().Add(patienceOfTests); ; time.Sleep(5 * time.Millisecond) {
				if err := os.Remove(dir); err == nil || time.Now().After(end) {
					break
				}
			}
		}
	})
	b.line()
	shared.tracer.Started(b.id, cmd.Process.Pid)
	shared.tracer.Bind(b.id, b.id, 1)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *box) line() string {
	b.t.Helper()
	line, err := b.out.ReadString('\n')
	must(b.t, err)
	return strings.TrimSpace(line)
}

// run runs a program for a call of its own, to its end.
func (b *box) run(argv ...string) (call string) {
	b.t.Helper()
	return b.runAs("", argv...)
}

// runAs runs this binary in a role.
func (b *box) runAs(role string, argv ...string) (call string) {
	b.t.Helper()
	b.calls++
	o := order{Call: fmt.Sprintf("call-%d", b.calls), Argv: argv, Env: []string{"PATH=/usr/bin:/bin"}}
	if role != "" {
		o.Env = append(o.Env, "TRACE_ROLE="+role)
	}
	text, err := json.Marshal(o)
	must(b.t, err)
	_, err = b.in.Write(append(text, '\n'))
	must(b.t, err)
	if code := b.line(); code != "0" {
		b.t.Fatalf("%v: exit %s", argv, code)
	}
	return o.Call
}

// records returns all that the ledger has of the sandbox.
func (b *box) records() (all []engine.ActivityRecord) {
	b.t.Helper()
	for after := uint64(0); ; {
		page, err := shared.ledger.Query(b.t.Context(), b.id, engine.ActivityQuery{Limit: 1000, After: after})
		if engine.KindOf(err) == engine.KindNotFound {
			return nil
		}
		must(b.t, err)
		all = append(all, page.Items...)
		if !page.More {
			return all
		}
		after = page.Next
	}
}

// patienceOfTests is how long a record is waited for on a busy machine.
const patienceOfTests = time.Minute

// seen waits for a record.
func (b *box) seen(want func(engine.ActivityRecord) bool) (engine.ActivityRecord, error) {
	b.t.Helper()
	for end := time.Now().Add(patienceOfTests); ; time.Sleep(20 * time.Millisecond) {
		all := b.records()
		for _, r := range all {
			if want(r) {
				return r, nil
			}
		}
		if time.Now().After(end) {
			text := ""
			for _, r := range all {
				line, _ := json.Marshal(r)
				text += "\n" + string(line)
			}
			return engine.ActivityRecord{}, fmt.Errorf("nothing was recorded of it; there is%s", text)
		}
	}
}
