package store

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type snapshotRow struct {
	bun.BaseModel `bun:"table:snapshots,alias:n"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	General        bool
	State          string
	Image          string
	ImageDigest    string
	Disk           string
	Runner         string
	OSUser         string `bun:"os_user"`
	WorkDir        string
	Env            string
	Entrypoint     string
	CPU            float64 `bun:"cpu"`
	MemoryMiB      int64   `bun:"memory_mib"`
	DiskMiB        int64   `bun:"disk_mib"`
	GPU            int64   `bun:"gpu"`
	PIDs           int64   `bun:"pids"`
	SizeBytes      int64
	SourceSandbox  string
	Policy         string
	Error          string
	CreatedAt      int64
	UpdatedAt      int64
	LastUsedAt     int64
}

func toSnapshotRow(sn *engine.Snapshot) *snapshotRow {
	return &snapshotRow{
		ID: sn.ID, OrganizationID: sn.OrganizationID, Name: sn.Name, General: sn.General,
		State: string(sn.State), Image: sn.Image, ImageDigest: sn.ImageDigest, Disk: sn.Disk,
		Runner: sn.Runner, OSUser: sn.User, WorkDir: sn.WorkDir, Env: toJSON(sn.Env),
		Entrypoint: toJSON(sn.Entrypoint), CPU: sn.Resources.CPU, MemoryMiB: sn.Resources.MemoryMiB,
		DiskMiB: sn.Resources.DiskMiB, GPU: int64(sn.Resources.GPU), PIDs: sn.Resources.PIDs,
		SizeBytes: sn.SizeBytes, SourceSandbox: sn.SourceSandbox, Policy: sn.Policy, Error: sn.Error,
		CreatedAt: toNanos(sn.CreatedAt), UpdatedAt: toNanos(sn.UpdatedAt), LastUsedAt: toNanos(sn.LastUsedAt),
	}
}

func (r *snapshotRow) snapshot() engine.Snapshot {
	sn := engine.Snapshot{
		ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, General: r.General,
		State: engine.SnapshotState(r.State), Image: r.Image, ImageDigest: r.ImageDigest, Disk: r.Disk,
		Runner: r.Runner, User: r.OSUser, WorkDir: r.WorkDir,
		Resources: engine.Resources{CPU: r.CPU, MemoryMiB: r.MemoryMiB, DiskMiB: r.DiskMiB, GPU: int(r.GPU), PIDs: r.PIDs},
		SizeBytes: r.SizeBytes, SourceSandbox: r.SourceSandbox, Policy: r.Policy, Error: r.Error,
		CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt), LastUsedAt: fromNanos(r.LastUsedAt),
	}
	fromJSON(r.Env, &sn.Env)
	fromJSON(r.Entrypoint, &sn.Entrypoint)
	return sn
}

// InsertSnapshot stores a new snapshot. A taken name is a conflict.
func (s *Store) InsertSnapshot(ctx context.Context, sn engine.Snapshot) error {
	_, err := s.w.NewInsert().Model(toSnapshotRow(&sn)).Exec(ctx)
	return nameTaken(translate(err, "insert a snapshot"), "snapshot", sn.Name)
}

// UpdateSnapshot overwrites a snapshot.
func (s *Store) UpdateSnapshot(ctx context.Context, sn engine.Snapshot) error {
	res, err := s.w.NewUpdate().Model(toSnapshotRow(&sn)).WherePK().
		ExcludeColumn("organization_id", "created_at").Exec(ctx)
	if err != nil {
		return nameTaken(translate(err, "update a snapshot"), "snapshot", sn.Name)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return engine.Errorf(engine.KindNotFound, "snapshot %q not found", sn.Name).Wrap(err)
	}
	return nil
}

// UseSnapshot remembers that a sandbox was made from the snapshot.
func (s *Store) UseSnapshot(ctx context.Context, id string, at time.Time) error {
	_, err := s.w.NewUpdate().Table("snapshots").Set("last_used_at = ?", toNanos(at)).Where("id = ?", id).Exec(ctx)
	return translate(err, "write a snapshot's last use")
}

// DeleteSnapshot removes a snapshot's record; nil when it is gone already.
func (s *Store) DeleteSnapshot(ctx context.Context, id string) error {
	_, err := s.w.NewDelete().Table("snapshots").Where("id = ?", id).Exec(ctx)
	return translate(err, "delete a snapshot")
}

// Snapshot finds a snapshot by id or name: the organization's own first, then
// the general ones.
func (s *Store) Snapshot(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	row := new(snapshotRow)
	err := s.r.NewSelect().Model(row).Where("(organization_id = ? OR general)", ref.OrganizationID).
		Where("(id = ? OR name = ?)", ref.IDOrName, ref.IDOrName).
		OrderExpr("CASE WHEN id = ? THEN 0 ELSE 1 END, CASE WHEN organization_id = ? AND NOT general THEN 0 ELSE 1 END",
			ref.IDOrName, ref.OrganizationID).Limit(1).Scan(ctx)
	if err != nil {
		return engine.Snapshot{}, missing(translate(err, "read a snapshot"), "snapshot", ref.IDOrName)
	}
	return row.snapshot(), nil
}

// AllSnapshots returns every snapshot of every organization, oldest first.
func (s *Store) AllSnapshots(ctx context.Context) ([]engine.Snapshot, error) {
	var rows []snapshotRow
	if err := s.r.NewSelect().Model(&rows).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, translate(err, "read all snapshots")
	}
	return snapshots(rows), nil
}

// ListSnapshots returns one page of an organization's and the general
// snapshots, newest use first.
func (s *Store) ListSnapshots(ctx context.Context, q engine.SnapshotQuery) (engine.SnapshotPage, error) {
	limit, err := pageLimit(q.Limit)
	if err != nil {
		return engine.SnapshotPage{}, err
	}
	if q.Page < 0 {
		return engine.SnapshotPage{}, engine.Errorf(engine.KindInvalid, "page is %d", q.Page).WithHint("pages count from 1")
	}
	var rows []snapshotRow
	sel := s.r.NewSelect().Model(&rows).Where("(organization_id = ? OR general)", q.OrganizationID)
	if q.Name != "" {
		sel = sel.Where(`lower(name) LIKE ? ESCAPE '!'`, likePart(strings.ToLower(q.Name)))
	}
	total, err := sel.Order("general", "last_used_at DESC", "created_at DESC", "id").
		Limit(int64(limit)).Offset(int64(max(q.Page, 1)-1) * int64(limit)).ScanAndCount(ctx)
	if err != nil {
		return engine.SnapshotPage{}, translate(err, "list snapshots")
	}
	return engine.SnapshotPage{Items: snapshots(rows), Total: int(total)}, nil
}

func snapshots(rows []snapshotRow) []engine.Snapshot {
	out := make([]engine.Snapshot, len(rows))
	for i := range rows {
		out[i] = rows[i].snapshot()
	}
	return out
}

// SnapshotByID returns a snapshot of any organization.
func (s *Store) SnapshotByID(ctx context.Context, id string) (engine.Snapshot, error) {
	row := new(snapshotRow)
	if err := s.r.NewSelect().Model(row).Where("id = ?", id).Scan(ctx); err != nil {
		return engine.Snapshot{}, missing(translate(err, "read a snapshot"), "snapshot", id)
	}
	return row.snapshot(), nil
}

// ImageUses counts what needs an image, named by reference or digest: snapshots
// that are not switched off, saved disks above it, and sandboxes.
func (s *Store) ImageUses(ctx context.Context, image, digest string) (int, error) {
	same := func(q *bun.SelectQuery) *bun.SelectQuery {
		return q.Where("(image = ? OR (image_digest <> '' AND image_digest = ?))", image, digest)
	}
	snapshots, err := s.r.NewSelect().Model((*snapshotRow)(nil)).Apply(same).
		Where("(disk <> '' OR state NOT IN ('inactive', 'error', 'build_failed'))").Count(ctx)
	if err != nil {
		return 0, translate(err, "count the snapshots of an image")
	}
	sandboxes, err := s.r.NewSelect().Model((*sandboxRow)(nil)).Apply(same).Where("state <> 'destroyed'").Count(ctx)
	return int(snapshots + sandboxes), translate(err, "count the sandboxes of an image")
}
