package store

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
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

// AuditEntry says who did what to which object, and how it ended.
type AuditEntry struct {
	ID             string // time-ordered; set by AppendAudit when empty
	OrganizationID string
	At             time.Time
	Actor          string // key id, or what part of the server acted
	Verb           string // as sandbox.create
	Object         string // id
	Outcome        string // ok, or the kind of the error
	Detail         string
}

type auditRow struct {
	bun.BaseModel `bun:"table:audit"`

	ID             string `bun:",pk"`
	OrganizationID string
	At             int64
	Actor          string
	Verb           string
	Object         string
	Outcome        string
	Detail         string
}

// AppendAudit stores entries in one transaction.
func (s *Store) AppendAudit(ctx context.Context, entries ...AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	rows := make([]auditRow, len(entries))
	for i, e := range entries {
		if e.ID == "" {
			e.ID = ulid.Make().String()
		}
		rows[i] = auditRow{
			ID: e.ID, OrganizationID: e.OrganizationID, At: toNanos(e.At), Actor: e.Actor,
			Verb: e.Verb, Object: e.Object, Outcome: e.Outcome, Detail: e.Detail,
		}
	}
	_, err := s.w.NewInsert().Model(&rows).Exec(ctx)
	return translate(err, "append to the audit trail")
}

// Audit returns an organization's entries before the given id, newest first;
// an empty id starts at the newest.
func (s *Store) Audit(ctx context.Context, organizationID, before string, limit int) ([]AuditEntry, error) {
	n, err := pageLimit(limit)
	if err != nil {
		return nil, err
	}
	var rows []auditRow
	q := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID)
	if before != "" {
		q = q.Where("id < ?", before)
	}
	if err := q.Order("id DESC").Limit(int64(n)).Scan(ctx); err != nil {
		return nil, translate(err, "read the audit trail")
	}
	out := make([]AuditEntry, len(rows))
	for i, r := range rows {
		out[i] = AuditEntry{
			ID: r.ID, OrganizationID: r.OrganizationID, At: fromNanos(r.At), Actor: r.Actor,
			Verb: r.Verb, Object: r.Object, Outcome: r.Outcome, Detail: r.Detail,
		}
	}
	return out, nil
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
