package trace

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/enginetest/attack"
)

// hiding is one way in which a process might do something that the ledger does
// not tell of.
type hiding struct {
	name, story string
	// try returns the call that did it and what the record must be, besides.
	try func(b *box, dir string) (call string, seen func(engine.ActivityRecord) bool)
}

func program(name string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool { return r.Kind == engine.ActivityExec && r.Program == name }
}

func truth(t testing.TB) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/true")
	must(t, err)
	return path
}

func install(t testing.TB, path string, b []byte) string {
	t.Helper()
	path = filepath.Join(realDir(t, filepath.Dir(path)), filepath.Base(path))
	must(t, os.WriteFile(path, b, 0o755))
	return path
}

func realDir(t testing.TB, dir string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	must(t, err)
	return dir
}

func hidings() []hiding {
	return []hiding{
		{"memfd-exec", "a program that lies in memory alone, under an innocent name", func(b *box, _ string) (string, func(engine.ActivityRecord) bool) {
			return b.runAs("memfd", "/proc/self/exe"), func(r engine.ActivityRecord) bool {
				return r.Kind == engine.ActivityExec && strings.Contains(r.Program, "hidden") && strings.Contains(r.Reason, "memfd")
			}
		}},
		{"loader", "a program that is only an argument of the dynamic loader", func(b *box, _ string) (string, func(engine.ActivityRecord) bool) {
			loaders, _ := filepath.Glob("/lib*/ld-linux-*.so.*")
			if len(loaders) == 0 {
				b.t.Skip("this machine has no dynamic loader")
			}
			return b.run(loaders[0], "/bin/true"), func(r engine.ActivityRecord) bool {
				return r.Kind == engine.ActivityExec && r.Detail == loaders[0]+" /bin/true"
			}
		}},
		{"renamed", "a copy of a program under another name, which calls itself by a third", func(b *box, dir string) (string, func(engine.ActivityRecord) bool) {
			text, err := os.ReadFile("/bin/true")
			must(b.t, err)
			path := install(b.t, filepath.Join(dir, "harmless"), text)
			call := b.runAs("restart", "/proc/self/exe", path, "kworker/0:1")
			return call, func(r engine.ActivityRecord) bool { return program(path)(r) && r.Detail == "kworker/0:1" }
		}},
		{"brief", "a process that lives for less than a millisecond", func(b *box, dir string) (string, func(engine.ActivityRecord) bool) {
			path := install(b.t, filepath.Join(dir, "brief"), nothing())
			return b.run(path), program(path)
		}},
		{"double-fork", "a process whose parents are gone before it begins its work", func(b *box, dir string) (string, func(engine.ActivityRecord) bool) {
			path := install(b.t, filepath.Join(dir, "orphan"), nothing())
			script := fmt.Sprintf("while kill -0 $1 2>/dev/null; do sleep 0.02; done; %s", path)
			return b.run("/bin/sh", "-c", `sh -c 'sh -c "$2" x "$1" &' x $$ "$1" &`, "x", script), program(path)
		}},
		{"ptrace", "one process takes hold of another, to work in its name", func(b *box, _ string) (string, func(engine.ActivityRecord) bool) {
			return b.runAs("ptrace", "/proc/self/exe"), func(r engine.ActivityRecord) bool {
				return r.Kind == engine.ActivityPrivilege && strings.Contains(r.Operation, "ptrace")
			}
		}},
		{"long-arguments", "what matters stands behind 100 kB of arguments", func(b *box, _ string) (string, func(engine.ActivityRecord) bool) {
			return b.run("/bin/true", strings.Repeat("x", 100_000), "--steal"), func(r engine.ActivityRecord) bool {
				return program(truth(b.t))(r) && r.Cut && strings.Contains(r.Reason, "1000") // of bytes in all
			}
		}},
	}
}

// TestAttacksHidden runs what tries not to be seen. Each must be in the ledger,
// with the call that caused it.
func TestAttacksHidden(t *testing.T) {
	for _, h := range hidings() {
		t.Run(h.name, func(t *testing.T) {
			b := newBox(t)
			call, seen := h.try(b, t.TempDir())
			r, err := b.seen(func(r engine.ActivityRecord) bool { return r.Call == call && seen(r) })
			v := attack.Verdict{Name: h.name, Group: "ledger", Class: "container", Blocked: err == nil, Detail: h.story, Event: event(r)}
			if err != nil {
				v.Detail = "NOT SEEN: " + err.Error()
			}
			attacks.Add(t, v)
		})
	}
}

// TestAttacksOnSockets tries a Unix socket of the host without a file, as
// container runtimes have had for their shims. Nothing leaves the sandbox's
// network, so that the process which tried is what there is to tell.
func TestAttacksOnSockets(t *testing.T) {
	b := newBox(t)
	const socket = "@atoll-attack/shim"
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	if c, err := net.Dial("unix", socket); err != nil {
		t.Fatalf("no such socket, so nothing is proven: %v", err)
	} else {
		c.Close()
	}
	got := filepath.Join(t.TempDir(), "got")
	call := b.runAs("knock", "/proc/self/exe", socket, got)
	r, err := b.seen(func(r engine.ActivityRecord) bool {
		return r.Call == call && r.Kind == engine.ActivityExec && strings.Contains(r.Detail, socket)
	})
	v := attack.Verdict{Name: "abstract-sockets", Group: "host", Class: "container", Event: event(r), Detail: "Unix sockets without a file, as container runtimes have had for their shims"}
	switch _, open := os.Stat(got); {
	case open == nil:
		v.Detail = "LEAK: connected"
	case err != nil:
		v.Detail = "NOT SEEN: " + err.Error()
	default:
		v.Blocked = true
	}
	attacks.Add(t, v)
}

func event(r engine.ActivityRecord) string {
	if r.Sequence == 0 {
		return ""
	}
	return fmt.Sprintf("%s/%d", r.Sandbox, r.Sequence)
}

// floods is how many programs a flood starts: what was promised when it counts,
// and fewer in passing.
func floods() int {
	if os.Getenv("ATOLL_ATTACK_JSON") != "" {
		return 100_000
	}
	return 5_000
}

// TestAttacksFlood starts more programs than can be told of one by one. What
// the ledger tells, and what it says is missing, must be all.
func TestAttacksFlood(t *testing.T) {
	b, n := newBox(t), floods()
	path := install(t, filepath.Join(t.TempDir(), "nothing"), nothing())
	b.runAs("flood", "/proc/self/exe", path, strconv.Itoa(n))
	want := 2*n + 2 // the flood's own begin and end
	var told, lost int
	var last engine.ActivityRecord
	for end := time.Now().Add(patienceOfTests); told+lost < want && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		told, lost = 0, 0
		for _, r := range b.records() {
			switch {
			case r.Kind == engine.ActivityLoss:
				lost += int(r.Lost)
				last = r
			case r.Kind == engine.ActivityExec || r.Kind == engine.ActivityExit:
				if told++; last.Kind != engine.ActivityLoss {
					last = r
				}
			}
		}
	}
	v := attack.Verdict{Name: "exec-flood", Group: "ledger", Class: "container", Blocked: told+lost == want, Event: event(last)}
	v.Detail = fmt.Sprintf("%d programs in a row: %d records, and %d told as lost, of %d", n, told, lost, want)
	if !v.Blocked {
		t.Logf("half told: %v", halves(b.records()))
	}
	attacks.Add(t, v)
}

// halves are the processes whose begin or end is missing.
func halves(all []engine.ActivityRecord) (half []engine.ActivityRecord) {
	seen := map[string][]engine.ActivityRecord{}
	for _, r := range all {
		if r.Kind == engine.ActivityExec || r.Kind == engine.ActivityExit {
			seen[r.Process] = append(seen[r.Process], r)
		}
	}
	for _, rs := range seen {
		if len(rs) != 2 && len(half) < 5 {
			half = append(half, rs...)
		}
	}
	return half
}

// TestAttacksOnTheLedger changes a ledger's files while no server runs. The
// next one must notice.
func TestAttacksOnTheLedger(t *testing.T) {
	const sandbox = "box"
	for _, a := range []struct {
		name, story string
		change      func(t *testing.T, dir, earlier string)
	}{
		{"edited", "one record is changed in its place", func(t *testing.T, dir, _ string) {
			edit(t, dir, sandbox, func(lines []string) []string {
				lines[3] = strings.Replace(lines[3], "command", "comment", 1)
				return lines
			})
		}},
		{"reordered", "two records change places", func(t *testing.T, dir, _ string) {
			edit(t, dir, sandbox, func(lines []string) []string {
				lines[3], lines[4] = lines[4], lines[3]
				return lines
			})
		}},
		{"removed", "one record is taken out", func(t *testing.T, dir, _ string) {
			edit(t, dir, sandbox, func(lines []string) []string { return append(lines[:3], lines[4:]...) })
		}},
		{"truncated", "the last records are cut off", func(t *testing.T, dir, _ string) {
			edit(t, dir, sandbox, func(lines []string) []string { return lines[:len(lines)-2] })
		}},
		{"rolled-back", "files and heads are put back to what they were earlier", func(t *testing.T, dir, earlier string) {
			must(t, os.RemoveAll(dir))
			must(t, os.CopyFS(dir, os.DirFS(earlier)))
		}},
	} {
		t.Run(a.name, func(t *testing.T) {
			dir, earlier := filepath.Join(t.TempDir(), "l"), filepath.Join(t.TempDir(), "e")
			tell(t, dir, sandbox, 0, 10)
			must(t, os.CopyFS(earlier, os.DirFS(dir)))
			known := tell(t, dir, sandbox, 10, 20)
			a.change(t, dir, earlier)
			l := openLedger(t, dir)
			p, err := l.Verify(t.Context(), sandbox, &known)
			must(t, err)
			v := attack.Verdict{Name: a.name, Group: "ledger", Class: "any", Blocked: p.Fault != nil, Detail: a.story}
			if p.Fault != nil {
				v.Event = fmt.Sprintf("%s/%d", sandbox, p.Fault.Sequence)
			} else {
				v.Detail = "NOT NOTICED: " + a.story
			}
			attacks.Add(t, v)
		})
	}
}

func openLedger(t *testing.T, dir string) *activity.Ledger {
	t.Helper()
	l, err := activity.Open(activity.Config{Dir: dir, Key: key32()})
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// tell records commands and returns the head, which somebody keeps elsewhere.
func tell(t *testing.T, dir, sandbox string, from, to int) engine.ActivityHead {
	t.Helper()
	l, err := activity.Open(activity.Config{Dir: dir, Key: key32()})
	must(t, err)
	defer l.Close()
	for i := from; i < to; i++ {
		l.Record(engine.ActivityRecord{Sandbox: sandbox, Incarnation: 1, Kind: engine.ActivityExec, Detail: fmt.Sprint("command ", i)})
	}
	p, err := l.Verify(t.Context(), sandbox, nil)
	must(t, err)
	if p.Fault != nil {
		t.Fatalf("the ledger is not whole before it is changed: %+v", p.Fault)
	}
	return p.Head
}

// edit changes the lines of a ledger's file.
func edit(t *testing.T, dir, sandbox string, change func([]string) []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, sandbox, "*.jsonl"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("the ledger has no file")
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	lines := change(strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Fatalf("the change makes no JSON: %s", l)
		}
	}
	must(t, os.WriteFile(files[0], []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}
