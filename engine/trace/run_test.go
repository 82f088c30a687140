package trace

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	kernel "github.com/atoll-sh/atoll/ebpf/activity"
	"github.com/atoll-sh/atoll/engine"
)

// fakeRun is a run without a kernel.
func fakeRun(f family) *run {
	r := &run{tracer: &Tracer{wake: make(chan struct{}, 1), down: noon.Add(-time.Minute)}, since: 1<<63 - 1, table: newTable(f.origin)}
	r.table.toolbox = toolbox.ID
	return r
}

// told drains and returns kind, operation and call.
func (r *run) told(now instant) (told [][3]string) {
	r.drain(now, func(rec engine.ActivityRecord) {
		told = append(told, [3]string{string(rec.Kind), rec.Operation, rec.Call})
	})
	return told
}

func later(d time.Duration) instant {
	now := clock()
	return instant{now.boot + d, now.wall.Add(d)}
}

func TestPoolMembersAreNobodys(t *testing.T) {
	r := fakeRun(nil)
	r.push(kernel.Event{Kind: kernel.KindExec, Time: clock().boot, Process: kernel.Process{ID: 5, Start: 1}})
	r.bind("s", 3)
	r.push(kernel.Event{Kind: kernel.KindExec, Time: clock().boot, Process: kernel.Process{ID: 6, Start: 2}})
	var got []engine.ActivityRecord
	r.drain(later(0), func(rec engine.ActivityRecord) { got = append(got, rec) })
	if len(got) != 1 || got[0].Process != text(key{ID: 6, Start: 2}) || got[0].Sandbox != "s" || got[0].Incarnation != 3 {
		t.Errorf("got %+v", got)
	}
}

// TestGapBeforeBind: the gap comes before it is known whose it is.
func TestGapBeforeBind(t *testing.T) {
	r := fakeRun(nil)
	r.push(kernel.Event{Kind: kernel.KindGap, Time: clock().boot, Running: 2})
	if got := r.told(later(0)); len(got) != 0 {
		t.Errorf("nobody's: %v", got)
	}
	r.bind("s", 1)
	var got []engine.ActivityRecord
	r.drain(later(0), func(rec engine.ActivityRecord) { got = append(got, rec) })
	if len(got) != 1 || got[0].Kind != engine.ActivityGap || got[0].From == nil || !got[0].From.Equal(r.tracer.down) || got[0].To == nil {
		t.Errorf("got %+v", got)
	}
	r = fakeRun(nil)
	r.fail(errors.New("no room"))
	r.bind("s", 1)
	if d := cmp.Diff([][3]string{{"gap", "processes", ""}}, r.told(later(0))); d != "" {
		t.Errorf("what cannot be watched: %s", d)
	}
}

// TestFirstProcessWaits for the toolbox to say for which call it was begun, but
// not for ever, and keeps the order of what follows.
func TestFirstProcessWaits(t *testing.T) {
	begin := clock().boot
	f := family{{ID: 200, Start: begin}: {toolbox, 20}}
	exec := kernel.Event{Kind: kernel.KindExec, Time: begin + 1, Process: kernel.Process{ID: 200, Start: begin}}
	file := kernel.Event{Kind: kernel.KindCreate, Time: begin + 2, Process: exec.Process}
	privilege := kernel.Event{Kind: kernel.KindPrivilege, Time: begin, Process: exec.Process}
	for _, reported := range []bool{true, false} {
		r := fakeRun(f)
		r.bind("s", 1)
		r.since = begin
		for _, e := range []kernel.Event{privilege, exec, file} {
			r.push(e)
		}
		if got := r.told(later(0)); len(got) != 0 {
			t.Errorf("told before the report: %v", got)
		}
		if r.settled(later(0).boot) {
			t.Error("nothing waits")
		}
		want := [][3]string{{"exec", "", ""}, {"file", "create", ""}}
		if reported {
			r.table.told(20, report{at: begin + 3, call: "A"}, 0)
			want[0][2], want[1][2] = "A", "A"
			if d := cmp.Diff(want, r.told(later(0))); d != "" {
				t.Error(d)
			}
		} else if d := cmp.Diff(want, r.told(later(2*patience))); d != "" {
			t.Error(d)
		}
	}
}

// TestExitsAfterLosses: an end is told when its begin may be among the losses,
// so that what is told and what is missing make up all.
func TestExitsAfterLosses(t *testing.T) {
	r := fakeRun(nil)
	r.bind("s", 1)
	begin := clock().boot
	exit := func(id int) kernel.Event {
		return kernel.Event{Kind: kernel.KindExit, Time: begin + 10, Process: kernel.Process{ID: id, Start: begin}}
	}
	r.push(exit(1)) // a fork that did nothing
	r.push(kernel.Event{Kind: kernel.KindLost, Time: begin + 5, Lost: 1})
	r.push(exit(2))
	if d := cmp.Diff([][3]string{{"loss", "", ""}, {"exit", "", ""}}, r.told(later(0))); d != "" {
		t.Error(d)
	}
}

// TestQueueIsBounded, and what is beyond is told.
func TestQueueIsBounded(t *testing.T) {
	r := fakeRun(nil)
	r.bind("s", 1)
	for i := range maxQueue + 7 {
		r.push(kernel.Event{Kind: kernel.KindExec, Time: clock().boot, Process: kernel.Process{ID: i + 1, Start: 1}})
	}
	var told, lost int
	r.drain(later(0), func(rec engine.ActivityRecord) {
		told++
		lost += int(rec.Lost)
	})
	if told != maxQueue+1 || lost != 7 {
		t.Errorf("%d told, %d lost", told, lost)
	}
}
