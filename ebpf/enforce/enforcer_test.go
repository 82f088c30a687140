package enforce

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// shared is what most tests look at, because attaching takes a while.
var shared struct {
	once sync.Once
	dir  string // a BPF file system
	err  error
	*Enforcer
}

// open attaches the programs, for all tests once.
func open(t testing.TB) *Enforcer {
	t.Helper()
	shared.once.Do(func() {
		if shared.err = Supported(); shared.err != nil {
			return
		}
		if shared.dir, shared.err = os.MkdirTemp("", "enforce-bpf-"); shared.err != nil {
			return
		}
		if shared.err = kernel.Mount(shared.dir); shared.err == nil {
			shared.Enforcer, shared.err = Open(shared.dir)
		}
	})
	if errors.Is(shared.err, ErrUnsupported) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.Enforcer
}

// closeShared leaves nothing behind.
func closeShared() (err error) {
	if shared.Enforcer != nil {
		err = shared.Close()
	}
	if shared.dir != "" {
		err = errors.Join(err, kernel.Unmount(shared.dir))
	}
	return err
}

var lastSandbox atomic.Uint32

// set gives an agent's sandbox its rules, until the test ends.
func set(t testing.TB, e *Enforcer, a *agent, r Rules) {
	t.Helper()
	if err := e.Set(a.sandbox, a.group, r); err != nil {
		t.Fatal(err)
	}
}

// next is the next refusal of the agent's sandbox. Tests run one after the
// other, so that earlier ones are of tests that did not care.
func next(t *testing.T, e *Enforcer, a *agent) Event {
	t.Helper()
	for {
		ev, err := e.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ev.Sandbox == a.sandbox {
			return ev
		}
	}
}

// TestSupportedNamesWhatIsMissing holds on every kernel.
func TestSupportedNamesWhatIsMissing(t *testing.T) {
	if err := Supported(); err != nil && !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestPreempted(t *testing.T) {
	for _, c := range []struct {
		release, version, line string
		want                   bool
	}{
		{"6.1.0-57-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3", "quiet", false},
		{"6.1.0-57-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3", "quiet preempt=full", true},
		{"6.1.0-57-rt-amd64", "#1 SMP PREEMPT_RT Debian 6.1.192-3", "quiet", true},
		{"5.15.0", "#1 SMP PREEMPT Wed", "quiet", true},
		{"6.2.0", "#1 SMP PREEMPT Wed", "preempt=full", false},
		{"10.0", "#1 SMP PREEMPT Wed", "", false},
		{"unknown", "#1 SMP", "", true},
	} {
		if got := preempted(c.release, c.version, c.line); got != c.want {
			t.Errorf("%s %s %s: %t", c.release, c.version, c.line, got)
		}
	}
}

// tree makes files and returns their directory, as the rules see it.
func tree(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	plant(t, dir, files...)
	return dir
}

func plant(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExec(t *testing.T) {
	e, a := open(t), startAgent(t)
	dir := tree(t, "ok/tool", "bad/tool", "elsewhere/tool", "ok/blocked")
	set(t, e, a, Rules{Exec: List{Deny: true, Rules: []Rule{
		{Name: "ok", Path: dir + "/ok/**"},
		{Name: "blocked", Path: dir + "/ok/blocked", Deny: true},
		{Name: "shell", Path: "/bin/busybox"},
	}}})
	a.may("run", dir+"/ok/tool")
	a.mayNot("run", dir+"/ok/blocked")
	a.mayNot("run", dir+"/bad/tool")
	a.mayNot("memory", dir+"/ok/tool")
	a.may("symlink", dir+"/bad/tool", dir+"/ok/link")
	a.mayNot("run", dir+"/ok/link")
	a.mayNot("rename", dir+"/bad/tool", dir+"/ok/moved")
	a.mayNot("link", dir+"/ok/blocked", dir+"/ok/other")
	a.may("rename", dir+"/bad/tool", dir+"/bad/moved")
	a.may("rename", dir+"/elsewhere", dir+"/further")
	a.mayNot("rename", dir+"/further", dir+"/ok/further")

	// The interpreter of a script counts as well.
	set(t, e, a, Rules{Exec: List{Deny: true, Rules: []Rule{{Path: dir + "/ok/*"}}}})
	a.mayNot("run", dir+"/ok/tool")
	set(t, e, a, Rules{})
	a.may("run", dir+"/ok/tool")
}

func TestWriting(t *testing.T) {
	e, a := open(t), startAgent(t)
	check := func(t *testing.T, dir string) {
		plant(t, dir, "home/file", "home/keep/secret", "home/x", "home/y", "etc/passwd")
		set(t, e, a, Rules{Write: List{Deny: true, Rules: []Rule{
			{Name: "home", Path: dir + "/home/**"},
			{Name: "keep", Path: dir + "/home/keep/secret", Deny: true},
		}}})
		home, etc := dir+"/home/", dir+"/etc/"
		for _, act := range []string{"write", "change", "empty", "again", "truncate", "chmod", "chown"} {
			a.may(act, home+"file")
			a.mayNot(act, etc+"passwd")
			a.mayNot(act, home+"keep/secret")
		}
		for _, act := range []string{"create", "mkdir", "mkfifo", "bind"} {
			a.may(act, home+act)
			a.mayNot(act, etc+act)
		}
		a.may("write", os.DevNull)
		a.may("read", etc+"passwd")
		a.may("run", etc+"passwd")
		a.mayNot("unlink", etc+"passwd")
		a.may("rmdir", home+"mkdir")
		a.mayNot("rmdir", dir+"/etc")
		a.may("symlink", etc+"passwd", home+"link")
		a.mayNot("write", home+"link")
		a.mayNot("symlink", home+"file", etc+"link")
		a.mayNot("link", etc+"passwd", home+"hard")
		a.mayNot("link", home+"file", etc+"hard")
		a.may("link", home+"file", home+"hard")
		a.mayNot("rename", etc+"passwd", home+"moved")
		a.mayNot("rename", home+"file", etc+"passwd")
		a.mayNot("rename", home+"keep", home+"kept")
		a.mayNot("exchange", home+"x", home+"keep")
		a.may("exchange", home+"x", home+"y")
		a.may("rename", home+"x", home+"z")
		a.may("unlink", home+"z")
	}
	t.Run("plain", func(t *testing.T) { check(t, t.TempDir()) })
	// What an overlay does to the file systems below it is not the sandbox's
	// doing, and the paths of the sandbox are those of the overlay.
	t.Run("overlay", func(t *testing.T) {
		dir := t.TempDir()
		lower, merged := filepath.Join(dir, "lower"), filepath.Join(dir, "merged")
		for _, d := range []string{"lower", "upper", "work", "merged"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		plant(t, lower, "home/file", "home/keep/secret", "etc/passwd")
		opt := "lowerdir=" + lower + ",upperdir=" + dir + "/upper,workdir=" + dir + "/work"
		if err := unix.Mount("overlay", merged, "overlay", 0, opt); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(merged, 0); err != nil {
				t.Error(err)
			}
		})
		check(t, merged)
	})
}

func TestReading(t *testing.T) {
	e, a := open(t), startAgent(t)
	dir := tree(t, "shadow", "passwd", "sub/file", "one", "key-1")
	set(t, e, a, Rules{Read: List{Rules: []Rule{
		{Name: "shadow", Path: dir + "/shadow", Deny: true},
		{Name: "one", Path: dir + "/one", Deny: true},
		{Name: "two", Path: dir + "/two", Deny: true},
		{Name: "keys", Path: dir + "/key-*", Deny: true},
	}}})
	a.may("read", dir+"/passwd")
	a.may("write", dir+"/shadow")
	a.mayNot("read", dir+"/shadow")
	a.mayNot("change", dir+"/shadow")
	a.mayNot("link", dir+"/shadow", dir+"/copy")
	a.mayNot("rename", dir+"/shadow", dir+"/copy")
	a.mayNot("rename", dir+"/one", dir+"/two")
	a.may("rename", dir+"/key-1", dir+"/key-2")
	a.mayNot("exchange", dir+"/passwd", dir+"/shadow")
	a.may("rename", dir+"/sub", dir+"/moved")
	a.mayNot("rename", dir, dir+"-moved")
	a.may("rename", dir+"/passwd", dir+"/shadow")
	a.mayNot("read", dir+"/shadow")
}

func TestTooDeepIsRefused(t *testing.T) {
	e, a := open(t), startAgent(t)
	dir := tree(t)
	set(t, e, a, Rules{Write: List{Rules: []Rule{{Name: "one", Path: "/nothing", Deny: true}}}})
	a.mayNot("deep", dir)
	ev := next(t, e, a)
	if ev.Why != Unjudged || ev.Op != OpMkdir || ev.Rule != "" {
		t.Errorf("got %+v", ev)
	}
}

func TestEventsNameTheRule(t *testing.T) {
	e, a := open(t), startAgent(t)
	dir := tree(t, "a", "b")
	set(t, e, a, Rules{
		Write: List{Deny: true, Rules: []Rule{{Name: "first", Path: dir + "/b"}}},
		Exec:  List{Rules: []Rule{{Name: "second", Path: dir + "/b", Deny: true}}},
	})
	a.mayNot("write", dir+"/a")
	a.mayNot("run", dir+"/b")
	a.mayNot("rename", dir+"/b", dir+"/a")
	ev := next(t, e, a)
	if ev.Op != OpOpen || ev.Access != Write || ev.Path != dir+"/a" || ev.Rule != "" || ev.Process == 0 || ev.Command == "" || ev.Time <= 0 {
		t.Errorf("got %+v", ev)
	}
	if ev = next(t, e, a); ev.Op != OpExec || ev.Access != Exec || ev.Path != dir+"/b" || ev.Rule != "second" || ev.Why != ByRule {
		t.Errorf("got %+v", ev)
	}
	if ev = next(t, e, a); ev.Op != OpRename || ev.Access != Write || ev.Path != dir+"/a" {
		t.Errorf("got %+v", ev)
	}
	if s, err := e.Stats(a.sandbox); err != nil || s.Denied != 3 || s.Lost != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestReadEndsWithItsContext has a reader wait for nothing. A server that ends
// waits for it.
func TestReadEndsWithItsContext(t *testing.T) {
	e, a := open(t), startAgent(t)
	dir := tree(t, "a")
	set(t, e, a, Rules{Write: List{Deny: true}})
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		for ctx.Err() == nil { // what earlier tests left comes first
			if _, err := e.Read(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		cancel()
	}
	a.mayNot("write", dir+"/a")
	if ev := next(t, e, a); ev.Path != dir+"/a" {
		t.Errorf("got %+v", ev)
	}
}

func TestRefusalsAddUp(t *testing.T) {
	const n = 2000
	e, a := open(t), startAgent(t)
	dir := tree(t, "a")
	set(t, e, a, Rules{Write: List{Deny: true}})
	a.mayNot("writes", dir+"/a", strconv.Itoa(n))
	s, err := e.Stats(a.sandbox)
	if err != nil || s.Denied != n || s.Lost == 0 {
		t.Fatalf("got %+v, %v", s, err)
	}
	for range s.Denied - s.Lost {
		next(t, e, a)
	}
}

func TestOthersAreNotJudged(t *testing.T) {
	e, a, b := open(t), startAgent(t), startAgent(t)
	dir := tree(t, "a")
	set(t, e, a, Rules{Write: List{Deny: true}})
	set(t, e, b, Rules{Write: List{Rules: []Rule{{Path: dir + "/b", Deny: true}}}})
	if err := open1(dir+"/a", unix.O_WRONLY); err != nil {
		t.Error(err)
	}
	a.mayNot("write", dir+"/a")
	b.may("write", dir+"/a")
	b.mayNot("create", dir+"/b")
	if err := e.Remove(a.sandbox); err != nil {
		t.Error(err)
	}
	a.may("write", dir+"/a")
	b.mayNot("create", dir+"/b")
}

func TestSetFailsWhole(t *testing.T) {
	e, a := open(t), startAgent(t)
	dir := tree(t, "a")
	old := Rules{Write: List{Deny: true}}
	set(t, e, a, old)
	for name, err := range map[string]error{
		"number": e.Set(0, a.group, old),
		"group":  e.Set(a.sandbox, dir, Rules{}),
		"rules":  e.Set(a.sandbox, a.group, Rules{Exec: List{Rules: []Rule{{Path: "/x"}}}, Read: List{Rules: []Rule{{}}}}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	a.mayNot("write", dir+"/a")
	if err := e.Remove(1 << 30); err != nil {
		t.Error(err)
	}
}

// TestRulesOutliveTheProcess closes and opens again, as a server does that dies.
func TestRulesOutliveTheProcess(t *testing.T) {
	e, a, b := open(t), startAgent(t), startAgent(t)
	dir := tree(t, "a", "b")
	set(t, e, a, Rules{Write: List{Deny: true}})
	set(t, e, b, Rules{Write: List{Deny: true}})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Read(t.Context()); err != os.ErrClosed {
		t.Errorf("got %v", err)
	}
	a.mayNot("write", dir+"/a")

	e, err := Open(shared.dir)
	if err != nil {
		t.Fatal(err)
	}
	shared.Enforcer = e
	a.mayNot("write", dir+"/a")
	if ev := next(t, e, a); ev.Path != dir+"/a" {
		t.Errorf("got %+v", ev)
	}
	if n, err := e.Number(a.group); err != nil || n != a.sandbox {
		t.Errorf("the group is of %d, %v; want %d", n, err, a.sandbox)
	}
	if last := e.Last(); last != b.sandbox {
		t.Errorf("the last is %d, want %d", last, b.sandbox)
	}
	// The group is what stays when the next process counts anew.
	a.sandbox = lastSandbox.Add(1)
	set(t, e, a, Rules{Write: List{Rules: []Rule{{Path: dir + "/a", Deny: true}}}})
	b.mayNot("write", dir+"/b")
	home := filepath.Join(shared.dir, "enforce")
	if err := os.MkdirAll(filepath.Join(home, "older", "links"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.Settle(); err != nil {
		t.Fatal(err)
	}
	a.mayNot("write", dir+"/a")
	a.may("write", dir+"/b")
	b.may("write", dir+"/b")
	versions, err := os.ReadDir(home)
	if err != nil || len(versions) != 1 {
		t.Errorf("%d versions, %v", len(versions), err)
	}
}

// TestChangesLeaveNoGap has two sandboxes get other rules again and again. All
// of them refuse one file; those of the other sandbox do not.
func TestChangesLeaveNoGap(t *testing.T) {
	e, a, b := open(t), startAgent(t), startAgent(t)
	dir := tree(t, "file")
	one := Rules{Write: List{Deny: true, Rules: []Rule{{Path: dir + "/other"}}}}
	two := Rules{Write: List{Rules: []Rule{{Path: dir + "/f*", Deny: true}}}}
	free := Rules{Write: List{Rules: []Rule{{Path: dir + "/other", Deny: true}}}}
	set(t, e, a, one)
	done := make(chan unix.Errno)
	go func() { done <- a.do("tries", dir+"/file", "20000") }()
	for {
		select {
		case errno := <-done:
			if errno != unix.EPERM {
				t.Errorf("error number %d, want EPERM", int(errno))
			}
			return
		default:
		}
		set(t, e, b, free)
		set(t, e, a, two)
		set(t, e, b, one)
		set(t, e, a, one)
	}
}

// TestAutomataAreShared is about the table in the kernel: it must not grow.
func TestAutomataAreShared(t *testing.T) {
	e, a, b := open(t), startAgent(t), startAgent(t)
	count := func() (n int) {
		var k, v uint32
		for it := e.maps.Automata.Iterate(); it.Next(&k, &v); {
			n++
		}
		return n
	}
	before := count()
	same := Rules{Write: List{Deny: true, Rules: []Rule{{Path: "/same"}}}}
	set(t, e, a, same)
	set(t, e, b, same)
	if n := count(); n != before+1 {
		t.Errorf("%d automata more, want 1", n-before)
	}
	for i := range 2 * keepIdle {
		set(t, e, a, Rules{Write: List{Deny: true, Rules: []Rule{{Path: "/other/" + string(rune('a'+i%26)) + string(rune('a'+i/26))}}}})
	}
	if n := count(); n > keepIdle+2 {
		t.Errorf("%d automata, want at most %d", n, keepIdle+2)
	}
}
