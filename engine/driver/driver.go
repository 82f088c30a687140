// Package driver is the contract between a runner and the code for one
// runtime. Required methods are few; every further ability is a small
// interface found with As, which looks through decorators.
package driver

import (
	"context"
	"encoding/json"
	"net"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Driver runs instances on one runtime. An instance is the runtime side of a
// sandbox; its id is the runner's, so that a pooled instance can become any
// sandbox. Errors are *engine.Error values, translated at the driver's edge.
type Driver interface {
	Name() string
	Probe(ctx context.Context) (Capabilities, error)
	// Create prepares the instance and starts nothing. It is idempotent per
	// spec.ID. On error nothing is left behind.
	Create(ctx context.Context, spec Spec) (Handle, error)
	// Start returns when the toolbox inside answers.
	Start(ctx context.Context, h Handle) error
	// Stop sends SIGTERM to the toolbox, which ends its children, waits for
	// grace and then kills. Stopping a stopped instance is not an error.
	Stop(ctx context.Context, h Handle, grace time.Duration) error
	Remove(ctx context.Context, h Handle) error // nil when already gone
	Inspect(ctx context.Context, h Handle) (Status, error)
	// Recover re-attaches to an instance after our own restart.
	Recover(ctx context.Context, h Handle) error
}

// Spec is all a driver needs. The runner has made the root file system, the
// network namespace and the directories already; a driver makes none of them.
type Spec struct {
	ID         string // [a-z0-9-], unique on the host within one server
	Sandbox    string // id of the sandbox; empty for a pool member
	Hostname   string
	RootFS     string   // absolute path of the mounted root file system
	Image      string   // reference, for labels
	NetNS      string   // path of the network namespace
	UIDBase    uint32   // host id of root inside; 65536 ids are mapped
	Toolbox    string   // path of the toolbox binary, mounted read-only
	ControlDir string   // host directory mounted at /run/atoll; the toolbox listens on toolbox.sock in it
	Env        []string // the image's environment, KEY=value
	User       string   // default user of commands: a name or uid[:gid]; empty is root
	WorkDir    string   // default work directory; empty is the user's home
	Resources  engine.Resources
	Labels     map[string]string
	Mounts     []Mount
}

// Mount is a bind mount that the runner prepared.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Handle finds an instance again, also after our restart. It is stored as
// JSON; Data belongs to the driver.
type Handle struct {
	Version int             `json:"version"`
	Driver  string          `json:"driver"`
	ID      string          `json:"id"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// Phase is what an instance is doing.
type Phase string

// The phases.
const (
	PhaseCreated Phase = "created"
	PhaseRunning Phase = "running"
	PhasePaused  Phase = "paused"
	PhaseStopped Phase = "stopped"
	PhaseGone    Phase = "gone"
)

// Status is an instance as it is now.
type Status struct {
	Phase    Phase
	PID      int  // of the toolbox on the host; 0 when not running
	ExitCode int  // when stopped
	OOM      bool // a process was killed for memory since start
	ExitedAt time.Time
}

// Capabilities is what a driver can do on this host.
type Capabilities struct {
	Available bool
	Reason    string // why not, or what was chosen
	Version   string // of the runtime
	Checks    []engine.Check
}

// Event is something that happened to an instance without being asked for.
type Event struct {
	ID   string
	Kind EventKind
	Time time.Time
	Exit int // exit code, for EventExit
}

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	EventExit EventKind = "exit"
	EventOOM  EventKind = "oom"
)

// Dialer opens a connection to the toolbox of an instance.
type Dialer interface {
	Dial(ctx context.Context, h Handle) (net.Conn, error)
}

// Pauser freezes and thaws all processes of an instance.
type Pauser interface {
	Pause(ctx context.Context, h Handle) error
	Resume(ctx context.Context, h Handle) error
}

// Grouper makes the control group of a created instance ahead of its start, so
// that what happens in it can be watched from the first process on. It returns
// the group's directory: of the version 2 tree, or of version 1's pids
// controller. A group that is there already stays.
type Grouper interface {
	Group(ctx context.Context, h Handle) (dir string, err error)
}

// Resizer changes limits of a running instance.
type Resizer interface {
	Resize(ctx context.Context, h Handle, r engine.Resources) error
}

// Renamer gives a claimed pool member its identity: host name and labels.
// It must be fast; slow book-keeping is done after it returned.
type Renamer interface {
	Rename(ctx context.Context, h Handle, sandbox, hostname string, labels map[string]string) error
}

// Sampler measures a running instance. DiskBytes is not set.
type Sampler interface {
	Stats(ctx context.Context, h Handle) (engine.Stats, error)
}

// Watcher tells of exits and memory kills. The channel closes with ctx.
type Watcher interface {
	Watch(ctx context.Context) (<-chan Event, error)
}

// Lister finds every instance that the runtime holds, for orphan clean-up.
type Lister interface {
	List(ctx context.Context) ([]Handle, error)
}

// Wrapper is a decorator around another driver.
type Wrapper interface{ Unwrap() Driver }

// As finds ability T on d or on a driver that d wraps.
func As[T any](d Driver) (T, bool) {
	for d != nil {
		if t, ok := d.(T); ok {
			return t, true
		}
		w, ok := d.(Wrapper)
		if !ok {
			break
		}
		d = w.Unwrap()
	}
	var zero T
	return zero, false
}
