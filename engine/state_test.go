package engine

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatesAreThoseOfTheContract(t *testing.T) {
	want := []State{
		"archived", "archiving", "build_failed", "building_snapshot", "creating", "destroyed", "destroying", "error",
		"forking", "paused", "pausing", "pending_build", "pulling_snapshot", "resizing", "restoring", "resuming",
		"snapshotting", "started", "starting", "stopped", "stopping", "unknown",
	}
	if d := cmp.Diff(want, States()); d != "" {
		t.Error(d)
	}
	for _, s := range want {
		if !s.Valid() {
			t.Errorf("%s is not valid", s)
		}
	}
	if State("running").Valid() || State("").Valid() {
		t.Error("a state that is not in the contract is valid")
	}
}

func TestTransitions(t *testing.T) {
	for _, c := range []struct {
		from, to State
		want     bool
	}{
		{StateCreating, StateStarted, true},
		{StateCreating, StateDestroyed, false},
		{StateStarted, StateStopping, true},
		{StateStarted, StateStarting, false},
		{StateStopped, StateStarting, true},
		{StateStopped, StateStarted, false},
		{StateError, StateStarting, true},
		{StateError, StateError, false},
		{StateDestroying, StateDestroyed, true},
		{StateDestroying, StateStarted, false},
		{StateDestroying, StateDestroying, false},
		{StateDestroying, StateError, true},
		{StateDestroyed, StateDestroying, false},
		{StateDestroyed, StateError, false},
		{StateStarted, "running", false},
		{"running", StateStarted, false},
	} {
		if got := c.from.CanBecome(c.to); got != c.want {
			t.Errorf("%s to %s: got %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

// TestEveryStateHasAWayOut: whatever state a sandbox is in, it can be
// destroyed, and what is in progress can end in a settled state.
func TestEveryStateHasAWayOut(t *testing.T) {
	for _, s := range States() {
		if s != StateDestroyed && s != StateDestroying && !s.CanBecome(StateDestroying) {
			t.Errorf("%s cannot be destroyed", s)
		}
		if !s.Settled() && !slices.ContainsFunc(States(), func(n State) bool { return n != StateError && s.CanBecome(n) }) {
			t.Errorf("%s has no way out but error", s)
		}
		if s.Settled() && slices.Contains(transitions[s], s) {
			t.Errorf("%s leads to itself", s)
		}
		for _, next := range transitions[s] {
			if !next.Valid() {
				t.Errorf("%s leads to %q, which is no state", s, next)
			}
		}
	}
}

// TestEveryStateCanBeReached from creating, pending_build or unknown.
func TestEveryStateCanBeReached(t *testing.T) {
	seen := map[State]bool{StateCreating: true, StatePendingBuild: true, StateUnknown: true}
	for grown := true; grown; {
		grown = false
		for _, s := range States() {
			for _, n := range States() {
				if seen[s] && !seen[n] && s.CanBecome(n) {
					seen[n], grown = true, true
				}
			}
		}
	}
	for _, s := range States() {
		if !seen[s] {
			t.Errorf("%s cannot be reached", s)
		}
	}
}
