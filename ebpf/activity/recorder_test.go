package activity

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets the test binary also be the program that runs in a sandbox.
func TestMain(m *testing.M) {
	if do := workloads[os.Getenv("ACTIVITY_WORKLOAD")]; do != nil {
		do(os.Args[1:])
		os.Exit(0)
	}
	code := m.Run()
	if shared.stream != nil {
		if err := shared.stream.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the recorder of most tests, because detaching takes seconds.
var shared struct {
	once   sync.Once
	stream *stream
	err    error
}

var lastSandbox atomic.Uint32

// stream keeps what a recorder told, by sandbox.
type stream struct {
	r    *Recorder
	done chan error

	mu     sync.Mutex
	events map[uint32][]Event
}

func newStream(r *Recorder) *stream {
	s := &stream{r: r, done: make(chan error, 1), events: map[uint32][]Event{}}
	go func() {
		for {
			e, err := r.Read()
			if err != nil {
				s.done <- err
				return
			}
			s.mu.Lock()
			s.events[e.Sandbox] = append(s.events[e.Sandbox], e)
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *stream) close() error {
	err := s.r.Close()
	if read := <-s.done; read != os.ErrClosed && err == nil {
		err = fmt.Errorf("the reader ended with %w", read)
	}
	return err
}

func (s *stream) of(sandbox uint32) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events[sandbox])
}

// sandboxed is a control group of the test's own.
type sandboxed struct {
	*stream
	t      *testing.T
	dir    string
	number uint32
}

// hierarchies are the trees of control groups that this host has.
func hierarchies() map[string]string {
	found := map[string]string{}
	for _, h := range []struct{ name, dir, file string }{
		{"version2", "/sys/fs/cgroup", "cgroup.controllers"},
		{"version2", "/sys/fs/cgroup/unified", "cgroup.controllers"},
		{"version1", "/sys/fs/cgroup/pids", "cgroup.sane_behavior"},
	} {
		if _, err := os.Stat(filepath.Join(h.dir, h.file)); err == nil {
			found[h.name] = h.dir
		}
	}
	return found
}

// makeGroup makes a control group two levels down, as drivers do.
func makeGroup(t testing.TB, root string) string {
	t.Helper()
	parent, err := os.MkdirTemp(root, "activity-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGroup(t, parent) })
	return makeChild(t, parent, "one")
}

func makeChild(t testing.TB, parent, name string) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGroup(t, dir) })
	return dir
}

// removeGroup waits for the kernel to let go of processes that just ended.
func removeGroup(t testing.TB, dir string) {
	var err error
	for range 6000 {
		if err = os.Remove(dir); err == nil || os.IsNotExist(err) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(err)
}

func anyHierarchy(t testing.TB) string {
	t.Helper()
	for _, dir := range hierarchies() {
		return dir
	}
	t.Fatal("no tree of control groups")
	return ""
}

// sandbox makes a watched control group in a tree; "" means any.
func sandbox(t *testing.T, root string) *sandboxed {
	t.Helper()
	shared.once.Do(func() {
		var r *Recorder
		if r, shared.err = Open(Options{}); shared.err == nil {
			shared.stream = newStream(r)
		}
	})
	if shared.err != nil {
		t.Fatalf("%+v", shared.err)
	}
	return shared.stream.sandbox(t, root)
}

func (s *stream) sandbox(t *testing.T, root string) *sandboxed {
	t.Helper()
	if root == "" {
		root = anyHierarchy(t)
	}
	b := &sandboxed{stream: s, t: t, dir: makeGroup(t, root), number: lastSandbox.Add(1)}
	if err := s.r.Add(b.dir, b.number); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.r.Remove(b.number); err != nil {
			t.Error(err)
		}
	})
	return b
}

// command is a program that enters the control group before it starts.
func (b *sandboxed) command(name string, args ...string) *exec.Cmd {
	return entering(b.t, b.dir, name, args...)
}

func entering(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	script := `echo $$ >"$0/cgroup.procs" && exec "$@"`
	c := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", script, dir, name}, args...)...)
	c.Stderr = os.Stderr
	return c
}

func (b *sandboxed) run(name string, args ...string) {
	b.t.Helper()
	if err := b.command(name, args...).Run(); err != nil {
		b.t.Fatalf("%s %q: %v", name, args, err)
	}
}

// work runs a workload of this binary.
func (b *sandboxed) work(name string, args ...string) {
	b.t.Helper()
	if err := b.workload(name, args...).Run(); err != nil {
		b.t.Fatalf("workload %s: %v", name, err)
	}
}

func (b *sandboxed) workload(name string, args ...string) *exec.Cmd {
	c := b.command(self(b.t), args...)
	c.Env = append(os.Environ(), "ACTIVITY_WORKLOAD="+name)
	return c
}

// joining is a workload that enters the control group itself, by enter, so that
// nothing of its beginning is told.
func (b *sandboxed) joining(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(b.t.Context(), self(b.t), append([]string{filepath.Join(b.dir, "cgroup.procs")}, args...)...)
	c.Env = append(os.Environ(), "ACTIVITY_WORKLOAD="+name)
	c.Stderr = os.Stderr
	return c
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// enter moves a joining workload and returns its other arguments.
func enter(args []string) []string {
	check(os.WriteFile(args[0], []byte(strconv.Itoa(os.Getpid())), 0))
	return args[1:]
}

// all waits until everything that was told to the kernel is read, and returns it.
func (b *sandboxed) all() []Event {
	b.t.Helper()
	// What happened to files by now comes with the next look, or the one after.
	looks := b.r.rounds.Load() + 2
	for range 3000 {
		s, err := b.r.Stats(b.number)
		if err != nil {
			b.t.Fatal(err)
		}
		events := b.of(b.number)
		if told, lost := count(events); told == s.Events && lost == s.Lost && b.r.rounds.Load() >= looks {
			return events
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("the events of sandbox %d do not add up", b.number)
	return nil
}

// count counts events of programs, and those that were lost.
func count(events []Event) (told, lost uint64) {
	for _, e := range events {
		switch e.Kind {
		case KindLost:
			lost += e.Lost
		case KindGap:
		default:
			told++
		}
	}
	return told, lost
}

// only returns the events of these kinds.
func only(events []Event, kinds ...Kind) []Event {
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return !slices.Contains(kinds, e.Kind) })
}

func eachHierarchy(t *testing.T, test func(t *testing.T, root string)) {
	for name, root := range hierarchies() {
		t.Run(name, func(t *testing.T) { test(t, root) })
	}
}

func TestAddRefusesWhatIsNoGroup(t *testing.T) {
	b := sandbox(t, "")
	for _, dir := range []string{t.TempDir(), "/proc", "/nowhere", anyHierarchy(t)} {
		if err := b.r.Add(dir, 1<<20); err == nil {
			t.Errorf("%s was added", dir)
		}
	}
	if err := b.r.Add(b.dir, 0); err == nil {
		t.Error("sandbox 0 was added")
	}
	if err := b.r.Remove(1 << 20); err != nil {
		t.Errorf("an unknown sandbox: %v", err)
	}
}

func TestOpenRefusesSizes(t *testing.T) {
	for _, o := range []Options{{Buffer: 5000}, {Buffer: 1}, {Buffer: -4096}, {Budget: -1}} {
		if _, err := Open(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestOutsideIsNotSeen(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, root string) {
		b := sandbox(t, root)
		outside := makeChild(t, filepath.Dir(b.dir), "other")
		out := exec.CommandContext(t.Context(), "/bin/sh", "-c", "/bin/true outside; : >"+filepath.Join(t.TempDir(), "file"))
		if err := out.Run(); err != nil {
			t.Fatal(err)
		}
		if err := entering(t, outside, "/bin/true", "sibling").Run(); err != nil {
			t.Fatal(err)
		}
		b.run("/bin/true", "inside")
		got := only(b.all(), KindExec)
		if len(got) != 1 || !slices.Equal(got[0].Args, []string{"/bin/true", "inside"}) {
			t.Errorf("got %+v", got)
		}
		if none := b.of(0); len(none) != 0 {
			t.Errorf("events of no sandbox: %+v", none)
		}
	})
}

func TestGroupsBelowCount(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, root string) {
		b := sandbox(t, root)
		below := makeChild(t, makeChild(t, b.dir, "a"), "b")
		if err := entering(t, below, "/bin/true", "below").Run(); err != nil {
			t.Fatal(err)
		}
		if got := only(b.all(), KindExec, KindExit); len(got) != 2 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestRemovedIsNotSeen(t *testing.T) {
	b := sandbox(t, "")
	b.run("/bin/true")
	before := len(b.all())
	if err := b.r.Remove(b.number); err != nil {
		t.Fatal(err)
	}
	b.run("/bin/true")
	other := sandbox(t, "")
	other.run("/bin/true")
	other.all()
	if after := len(b.of(b.number)); after != before {
		t.Errorf("%d events after removal", after-before)
	}
}

func TestGapIsTold(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, root string) {
		first := sandbox(t, root)
		c := first.command("/bin/cat")
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for len(only(first.all(), KindExec)) == 0 {
			time.Sleep(time.Millisecond)
		}
		later := *first
		later.number = lastSandbox.Add(1)
		if err := first.r.Add(first.dir, later.number); err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		got := later.all()
		if len(got) != 2 || got[0].Kind != KindGap || got[0].Running != 1 || got[1].Kind != KindExit {
			t.Errorf("got %+v", got)
		}
		if err := first.r.Remove(later.number); err != nil {
			t.Fatal(err)
		}
	})
}
