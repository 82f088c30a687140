package trace

import (
	"testing"
	"time"

	kernel "github.com/atoll-sh/atoll/ebpf/activity"
)

const second = time.Second

// family is who made whom, in place of the kernel.
type family map[key]struct {
	maker key
	inner int
}

func (f family) origin(k key) (key, int, bool) {
	o, ok := f[k]
	return o.maker, o.inner, ok
}

var toolbox = key{ID: 100, Start: second}

// grown is a toolbox with a shell (200), its child (201), a grandchild whose
// parent will be gone (202), and a second child of the toolbox (300).
func grown() *table {
	f := family{
		{ID: 200, Start: 2 * second}: {toolbox, 20},
		{ID: 201, Start: 3 * second}: {key{ID: 200, Start: 2 * second}, 21},
		{ID: 202, Start: 4 * second}: {key{ID: 201, Start: 3 * second}, 22},
		{ID: 300, Start: 5 * second}: {toolbox, 30},
	}
	t := newTable(f.origin)
	t.toolbox = toolbox.ID
	return t
}

func (t *table) calls(id int, start, at time.Duration) string {
	return t.callOf(t.process(kernel.Process{ID: id, Start: start, Parent: 1}), at)
}

func TestCallOfDescendants(t *testing.T) {
	tb := grown()
	tb.told(20, report{at: 2*second + 1, call: "A"}, 0)
	// The orphan is seen first, and nothing was ever seen of its parent.
	if got := tb.calls(202, 4*second, 4*second); got != "A" {
		t.Errorf("an orphan's call is %q, want A", got)
	}
	if got := tb.calls(200, 2*second, 2*second); got != "A" {
		t.Errorf("before the report came the call is %q, want A", got)
	}
	if got := tb.calls(300, 5*second, 6*second); got != "" {
		t.Errorf("a process of which nothing was told has the call %q", got)
	}
	if got := tb.calls(toolbox.ID, toolbox.Start, 6*second); got != "" {
		t.Errorf("the toolbox itself has the call %q", got)
	}
	if got := tb.calls(999, 5*second, 6*second); got != "" {
		t.Errorf("a process of unknown origin has the call %q", got)
	}
}

// TestCallOfSession: a shell works for one call after the other; what it began
// for one stays that one's.
func TestCallOfSession(t *testing.T) {
	tb := grown()
	tb.told(20, report{at: 2 * second, call: "session"}, 0)
	tb.told(20, report{at: 2*second + second/2, call: "one"}, 0)
	tb.told(20, report{at: 3*second + second/2}, 0)
	tb.told(20, report{at: 6 * second, call: "two"}, 0)
	for _, c := range []struct {
		id        int
		start, at time.Duration
		want      string
	}{
		{200, 2 * second, 2*second + second/4, "session"},
		{200, 2 * second, 3 * second, "one"},
		{201, 3 * second, 3 * second, "one"},
		{201, 3 * second, 7 * second, "one"},
		{202, 4 * second, 7 * second, "one"},
		{200, 2 * second, 4 * second, ""},
		{200, 2 * second, 7 * second, "two"},
	} {
		if got := tb.calls(c.id, c.start, c.at); got != c.want {
			t.Errorf("process %d at %v: got %q, want %q", c.id, c.at, got, c.want)
		}
	}
}

// TestCallDuring: of what is told late it is known whose it is if only one call
// was under way since.
func TestCallDuring(t *testing.T) {
	tb := grown()
	tb.told(20, report{at: 2 * second, call: "session"}, 0)
	tb.told(20, report{at: 4 * second}, 0)
	tb.told(20, report{at: 10 * second, call: "one"}, 0)
	tb.told(20, report{at: 11 * second}, 0)
	tb.told(20, report{at: 12 * second, call: "two"}, 0)
	shell := tb.process(kernel.Process{ID: 200, Start: 2 * second})
	child := tb.process(kernel.Process{ID: 201, Start: 3 * second})
	for _, c := range []struct {
		p        *process
		from, to time.Duration
		want     string
	}{
		{shell, 2 * second, 3 * second, "session"},
		{shell, 6 * second, 7 * second, ""},
		{shell, 9 * second, 10*second + 1, "one"},
		{shell, 10*second + 1, 11*second + 1, "one"},
		{shell, 10*second + 1, 12*second + 1, ""},
		{shell, 11*second + 1, 12*second + 1, "two"},
		{child, 3 * second, 13 * second, "session"},
	} {
		if got := tb.callDuring(c.p, c.from, c.to); got != c.want {
			t.Errorf("process %d from %v to %v: got %q, want %q", c.p.ID, c.from, c.to, got, c.want)
		}
	}
}

// TestCallOfAnother: what the toolbox runs for a process that asked for more
// rights is that process's.
func TestCallOfAnother(t *testing.T) {
	tb := grown()
	tb.told(20, report{at: 2 * second, call: "A"}, 0)
	tb.calls(201, 3*second, 3*second)
	tb.told(30, report{at: 5*second + 1}, 21)
	if got := tb.calls(300, 5*second, 6*second); got != "A" {
		t.Errorf("got %q, want A", got)
	}
}

// TestNumberUsedAgain: a number that a process had before means nothing for the
// next one.
func TestNumberUsedAgain(t *testing.T) {
	f := family{
		{ID: 200, Start: 2 * second}:  {toolbox, 20},
		{ID: 700, Start: 20 * second}: {toolbox, 20},
	}
	tb := newTable(f.origin)
	tb.toolbox = toolbox.ID
	tb.told(20, report{at: 2 * second, call: "old"}, 0)
	old := tb.process(kernel.Process{ID: 200, Start: 2 * second})
	old.ended = 3 * second
	if got := tb.calls(700, 20*second, 21*second); got != "" {
		t.Errorf("the new one has the call %q", got)
	}
	tb.told(20, report{at: 20*second + 1, call: "new"}, 0)
	if got := tb.calls(700, 20*second, 21*second); got != "new" {
		t.Errorf("the new one has the call %q, want new", got)
	}
	if got := tb.calls(200, 2*second, 2*second); got != "old" {
		t.Errorf("the old one has the call %q, want old", got)
	}
	tb.prune(3*second + keepEnded + 1)
	if _, known := tb.processes[old.key]; known {
		t.Error("an ended process is not forgotten")
	}
}

// TestManyProcesses stays within its bounds.
func TestManyProcesses(t *testing.T) {
	tb := newTable(family{}.origin)
	for i := range 3 * maxProcesses {
		tb.process(kernel.Process{ID: i + 1, Start: time.Duration(i), Inner: i + 1})
		tb.told(1, report{at: time.Duration(i)}, 0)
	}
	if len(tb.processes) > maxProcesses || len(tb.inner) > maxProcesses || len(tb.reports[1]) > maxReports {
		t.Errorf("%d processes, %d numbers, %d reports", len(tb.processes), len(tb.inner), len(tb.reports[1]))
	}
}

// TestCallOfAsker: what one process asks the toolbox to begin is its call's, also
// when the toolbox tells of it before the kernel does of the one who asks.
func TestCallOfAsker(t *testing.T) {
	tb := grown()
	tb.told(20, report{at: 2 * second, call: "A"}, 0)
	tb.told(30, report{at: 5 * second}, 21)
	if got := tb.calls(300, 5*second, 6*second); got != "" {
		t.Errorf("nothing is known of who asked; got %q", got)
	}
	tb.process(kernel.Process{ID: 201, Start: 3 * second})
	if got := tb.calls(300, 5*second, 6*second); got != "A" {
		t.Errorf("got %q, want the asker's A", got)
	}
}

// TestCallOfCircle: the toolbox's word has no end.
func TestCallOfCircle(t *testing.T) {
	tb := grown()
	tb.process(kernel.Process{ID: 200, Start: 2 * second})
	tb.process(kernel.Process{ID: 300, Start: 5 * second})
	tb.told(20, report{at: 2 * second}, 30)
	tb.told(30, report{at: 5 * second}, 20)
	if got := tb.calls(200, 2*second, 6*second); got != "" {
		t.Errorf("got %q", got)
	}
}
