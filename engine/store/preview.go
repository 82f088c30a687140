package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type linkRow struct {
	bun.BaseModel `bun:"table:preview_links,alias:l"`

	Hash           string `bun:",pk"`
	SandboxID      string
	OrganizationID string
	Port           int
	ExpiresAt      int64
}

// PreviewGeneration counts how often a sandbox's preview secrets were changed.
func (s *Store) PreviewGeneration(ctx context.Context, sandboxID string) (uint64, error) {
	var all []int64
	err := s.r.NewSelect().Table("preview_keys").Column("generation").Where("sandbox_id = ?", sandboxID).Scan(ctx, &all)
	if err != nil || len(all) == 0 {
		return 0, translate(err, "read a preview key")
	}
	return uint64(all[0]), nil
}

// RotatePreviewKey adds one to the generation and forgets the links.
func (s *Store) RotatePreviewKey(ctx context.Context, sandboxID string) (uint64, error) {
	var generation int64
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Table("preview_links").Where("sandbox_id = ?", sandboxID).Exec(ctx); err != nil {
			return err
		}
		return tx.NewRaw("INSERT INTO preview_keys (sandbox_id, generation) VALUES (?, 1) "+
			"ON CONFLICT (sandbox_id) DO UPDATE SET generation = preview_keys.generation + 1 RETURNING generation",
			sandboxID).Scan(ctx, &generation)
	})
	return uint64(generation), translate(err, "change a preview key")
}

// InsertPreviewLink stores a link with the hash of its token. More than most
// links of one sandbox that are good at now are refused as exhausted.
func (s *Store) InsertPreviewLink(ctx context.Context, l engine.PreviewLink, token string, most int, now time.Time) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := tx.NewSelect().Table("preview_links").Where("sandbox_id = ?", l.SandboxID).
			Where("expires_at > ?", toNanos(now)).Count(ctx)
		if err != nil {
			return err
		}
		if n >= int64(most) {
			return engine.Errorf(engine.KindExhausted, "the sandbox has %d signed preview links", n).
				WithHint("expire some, or wait until they expire")
		}
		_, err = tx.NewInsert().Model(&linkRow{
			Hash: hashSecret(token), SandboxID: l.SandboxID, OrganizationID: l.OrganizationID,
			Port: l.Port, ExpiresAt: toNanos(l.ExpiresAt),
		}).Exec(ctx)
		return err
	})
	return translate(err, "store a preview link")
}

// PreviewLink finds a link by its token, unless it has expired by now.
func (s *Store) PreviewLink(ctx context.Context, token string, now time.Time) (engine.PreviewLink, error) {
	row := new(linkRow)
	err := s.r.NewSelect().Model(row).Where("hash = ?", hashSecret(token)).Where("expires_at > ?", toNanos(now)).Scan(ctx)
	if err != nil {
		return engine.PreviewLink{}, translate(err, "read a preview link")
	}
	return engine.PreviewLink{
		SandboxID: row.SandboxID, OrganizationID: row.OrganizationID, Port: row.Port, ExpiresAt: fromNanos(row.ExpiresAt),
	}, nil
}

// DeletePreviewLink revokes a link.
func (s *Store) DeletePreviewLink(ctx context.Context, sandboxID string, port int, token string) error {
	res, err := s.w.NewDelete().Table("preview_links").Where("hash = ?", hashSecret(token)).
		Where("sandbox_id = ?", sandboxID).Where("port = ?", port).Exec(ctx)
	if err != nil {
		return translate(err, "delete a preview link")
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return engine.Errorf(engine.KindNotFound, "the signed preview link does not exist").
			WithHint("it may have expired already").Wrap(err)
	}
	return nil
}

// PurgePreviews forgets links that have expired by now, and all of sandboxes
// that are no more.
func (s *Store) PurgePreviews(ctx context.Context, now time.Time) error {
	const gone = "sandbox_id NOT IN (SELECT id FROM sandboxes)"
	_, err := s.w.NewDelete().Table("preview_links").Where("expires_at <= ? OR "+gone, toNanos(now)).Exec(ctx)
	if err == nil {
		_, err = s.w.NewDelete().Table("preview_keys").Where(gone).Exec(ctx)
	}
	return translate(err, "purge preview links")
}
