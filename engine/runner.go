package engine

import (
	"context"
	"time"
)

// Instance is what a runner knows of one sandbox it holds: the facts, where
// the store holds the wishes.
type Instance struct {
	Sandbox     string // id
	Incarnation uint64
	State       State // started, stopped, error, or a state in progress
	Error       string
	Recoverable bool
	Resources   Resources
	LastActive  time.Time // last call, open stream or running foreground command
	Busy        bool      // a command or stream is open right now
	DiskBytes   int64     // used
}

// Launch is everything a runner needs to bring a sandbox to life. The core
// fills it from the sandbox's row and its snapshot, so a runner needs no store.
type Launch struct {
	Sandbox     string
	Incarnation uint64
	Name        string // hostname
	Class       Class
	Snapshot    string // key of the warm pool, together with Resources.DiskMiB
	Image       string // reference as stored by engine/image
	ImageDigest string // of the layers that are meant, when the tag moved on; may be empty
	Disk        string // saved disk to clone; empty: a fresh one
	User        string
	WorkDir     string
	Env         map[string]string
	Entrypoint  []string // started by the toolbox as the entrypoint session; may be empty
	Labels      map[string]string
	Resources   Resources
	Network     NetworkPolicy
	Rules       *ExecFileRules // about programs and files; nil: none
	Secrets     bool           // a secret is attached that may be sent somewhere
	Cold        bool
}

// Launched is a runner's answer to Launch and Start.
type Launched struct {
	Instance Instance
	Warm     bool
	Timing   []Stage
}

// SavedDisk is a runner's answer to SaveDisk.
type SavedDisk struct {
	Disk      string
	SizeBytes int64
}

// RunnerInfo is one runner's entry in the inventory.
type RunnerInfo struct {
	ID        string
	Classes   []Class
	CPU       float64 // cores of the host
	MemoryMiB int64
	DiskMiB   int64 // free in the pool
	Used      Resources
	Sandboxes int
	Confines  bool // enforces ExecFileRules
	UpdatedAt time.Time
}

// Runner is one host that runs sandboxes. core calls it through the scheduler;
// engine/cluster carries the calls over NATS. Every call is idempotent for the
// same sandbox and incarnation. A call with an older incarnation than the
// runner knows fails with a conflict.
type Runner interface {
	Launch(ctx context.Context, l Launch) (Launched, error)
	Start(ctx context.Context, l Launch) (Launched, error)
	Stop(ctx context.Context, sandbox string, opt StopOptions) (Instance, error)
	Remove(ctx context.Context, sandbox string) error // nil when already gone
	Resize(ctx context.Context, sandbox string, r Resources) (Instance, error)
	SetNetwork(ctx context.Context, sandbox string, p NetworkPolicy) error
	// SetRules replaces what may run in a sandbox and which files it may
	// touch; nil lifts it. Rules that the host cannot enforce, and that are not
	// best effort, are KindUnsupported and change nothing.
	SetRules(ctx context.Context, sandbox string, rules *ExecFileRules) error
	// SetSecrets says whether a sandbox has secrets that may be sent somewhere,
	// so that they are put into its traffic and its processes trust that.
	SetSecrets(ctx context.Context, sandbox string, on bool) error
	SaveDisk(ctx context.Context, sandbox, disk string) (SavedDisk, error)
	DropDisk(ctx context.Context, disk string) error // nil when already gone
	// Instances lists everything the runner holds, pool members excluded.
	Instances(ctx context.Context) ([]Instance, error)
	Stats(ctx context.Context, sandbox string) (Stats, error)
	Info(ctx context.Context) (RunnerInfo, error)
	// EnsureImage makes an image usable: "atoll:default" is built from the
	// distribution's packages, anything else is pulled from its registry.
	EnsureImage(ctx context.Context, req EnsureImage) (Image, error)
	// DropImage forgets an image, by its digest when there is one. It stays
	// while an instance on the runner stands on it; nil when already gone.
	DropImage(ctx context.Context, img Image) error
	// SetPools says which warm members to keep beside the configured ones. A
	// runner that restarts has forgotten it.
	SetPools(ctx context.Context, targets []PoolTarget) error
	// Pools tells how far the runner is with each kind, configured ones included.
	Pools(ctx context.Context) ([]PoolStatus, error)
	// Samples returns what a sandbox used between two times, oldest first.
	Samples(ctx context.Context, q SampleQuery) ([]Sample, error)
}

// EnsureImage names an image to have ready.
type EnsureImage struct {
	Ref                string
	Username, Password string // registry credentials; may be empty
	PlainHTTP          bool   // allowed for loopback registries only
}

// Image is an OCI image that is unpacked on a runner.
type Image struct {
	Ref        string
	Digest     string
	SizeBytes  int64
	User       string
	WorkDir    string
	Env        []string // KEY=value
	Entrypoint []string
	Cmd        []string
}

// Event is one change that watchers are told of.
type Event struct {
	ID             string         `json:"id,omitempty"` // ULID; set when it is published
	Type           string         `json:"type"`         // sandbox.created, sandbox.state.updated, sandbox.desired-state.updated, sandbox.removed, sandbox.access.requested, sandbox.access.decided, snapshot.created, snapshot.state.updated, snapshot.removed
	OrganizationID string         `json:"organizationId"`
	Time           time.Time      `json:"time"`
	Sandbox        *Sandbox       `json:"sandbox,omitempty"`
	Snapshot       *Snapshot      `json:"snapshot,omitempty"`
	Access         *AccessRequest `json:"access,omitempty"`
	Old            string         `json:"old,omitempty"`
	New            string         `json:"new,omitempty"`
}

// Events lets a caller watch changes. The channel closes when ctx ends or the
// watcher is too slow; it must then list again and watch anew.
type Events interface {
	Watch(ctx context.Context, organizationID string) (<-chan Event, error)
}

// Report is what this host can and cannot do, for people.
type Report struct {
	Checks []Check
}

// Check is one line of a Report.
type Check struct {
	Name   string // as "user namespaces"
	OK     bool
	Needed bool   // without it sandboxes cannot run
	Detail string // what was found or chosen
	Fix    string // what to do when not OK; may be empty
}
