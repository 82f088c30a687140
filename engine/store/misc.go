package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type idempotencyRow struct {
	bun.BaseModel `bun:"table:idempotency"`

	OrganizationID string `bun:",pk"`
	Key            string `bun:",pk"`
	Fingerprint    string
	Object         string
	ExpiresAt      int64
}

func insertKey(ctx context.Context, tx bun.Tx, k *Idempotency) error {
	row := &idempotencyRow{
		OrganizationID: k.OrganizationID, Key: k.Key, Fingerprint: k.Fingerprint,
		Object: k.Object, ExpiresAt: toNanos(k.ExpiresAt),
	}
	// A key that has expired is free again.
	_, err := tx.NewDelete().Model(row).WherePK().Where("expires_at < ?", time.Now().UnixNano()).Exec(ctx)
	if err != nil {
		return translate(err, "replace an idempotency key")
	}
	_, err = tx.NewInsert().Model(row).Exec(ctx)
	if err = translate(err, "insert an idempotency key"); Conflicting(err) {
		return engine.Errorf(engine.KindConflict, "a request with the same idempotency key is under way").
			WithHint("wait for it, or use a new key").Wrap(err)
	}
	return err
}

// Idempotency returns what an earlier request under the key made, or
// KindNotFound when there was none or it has expired by now.
func (s *Store) Idempotency(ctx context.Context, organizationID, key string, now time.Time) (Idempotency, error) {
	row := new(idempotencyRow)
	err := s.r.NewSelect().Model(row).Where("organization_id = ? AND ? = ?", organizationID, bun.Ident("key"), key).
		Where("expires_at >= ?", toNanos(now)).Scan(ctx)
	if err != nil {
		return Idempotency{}, translate(err, "read an idempotency key")
	}
	return Idempotency{
		OrganizationID: row.OrganizationID, Key: row.Key, Fingerprint: row.Fingerprint,
		Object: row.Object, ExpiresAt: fromNanos(row.ExpiresAt),
	}, nil
}

// PurgeIdempotency forgets keys that expired before the given time.
func (s *Store) PurgeIdempotency(ctx context.Context, before time.Time) error {
	_, err := s.w.NewDelete().Table("idempotency").Where("expires_at < ?", toNanos(before)).Exec(ctx)
	return translate(err, "purge idempotency keys")
}

// Meta returns a value that the server stored about itself, "" when none.
func (s *Store) Meta(ctx context.Context, name string) (string, error) {
	var value string
	err := s.r.NewRaw("SELECT value FROM meta WHERE name = ?", name).Scan(ctx, &value)
	if err = translate(err, "read meta"); engine.KindOf(err) == engine.KindNotFound {
		return "", nil
	}
	return value, err
}

// SetMeta stores a value that the server keeps about itself.
func (s *Store) SetMeta(ctx context.Context, name, value string) error {
	_, err := s.w.NewRaw("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
		name, value).Exec(ctx)
	return translate(err, "write meta")
}
