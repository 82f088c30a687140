package engine

import (
	"context"
	"time"
)

// WarmPool keeps sandboxes of one snapshot started that belong to nobody yet.
// Creates from the snapshot with its own disk size claim them, whatever their
// environment, labels, limits and policy.
type WarmPool struct {
	ID             string
	OrganizationID string
	SnapshotID     string
	Snapshot       string // name
	Target         string
	Size           int // wanted
	Ready          int // waiting now, at most Size
	Resources      Resources
	User           string
	Error          string // why it is short; may be empty
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// CreateWarmPool asks for a pool.
type CreateWarmPool struct {
	OrganizationID string
	Snapshot       string // id or name
	Target         string // empty: the server's
	Size           int
}

// WarmPools is the life of warm pools. The gateway calls it.
type WarmPools interface {
	Create(ctx context.Context, req CreateWarmPool) (WarmPool, error)
	List(ctx context.Context, organizationID string) ([]WarmPool, error)
	// Resize sets how many sandboxes shall wait; 0 keeps the pool and none.
	Resize(ctx context.Context, organizationID, id string, size int) (WarmPool, error)
	Delete(ctx context.Context, organizationID, id string) error
}

// PoolKind is what cannot be changed after a member of a pool was made.
type PoolKind struct {
	Image   string `json:"image"`
	Disk    string `json:"disk,omitempty"` // saved disk that it is a copy of
	DiskMiB int64  `json:"diskMiB"`
}

// PoolTarget is how many members of a kind a runner shall keep.
type PoolTarget struct {
	PoolKind
	Size int `json:"size"`
}

// PoolStatus is how far a runner is with a target.
type PoolStatus struct {
	PoolTarget
	Ready int    `json:"ready"`
	Error string `json:"error,omitempty"` // of the last try, while it is short
}
