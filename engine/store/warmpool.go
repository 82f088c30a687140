package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type warmPoolRow struct {
	bun.BaseModel `bun:"table:warm_pools,alias:p"`

	ID             string `bun:",pk"`
	OrganizationID string
	SnapshotID     string
	Snapshot       string
	Target         string
	Size           int64
	CreatedAt      int64
	UpdatedAt      int64
}

func (r *warmPoolRow) pool() engine.WarmPool {
	return engine.WarmPool{
		ID: r.ID, OrganizationID: r.OrganizationID, SnapshotID: r.SnapshotID, Snapshot: r.Snapshot, Target: r.Target,
		Size: int(r.Size), CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
	}
}

// InsertWarmPool stores what is wanted of a pool. A second one of the same
// snapshot and target is a conflict.
func (s *Store) InsertWarmPool(ctx context.Context, p engine.WarmPool) error {
	_, err := s.w.NewInsert().Model(&warmPoolRow{
		ID: p.ID, OrganizationID: p.OrganizationID, SnapshotID: p.SnapshotID, Snapshot: p.Snapshot, Target: p.Target,
		Size: int64(p.Size), CreatedAt: toNanos(p.CreatedAt), UpdatedAt: toNanos(p.UpdatedAt),
	}).Exec(ctx)
	if err = translate(err, "insert a warm pool"); Conflicting(err) {
		return engine.Errorf(engine.KindConflict, "snapshot %q has a warm pool", p.Snapshot).WithHint("change its size").Wrap(err)
	}
	return err
}

// ResizeWarmPool changes a pool's size.
func (s *Store) ResizeWarmPool(ctx context.Context, organizationID, id string, size int, at time.Time) error {
	res, err := s.w.NewUpdate().Table("warm_pools").Set("size = ?", size).Set("updated_at = ?", toNanos(at)).
		Where("id = ? AND organization_id = ?", id, organizationID).Exec(ctx)
	return changedOne(res, translate(err, "resize a warm pool"), "warm pool", id)
}

// DeleteWarmPool removes a pool.
func (s *Store) DeleteWarmPool(ctx context.Context, organizationID, id string) error {
	res, err := s.w.NewDelete().Table("warm_pools").Where("id = ? AND organization_id = ?", id, organizationID).Exec(ctx)
	return changedOne(res, translate(err, "delete a warm pool"), "warm pool", id)
}

// WarmPools returns the pools of an organization, or of all when it is empty,
// oldest first.
func (s *Store) WarmPools(ctx context.Context, organizationID string) ([]engine.WarmPool, error) {
	var rows []warmPoolRow
	sel := s.r.NewSelect().Model(&rows).Order("created_at", "id")
	if organizationID != "" {
		sel = sel.Where("organization_id = ?", organizationID)
	}
	if err := sel.Scan(ctx); err != nil {
		return nil, translate(err, "list warm pools")
	}
	out := make([]engine.WarmPool, len(rows))
	for i := range rows {
		out[i] = rows[i].pool()
	}
	return out, nil
}
