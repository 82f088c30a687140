package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type sshRow struct {
	bun.BaseModel `bun:"table:ssh_access,alias:a"`

	SandboxID      string `bun:",pk"`
	ID             string
	OrganizationID string
	KeyID          string
	Hash           string
	CreatedAt      int64
	ExpiresAt      int64
}

func (r *sshRow) access() engine.SSHAccess {
	return engine.SSHAccess{
		ID: r.ID, SandboxID: r.SandboxID, OrganizationID: r.OrganizationID, KeyID: r.KeyID,
		CreatedAt: fromNanos(r.CreatedAt), ExpiresAt: fromNanos(r.ExpiresAt),
	}
}

// PutSSHAccess stores a sandbox's access with the hash of its token, in place
// of the one before, and removes those of all sandboxes that have expired.
func (s *Store) PutSSHAccess(ctx context.Context, a engine.SSHAccess, token string) error {
	row := &sshRow{
		SandboxID: a.SandboxID, ID: a.ID, OrganizationID: a.OrganizationID, KeyID: a.KeyID, Hash: hashSecret(token),
		CreatedAt: toNanos(a.CreatedAt), ExpiresAt: toNanos(a.ExpiresAt),
	}
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewDelete().Table("ssh_access").Where("expires_at <= ?", row.CreatedAt).Exec(ctx)
		if err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(row).On("CONFLICT (sandbox_id) DO UPDATE").
			Set("id = EXCLUDED.id, organization_id = EXCLUDED.organization_id, key_id = EXCLUDED.key_id").
			Set("hash = EXCLUDED.hash, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at").Exec(ctx)
		return err
	})
	return translate(err, "store an SSH access")
}

// SSHAccess finds an access by its token, expired ones included.
func (s *Store) SSHAccess(ctx context.Context, token string) (engine.SSHAccess, error) {
	row := new(sshRow)
	if err := s.r.NewSelect().Model(row).Where("hash = ?", hashSecret(token)).Scan(ctx); err != nil {
		return engine.SSHAccess{}, translate(err, "read an SSH access")
	}
	return row.access(), nil
}

// DeleteSSHAccess removes a sandbox's access, with a token only if it is that
// one's, and reports whether there was any.
func (s *Store) DeleteSSHAccess(ctx context.Context, sandboxID, token string) (bool, error) {
	q := s.w.NewDelete().Table("ssh_access").Where("sandbox_id = ?", sandboxID)
	if token != "" {
		q = q.Where("hash = ?", hashSecret(token))
	}
	res, err := q.Exec(ctx)
	if err != nil {
		return false, translate(err, "delete an SSH access")
	}
	n, err := res.RowsAffected()
	return n > 0, translate(err, "delete an SSH access")
}

// KeyHolds tells whether a key is there, has not expired, and its user is still
// a member of its organization.
func (s *Store) KeyHolds(ctx context.Context, id string, now time.Time) (bool, error) {
	ok, err := s.r.NewSelect().Table("api_keys").Where("id = ? AND (expires_at = 0 OR expires_at > ?)", id, toNanos(now)).
		Where("EXISTS (SELECT 1 FROM members AS m WHERE m.organization_id = api_keys.organization_id AND m.user_id = api_keys.user_id)").Exists(ctx)
	return ok, translate(err, "read a key")
}
