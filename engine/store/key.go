package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

// Key is an API key's record. The secret itself is never stored.
type Key struct {
	engine.APIKey
	Admin bool
}

type keyRow struct {
	bun.BaseModel `bun:"table:api_keys,alias:k"`

	ID             string `bun:",pk"`
	OrganizationID string
	UserID         string
	Name           string
	Hash           string
	Prefix         string
	Suffix         string
	Unrestricted   bool
	Permissions    string
	Scope          string // JSON; empty: none
	Policy         string
	Admin          bool
	CreatedAt      int64
	ExpiresAt      int64
	LastUsedAt     int64
}

func (r *keyRow) key() Key {
	k := Key{Admin: r.Admin, APIKey: engine.APIKey{
		ID: r.ID, OrganizationID: r.OrganizationID, UserID: r.UserID, Name: r.Name, Prefix: r.Prefix, Suffix: r.Suffix,
		Unrestricted: r.Unrestricted, Policy: r.Policy, CreatedAt: fromNanos(r.CreatedAt), ExpiresAt: fromNanos(r.ExpiresAt), LastUsedAt: fromNanos(r.LastUsedAt),
	}}
	fromJSON(r.Permissions, &k.Permissions)
	fromJSON(r.Scope, &k.Scope)
	return k
}

// hashSecret needs no salt and no slow hash, because secrets are random and
// long; that keeps authentication off the CPU profile.
func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func keyToRow(k Key, secret string) *keyRow {
	row := &keyRow{
		ID: k.ID, OrganizationID: k.OrganizationID, UserID: k.UserID, Name: k.Name, Hash: hashSecret(secret),
		Prefix: k.Prefix, Suffix: k.Suffix, Unrestricted: k.Unrestricted, Permissions: toJSON(k.Permissions), Policy: k.Policy, Admin: k.Admin, CreatedAt: toNanos(k.CreatedAt),
		ExpiresAt: toNanos(k.ExpiresAt), LastUsedAt: toNanos(k.LastUsedAt),
	}
	if k.Scope.Limits() {
		row.Scope = toJSON(k.Scope)
	}
	return row
}

// InsertKey stores a key with the hash of its secret. A taken name is a conflict.
func (s *Store) InsertKey(ctx context.Context, k Key, secret string) error {
	_, err := s.w.NewInsert().Model(keyToRow(k, secret)).Exec(ctx)
	return nameTaken(translate(err, "insert a key"), "api key", k.Name)
}

// PutKey stores a key under its organization, user and name, in place of the one
// that had the name or the secret before.
func (s *Store) PutKey(ctx context.Context, k Key, secret string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewDelete().Table("api_keys").
			Where("(organization_id = ? AND user_id = ? AND name = ?) OR hash = ?", k.OrganizationID, k.UserID, k.Name, hashSecret(secret)).Exec(ctx)
		if err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(keyToRow(k, secret)).Exec(ctx)
		return err
	})
	return translate(err, "store a key")
}

// KeyBySecret finds a key by its secret, expired ones included.
func (s *Store) KeyBySecret(ctx context.Context, secret string) (Key, error) {
	row := new(keyRow)
	if err := s.r.NewSelect().Model(row).Where("hash = ?", hashSecret(secret)).Scan(ctx); err != nil {
		return Key{}, translate(err, "read a key")
	}
	return row.key(), nil
}

// ListKeys returns an organization's keys, oldest first.
func (s *Store) ListKeys(ctx context.Context, organizationID string) ([]Key, error) {
	var rows []keyRow
	err := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID).Order("created_at", "id").Scan(ctx)
	if err != nil {
		return nil, translate(err, "list keys")
	}
	out := make([]Key, len(rows))
	for i := range rows {
		out[i] = rows[i].key()
	}
	return out, nil
}

// KeyByName finds a user's key in an organization.
func (s *Store) KeyByName(ctx context.Context, organizationID, userID, name string) (Key, error) {
	row := new(keyRow)
	err := s.r.NewSelect().Model(row).Where("organization_id = ? AND user_id = ? AND name = ?", organizationID, userID, name).Scan(ctx)
	if err != nil {
		return Key{}, missing(translate(err, "read a key"), "api key", name)
	}
	return row.key(), nil
}

// DeleteKey revokes a user's key in an organization.
func (s *Store) DeleteKey(ctx context.Context, organizationID, userID, name string) error {
	res, err := s.w.NewDelete().Table("api_keys").
		Where("organization_id = ? AND user_id = ? AND name = ?", organizationID, userID, name).Exec(ctx)
	return affected(res, err, "delete a key", "api key", name)
}

// TouchKey remembers that a key was used.
func (s *Store) TouchKey(ctx context.Context, id string, at time.Time) error {
	_, err := s.w.NewUpdate().Table("api_keys").Set("last_used_at = ?", toNanos(at)).Where("id = ?", id).Exec(ctx)
	return translate(err, "write a key's last use")
}
