package engine

import "slices"

// State is the observed state of a sandbox. The values are those of the wire
// contract; clients wait on them, so no other value may ever be sent.
type State string

// The sandbox states.
const (
	StateCreating         State = "creating"
	StateRestoring        State = "restoring"
	StateDestroyed        State = "destroyed"
	StateDestroying       State = "destroying"
	StateStarted          State = "started"
	StateStopped          State = "stopped"
	StateStarting         State = "starting"
	StateStopping         State = "stopping"
	StateError            State = "error"
	StateBuildFailed      State = "build_failed"
	StatePendingBuild     State = "pending_build"
	StateBuildingSnapshot State = "building_snapshot"
	StateUnknown          State = "unknown"
	StatePullingSnapshot  State = "pulling_snapshot"
	StateArchived         State = "archived"
	StateArchiving        State = "archiving"
	StateResizing         State = "resizing"
	StateSnapshotting     State = "snapshotting"
	StateForking          State = "forking"
	StatePausing          State = "pausing"
	StatePaused           State = "paused"
	StateResuming         State = "resuming"
)

// DesiredState is what the owner wants a sandbox to be.
type DesiredState string

// The desired states.
const (
	DesiredStarted   DesiredState = "started"
	DesiredStopped   DesiredState = "stopped"
	DesiredDestroyed DesiredState = "destroyed"
	DesiredResized   DesiredState = "resized"
	DesiredArchived  DesiredState = "archived"
	DesiredPaused    DesiredState = "paused"
)

// transitions lists, for every state, the states that may follow it. Every
// state but destroyed may become error or destroying; those two are added by
// CanBecome and not repeated here.
var transitions = map[State][]State{
	StateUnknown:          {StateStarted, StateStopped, StatePaused, StateArchived},
	StatePendingBuild:     {StateBuildingSnapshot, StateCreating, StateBuildFailed},
	StateBuildingSnapshot: {StateCreating, StateBuildFailed},
	StatePullingSnapshot:  {StateCreating},
	StateCreating:         {StateStarted, StatePullingSnapshot, StateStopped},
	StateRestoring:        {StateStarted, StateStopped, StateArchived},
	StateStarted:          {StateStopping, StateStopped, StateResizing, StateSnapshotting, StateForking, StatePausing},
	StateStopping:         {StateStopped, StateStarted},
	StateStopped:          {StateStarting, StateArchiving, StateResizing, StateSnapshotting, StateForking, StateRestoring},
	StateStarting:         {StateStarted, StateStopped},
	StateResizing:         {StateStarted, StateStopped},
	StateSnapshotting:     {StateStarted, StateStopped, StatePaused},
	StateForking:          {StateStarted, StateStopped, StatePaused},
	StatePausing:          {StatePaused, StateStarted},
	StatePaused:           {StateResuming, StateStopping, StateSnapshotting, StateForking, StateArchiving},
	StateResuming:         {StateStarted, StatePaused},
	StateArchiving:        {StateArchived, StateStopped},
	StateArchived:         {StateRestoring},
	StateError:            {StateStarting, StateStopped, StateStarted, StateRestoring},
	StateBuildFailed:      {},
	StateDestroying:       {StateDestroyed},
	StateDestroyed:        {},
}

// States returns all states, in no particular order.
func States() []State {
	all := make([]State, 0, len(transitions))
	for s := range transitions {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// Valid tells whether s is one of the contract's states.
func (s State) Valid() bool { _, ok := transitions[s]; return ok }

// CanBecome tells whether a sandbox in state s may move to next.
func (s State) CanBecome(next State) bool {
	switch {
	case s == StateDestroyed || !s.Valid() || !next.Valid():
		return false
	case next == StateError:
		return s != StateError
	case next == StateDestroying:
		return s != StateDestroying
	}
	return slices.Contains(transitions[s], next)
}

// Settled tells whether nothing is in progress in state s, so that a new state
// change may begin.
func (s State) Settled() bool {
	switch s {
	case StateStarted, StateStopped, StatePaused, StateArchived, StateError, StateBuildFailed, StateDestroyed:
		return true
	}
	return false
}
