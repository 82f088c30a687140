package reconcile

import (
	"fmt"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

// Verb is what is to be done with one sandbox.
type Verb string

// The verbs.
const (
	Leave        Verb = ""
	Settle       Verb = "settle"         // write the fact into the row
	Forget       Verb = "forget"         // remove a create that was never answered
	Halt         Verb = "stop"           // stop it, or finish its stop
	StopStray    Verb = "stop stray"     // it runs though it is stopped
	Destroy      Verb = "destroy"        // destroy it, or finish its deletion
	DropForkDisk Verb = "drop fork disk" // the first start is over
	Narrow       Verb = "narrow network" // what was open for a time is to be closed
)

// Action is a decision and why it was made.
type Action struct {
	Verb   Verb
	Reason string
	Fact   core.Fact
}

// Decide compares what is wanted of a sandbox with what its runner tells. The
// instance is nil when the runner, which was asked, does not have it. Facts
// come before timers.
func Decide(row core.Row, inst *engine.Instance, now time.Time) Action {
	if l := row.Lifecycle; l.TTL > 0 && now.Sub(row.CreatedAt) >= l.TTL && row.State != engine.StateDestroying {
		return Action{Verb: Destroy, Reason: fmt.Sprintf("its time to live of %v is over", l.TTL)}
	}
	if a := facts(row, inst); a.Verb != Leave {
		return a
	}
	return timers(row, inst, now)
}

// facts settles what a crash interrupted or what happened by itself.
func facts(row core.Row, inst *engine.Instance) Action {
	switch row.State {
	case engine.StateDestroying:
		return Action{Verb: Destroy, Reason: "its deletion was interrupted"}
	case engine.StateCreating, engine.StatePullingSnapshot, engine.StatePendingBuild, engine.StateBuildingSnapshot:
		return creating(row, inst)
	case engine.StateStopping:
		return stopping(row, inst)
	case engine.StateStarting, engine.StateResizing, engine.StateSnapshotting, engine.StateForking:
		return interrupted(row, inst)
	case engine.StateStarted:
		return started(row, inst)
	case engine.StateStopped:
		return stopped(row, inst)
	case engine.StateError:
		return mended(row, inst)
	}
	return Action{}
}

// creating keeps what stands whole and forgets the rest: the caller of the
// create got no answer, so nobody counts on it.
func creating(row core.Row, inst *engine.Instance) Action {
	if inst != nil && inst.State == engine.StateStarted && inst.Incarnation == row.Incarnation && row.State == engine.StateCreating {
		return settle(engine.StateStarted, "its create was complete but for the record", inst)
	}
	return Action{Verb: Forget, Reason: "its create was interrupted"}
}

func stopping(row core.Row, inst *engine.Instance) Action {
	switch {
	case inst == nil && row.Desired == engine.DesiredDestroyed:
		return Action{Verb: Destroy, Reason: "it is ephemeral and has ended"}
	case inst == nil:
		return lost()
	case !inst.State.Settled():
		return Action{}
	}
	return Action{Verb: Halt, Reason: "its stop was interrupted"}
}

// interrupted settles a sandbox to what it was found as.
func interrupted(row core.Row, inst *engine.Instance) Action {
	what := string(row.State) + " was interrupted"
	switch {
	case inst == nil:
		return lost()
	case inst.State == engine.StateError:
		return broken(inst)
	case inst.State == engine.StateStarted && inst.Incarnation != row.Incarnation:
		return Action{Verb: Settle, Reason: what, Fact: core.Fact{
			State: engine.StateError, Error: "the start was interrupted", Recoverable: true,
		}}
	case inst.State == engine.StateStarted, inst.State == engine.StateStopped:
		return settle(inst.State, what, inst)
	}
	return Action{}
}

func started(row core.Row, inst *engine.Instance) Action {
	switch {
	case inst == nil:
		return lost()
	case inst.State == engine.StateError:
		return broken(inst)
	case inst.State == engine.StateStopped && row.Lifecycle.Ephemeral():
		return Action{Verb: Destroy, Reason: "it is ephemeral and has ended"}
	case inst.State == engine.StateStopped:
		return settle(engine.StateStopped, "it stopped by itself or with its host", inst)
	}
	return Action{}
}

func stopped(row core.Row, inst *engine.Instance) Action {
	switch {
	case row.Desired == engine.DesiredDestroyed, row.Lifecycle.Ephemeral():
		return Action{Verb: Destroy, Reason: "it is ephemeral and has stopped"}
	case inst == nil:
		return lost()
	case inst.State == engine.StateStarted:
		return Action{Verb: StopStray, Reason: "it runs though it is stopped"}
	}
	return Action{}
}

func mended(row core.Row, inst *engine.Instance) Action {
	switch {
	case row.Desired == engine.DesiredDestroyed:
		return Action{Verb: Destroy, Reason: "its end was wanted before it failed"}
	case inst != nil && inst.State == engine.StateStarted && inst.Incarnation == row.Incarnation &&
		row.Desired == engine.DesiredStarted && row.Recoverable:
		return settle(engine.StateStarted, "it runs after all", inst)
	}
	return Action{}
}

func settle(to engine.State, reason string, inst *engine.Instance) Action {
	f := core.Fact{State: to}
	if inst.Resources != (engine.Resources{}) {
		f.Resources = &inst.Resources
	}
	return Action{Verb: Settle, Reason: reason, Fact: f}
}

func lost() Action {
	return Action{Verb: Settle, Reason: "its runner does not have it", Fact: core.Fact{
		State: engine.StateError, Error: "the runner no longer has this sandbox or its disk",
	}}
}

func broken(inst *engine.Instance) Action {
	why := inst.Error
	if why == "" {
		why = "the toolbox ended"
	}
	return Action{Verb: Settle, Reason: why, Fact: core.Fact{State: engine.StateError, Error: why, Recoverable: inst.Recoverable}}
}

// timers acts on what the owner asked to happen by itself. Archiving is not
// built yet, so autoArchive leaves a sandbox stopped.
func timers(row core.Row, inst *engine.Instance, now time.Time) Action {
	l := row.Lifecycle
	switch {
	case row.State.Settled() && row.NetworkOverdue(now):
		return Action{Verb: Narrow, Reason: "the time of what its network was opened for is over"}
	case row.State == engine.StateStarted && l.AutoStop > 0 && idle(row, inst, now) >= l.AutoStop:
		return Action{Verb: Halt, Reason: fmt.Sprintf("it was idle for %v", l.AutoStop)}
	case row.State == engine.StateStopped && l.AutoDelete > 0 && !row.StoppedAt.IsZero() && now.Sub(row.StoppedAt) >= l.AutoDelete:
		return Action{Verb: Destroy, Reason: fmt.Sprintf("it was stopped for %v", l.AutoDelete)}
	case row.ForkDisk != "" && row.State.Settled():
		return Action{Verb: DropForkDisk, Reason: "its first start is over"}
	}
	return Action{}
}

// idle is for how long nothing has used the sandbox. Calls, open streams and
// running foreground commands all count as use.
func idle(row core.Row, inst *engine.Instance, now time.Time) time.Duration {
	if row.Busy || inst != nil && inst.Busy {
		return 0
	}
	last := row.LastActive
	if inst != nil && inst.LastActive.After(last) {
		last = inst.LastActive
	}
	if row.CreatedAt.After(last) {
		last = row.CreatedAt
	}
	return now.Sub(last)
}
