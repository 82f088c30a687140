package reconcile

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/store"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func row(state engine.State, change ...func(*core.Row)) core.Row {
	r := core.Row{Sandbox: store.Sandbox{Sandbox: engine.Sandbox{
		ID: "s", State: state, Desired: engine.DesiredStarted, Incarnation: 2,
		CreatedAt: now.Add(-time.Hour), LastActive: now, StoppedAt: now,
		Lifecycle: engine.Lifecycle{AutoStop: 15 * time.Minute, AutoArchive: time.Hour, AutoDelete: -1},
	}}}
	for _, c := range change {
		c(&r)
	}
	return r
}

func instance(state engine.State) *engine.Instance {
	return &engine.Instance{Sandbox: "s", State: state, Incarnation: 2, Error: "boom", Recoverable: true}
}

func older(in *engine.Instance) *engine.Instance { in.Incarnation--; return in }

func ephemeral(r *core.Row)      { r.Lifecycle.AutoDelete = 0 }
func toBeDestroyed(r *core.Row)  { r.Desired = engine.DesiredDestroyed }
func recoverableRow(r *core.Row) { r.Recoverable = true }
func forked(r *core.Row)         { r.ForkDisk = "fork" }
func busy(r *core.Row)           { r.Busy = true }
func timeToLive(r *core.Row)     { r.Lifecycle.TTL = time.Hour }
func idleSince(d time.Duration) func(*core.Row) {
	return func(r *core.Row) { r.LastActive = now.Add(-d) }
}

func stoppedSince(d time.Duration) func(*core.Row) {
	return func(r *core.Row) { r.StoppedAt, r.Lifecycle.AutoDelete = now.Add(-d), time.Hour }
}

func granted(left time.Duration) func(*core.Row) {
	return func(r *core.Row) { r.Network.Grants = []engine.NetworkGrant{{ID: "g", Until: now.Add(left)}} }
}

func learning(left time.Duration, over bool) func(*core.Row) {
	return func(r *core.Row) { r.Learning = &engine.Learning{Until: now.Add(left), Over: over} }
}

// TestDecide names for each state of the row what each state of the instance
// leads to: a verb, or for Settle the state that is written.
func TestDecide(t *testing.T) {
	const started, stopped, failed, moving = engine.StateStarted, engine.StateStopped, engine.StateError, engine.StateStarting
	for _, c := range []struct {
		name string
		row  core.Row
		inst *engine.Instance
		want string
	}{
		{"create, nothing there", row(engine.StateCreating), nil, "forget"},
		{"create, whole", row(engine.StateCreating), instance(started), "started"},
		{"create, of another incarnation", row(engine.StateCreating), older(instance(started)), "forget"},
		{"create, half", row(engine.StateCreating), instance(moving), "forget"},
		{"create, stopped", row(engine.StateCreating), instance(stopped), "forget"},
		{"pull", row(engine.StatePullingSnapshot), nil, "forget"},
		{"pull, and yet there", row(engine.StatePullingSnapshot), instance(started), "forget"},

		{"start, done", row(engine.StateStarting), instance(started), "started"},
		{"start, not begun", row(engine.StateStarting), instance(stopped), "stopped"},
		{"start, old one runs", row(engine.StateStarting), older(instance(started)), "error"},
		{"start, under way", row(engine.StateStarting), instance(moving), ""},
		{"start, failed", row(engine.StateStarting), instance(failed), "error"},
		{"start, lost", row(engine.StateStarting), nil, "error"},

		{"stop, done", row(engine.StateStopping), instance(stopped), "stop"},
		{"stop, not begun", row(engine.StateStopping), instance(started), "stop"},
		{"stop, failed", row(engine.StateStopping), instance(failed), "stop"},
		{"stop, under way", row(engine.StateStopping), instance(engine.StateStopping), ""},
		{"stop, lost", row(engine.StateStopping), nil, "error"},
		{"stop of an ephemeral, gone", row(engine.StateStopping, toBeDestroyed), nil, "destroy"},

		{"resize", row(engine.StateResizing), instance(started), "started"},
		{"resize while stopped", row(engine.StateResizing), instance(stopped), "stopped"},
		{"snapshot", row(engine.StateSnapshotting), instance(started), "started"},
		{"fork", row(engine.StateForking), instance(stopped), "stopped"},
		{"fork, lost", row(engine.StateForking), nil, "error"},

		{"runs", row(started), instance(started), ""},
		{"runs, busy on the runner", row(started), instance(moving), ""},
		{"ended by itself", row(started), instance(stopped), "stopped"},
		{"ended by itself, ephemeral", row(started, ephemeral), instance(stopped), "destroy"},
		{"lost its toolbox", row(started), instance(failed), "error"},
		{"lost", row(started), nil, "error"},

		{"is stopped", row(stopped), instance(stopped), ""},
		{"is stopped and runs", row(stopped), instance(started), "stop stray"},
		{"is stopped and in error there", row(stopped), instance(failed), ""},
		{"is stopped and ephemeral", row(stopped, ephemeral), instance(stopped), "destroy"},
		{"is stopped, to be destroyed", row(stopped, toBeDestroyed), instance(stopped), "destroy"},
		{"is stopped, lost", row(stopped), nil, "error"},

		{"error", row(failed), instance(stopped), ""},
		{"error, runs", row(failed, recoverableRow), instance(started), "started"},
		{"error for good, runs", row(failed), instance(started), ""},
		{"error, older runs", row(failed, recoverableRow), older(instance(started)), ""},
		{"error, lost", row(failed), nil, ""},
		{"error, to be destroyed", row(failed, toBeDestroyed), nil, "destroy"},

		{"deletion", row(engine.StateDestroying), instance(started), "destroy"},
		{"deletion, gone", row(engine.StateDestroying), nil, "destroy"},
		{"paused", row(engine.StatePaused), instance(started), ""},

		{"idle", row(started, idleSince(15*time.Minute)), instance(started), "stop"},
		{"not yet idle", row(started, idleSince(15*time.Minute-1)), instance(started), ""},
		{"idle, open call", row(started, idleSince(time.Hour), busy), instance(started), ""},
		{"idle, command runs", row(started, idleSince(time.Hour)), &engine.Instance{State: started, Busy: true}, ""},
		{"idle, used by another way", row(started, idleSince(time.Hour)), &engine.Instance{State: started, LastActive: now.Add(-time.Minute)}, ""},
		{"idle without a timer", row(started, idleSince(time.Hour), func(r *core.Row) { r.Lifecycle.AutoStop = 0 }), instance(started), ""},
		{"stopped long ago", row(stopped, stoppedSince(time.Hour)), instance(stopped), "destroy"},
		{"stopped lately", row(stopped, stoppedSince(time.Minute)), instance(stopped), ""},
		{"time to live", row(started, timeToLive), instance(started), "destroy"},
		{"time to live in error", row(failed, timeToLive), nil, "destroy"},
		{"time to live in creation", row(engine.StateCreating, timeToLive), nil, "destroy"},
		{"grant is over", row(started, granted(0)), instance(started), "narrow network"},
		{"grant holds", row(started, granted(1)), instance(started), ""},
		{"grant for good", row(started, func(r *core.Row) { r.Network.Grants = []engine.NetworkGrant{{ID: "g"}} }), instance(started), ""},
		{"grant is over, stopped", row(stopped, granted(-time.Hour)), instance(stopped), "narrow network"},
		{"learns", row(started, learning(1, false)), instance(started), ""},
		{"has learned", row(started, learning(0, false)), instance(started), "narrow network"},
		{"has learned and is closed", row(started, learning(0, true)), instance(started), ""},
		{"fork is settled", row(started, forked), instance(started), "drop fork disk"},
	} {
		a := Decide(c.row, c.inst, now)
		got := string(a.Verb)
		if a.Verb == Settle {
			got = string(a.Fact.State)
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if a.Verb != Leave && a.Reason == "" {
			t.Errorf("%s: no reason", c.name)
		}
		if a.Verb == Settle && !c.row.State.CanBecome(a.Fact.State) {
			t.Errorf("%s: %s cannot become %s", c.name, c.row.State, a.Fact.State)
		}
	}
}

// TestDecideNeverBreaksTheStateMachine tries every state against every other.
func TestDecideNeverBreaksTheStateMachine(t *testing.T) {
	for _, s := range engine.States() {
		for _, found := range append(engine.States(), "") {
			in := instance(found)
			if found == "" {
				in = nil
			}
			for _, change := range []func(*core.Row){func(*core.Row) {}, ephemeral, toBeDestroyed, recoverableRow, timeToLive, idleSince(time.Hour)} {
				a := Decide(row(s, change), in, now)
				if a.Verb == Settle && !s.CanBecome(a.Fact.State) {
					t.Errorf("%s with %q: settles to %s", s, found, a.Fact.State)
				}
				if a.Verb == Destroy && s != engine.StateDestroying && !s.CanBecome(engine.StateDestroying) {
					if s != engine.StateDestroyed { // never among the rows
						t.Errorf("%s with %q: destroys", s, found)
					}
				}
			}
		}
	}
}

func TestBrokenToolboxSaysWhy(t *testing.T) {
	got := Decide(row(engine.StateStarted), instance(engine.StateError), now).Fact
	want := core.Fact{State: engine.StateError, Error: "boom", Recoverable: true}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
