package engine

import (
	"context"
	"time"
)

// SnapshotState is the state of a snapshot, in the words of the wire contract.
type SnapshotState string

// The snapshot states.
const (
	SnapshotBuilding     SnapshotState = "building"
	SnapshotPending      SnapshotState = "pending"
	SnapshotPulling      SnapshotState = "pulling"
	SnapshotSnapshotting SnapshotState = "snapshotting"
	SnapshotActive       SnapshotState = "active"
	SnapshotInactive     SnapshotState = "inactive"
	SnapshotError        SnapshotState = "error"
	SnapshotBuildFailed  SnapshotState = "build_failed"
	SnapshotRemoving     SnapshotState = "removing"
)

// Snapshot is what sandboxes are created from: an image, and for snapshots of
// a sandbox also the disk that was saved on top of it.
type Snapshot struct {
	ID             string
	OrganizationID string
	Name           string
	General        bool // usable by every organization; cannot be deleted by one
	State          SnapshotState
	Image          string // OCI reference
	ImageDigest    string
	Disk           string // id of the saved disk in the runner's pool; empty for plain images
	Runner         string // the runner that holds Disk; empty for plain images
	User           string
	WorkDir        string
	Env            map[string]string
	Entrypoint     []string
	Resources      Resources
	SizeBytes      int64
	SourceSandbox  string // id; empty for plain images
	Policy         string // name, of the sandbox it was made of; may be empty
	Error          string
	Progress       string // of a build under way, in words; not stored
	CreatedAt      time.Time
	UpdatedAt      time.Time
	LastUsedAt     time.Time
}

// CreateSnapshot asks for a snapshot from an OCI image reference.
type CreateSnapshot struct {
	OrganizationID string
	Name           string
	Image          string
	Entrypoint     []string
	Resources      Resources // zero fields: 1 core, 1 GiB, 3 GiB
	Username       string    // registry credentials; may be empty
	Password       string
}

// SnapshotRef names a snapshot by id or name: the organization's own first,
// then the general ones.
type SnapshotRef struct{ OrganizationID, IDOrName string }

// SnapshotQuery selects snapshots. Page counts from 1.
type SnapshotQuery struct {
	OrganizationID string
	Name           string // part of the name, case-insensitive
	Page, Limit    int    // 0: first page, 100 items
}

// SnapshotPage is one page of snapshots.
type SnapshotPage struct {
	Items []Snapshot
	Total int
}

// Snapshots is the life of snapshots. The gateway, MCP and CLI call it.
type Snapshots interface {
	// Create pulls the image and answers when the snapshot is active or failed.
	Create(ctx context.Context, req CreateSnapshot) (Snapshot, error)
	Snapshot(ctx context.Context, ref SnapshotRef) (Snapshot, error)
	List(ctx context.Context, q SnapshotQuery) (SnapshotPage, error)
	Delete(ctx context.Context, ref SnapshotRef) error
	// Prepare begins to build the image of one of the server's own snapshots,
	// or to renew it, and answers at once.
	Prepare(ctx context.Context, ref SnapshotRef) (Snapshot, error)
	// Save makes a snapshot named name of a sandbox's disk. A running sandbox
	// is frozen for the cut and goes on.
	Save(ctx context.Context, ref SandboxRef, name string) (Snapshot, error)
	// Fork makes a new running sandbox with a copy of ref's disk. An empty
	// name means the id.
	Fork(ctx context.Context, ref SandboxRef, name string) (Sandbox, error)
}

// Catalog is what may be made of snapshots. The gateway calls it.
type Catalog interface {
	// Activate has the image ready again, and the snapshot usable.
	Activate(ctx context.Context, ref SnapshotRef) (Snapshot, error)
	// Deactivate refuses creates from the snapshot, and drops its image from
	// the runners when nothing else needs it.
	Deactivate(ctx context.Context, ref SnapshotRef) error
	// SetGeneral makes a snapshot usable by every organization, or not. Only
	// administrators may.
	SetGeneral(ctx context.Context, ref SnapshotRef, general bool) (Snapshot, error)
	// ImageUnused tells whether no snapshot and no sandbox needs an image.
	ImageUnused(ctx context.Context, image string) (bool, error)
}
