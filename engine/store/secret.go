package store

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// Secret is a secret's record with its sealed value.
type Secret struct {
	engine.Secret
	Sealed secret.Sealed
}

type secretRow struct {
	bun.BaseModel `bun:"table:secrets,alias:c"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Description    string
	Hosts          string
	KeyID          string
	Sealed         string
	CreatedAt      int64
	UpdatedAt      int64
}

func toSecretRow(s *Secret) *secretRow {
	return &secretRow{
		ID: s.ID, OrganizationID: s.OrganizationID, Name: s.Name, Description: s.Description, Hosts: toJSON(s.Hosts),
		KeyID: s.Sealed.KeyID, Sealed: s.Sealed.Text, CreatedAt: toNanos(s.CreatedAt), UpdatedAt: toNanos(s.UpdatedAt),
	}
}

func (r *secretRow) secret() Secret {
	s := Secret{
		Secret: engine.Secret{
			ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, Description: r.Description,
			Placeholder: secret.Placeholder(r.ID), CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
		},
		Sealed: secret.Sealed{KeyID: r.KeyID, Text: r.Sealed},
	}
	fromJSON(r.Hosts, &s.Hosts)
	return s
}

// InsertSecret stores a new secret. A taken name is a conflict.
func (s *Store) InsertSecret(ctx context.Context, sec Secret) error {
	_, err := s.w.NewInsert().Model(toSecretRow(&sec)).Exec(ctx)
	return nameTaken(translate(err, "insert a secret"), "secret", sec.Name)
}

// UpdateSecret overwrites a secret.
func (s *Store) UpdateSecret(ctx context.Context, sec Secret) error {
	res, err := s.w.NewUpdate().Model(toSecretRow(&sec)).WherePK().Where("organization_id = ?", sec.OrganizationID).
		ExcludeColumn("organization_id", "name", "created_at").Exec(ctx)
	return changedOne(res, translate(err, "update a secret"), "secret", sec.Name)
}

// DeleteSecret removes a secret.
func (s *Store) DeleteSecret(ctx context.Context, organizationID, id string) error {
	res, err := s.w.NewDelete().Table("secrets").Where("id = ? AND organization_id = ?", id, organizationID).Exec(ctx)
	return changedOne(res, translate(err, "delete a secret"), "secret", id)
}

// Secret finds a secret by id, else by name.
func (s *Store) Secret(ctx context.Context, ref engine.SecretRef) (Secret, error) {
	row := new(secretRow)
	err := s.r.NewSelect().Model(row).Where("organization_id = ?", ref.OrganizationID).
		Where("(id = ? OR name = ?)", ref.IDOrName, ref.IDOrName).
		OrderExpr("CASE WHEN id = ? THEN 0 ELSE 1 END", ref.IDOrName).Limit(1).Scan(ctx)
	if err != nil {
		return Secret{}, missing(translate(err, "read a secret"), "secret", ref.IDOrName)
	}
	return row.secret(), nil
}

// SecretsByID returns those of an organization's secrets that exist.
func (s *Store) SecretsByID(ctx context.Context, organizationID string, ids []string) ([]Secret, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []secretRow
	err := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID).Where("id IN (?)", bun.List(ids)).Scan(ctx)
	if err != nil {
		return nil, translate(err, "read secrets")
	}
	out := make([]Secret, len(rows))
	for i := range rows {
		out[i] = rows[i].secret()
	}
	return out, nil
}

var secretSorts = map[string]string{"": "created_at", "createdAt": "created_at", "updatedAt": "updated_at", "name": "name"}

// ListSecrets returns one page. Total counts all matches, not the page.
func (s *Store) ListSecrets(ctx context.Context, q engine.SecretQuery) (engine.SecretPage, error) {
	column, ok := secretSorts[q.Sort]
	if !ok {
		return engine.SecretPage{}, engine.Errorf(engine.KindInvalid, "sort %q is not known", q.Sort).
			WithHint("use one of name, createdAt, updatedAt")
	}
	limit, err := pageLimit(q.Limit)
	if err != nil {
		return engine.SecretPage{}, err
	}
	var rows []secretRow
	sel := s.r.NewSelect().Model(&rows).Where("organization_id = ?", q.OrganizationID)
	if q.Name != "" {
		sel = sel.Where(`lower(name) LIKE ? ESCAPE '!'`, likePart(strings.ToLower(q.Name)))
	}
	total, err := sel.Clone().Count(ctx)
	if err != nil {
		return engine.SecretPage{}, translate(err, "count secrets")
	}
	if sel, err = afterCursor(sel, column, q.Cursor, q.Ascending); err != nil {
		return engine.SecretPage{}, err
	}
	if err := sel.Limit(int64(limit) + 1).Scan(ctx); err != nil {
		return engine.SecretPage{}, translate(err, "list secrets")
	}
	return secretPage(rows, limit, int(total), column, q.Ascending), nil
}

func secretPage(rows []secretRow, limit, total int, column string, ascending bool) engine.SecretPage {
	page := engine.SecretPage{Total: total, Items: []engine.Secret{}}
	if len(rows) > limit {
		rows = rows[:limit]
		last := &rows[limit-1]
		value := map[string]any{"name": last.Name, "created_at": last.CreatedAt, "updated_at": last.UpdatedAt}[column]
		if v, err := json.Marshal(value); err == nil {
			page.Next = cursor{Sort: column, Asc: ascending, Value: v, ID: last.ID}.encode()
		}
	}
	for i := range rows {
		page.Items = append(page.Items, rows[i].secret().Secret)
	}
	return page
}

// Resealable is one sealed value of any table.
type Resealable struct {
	Table, ID, OrganizationID string
	Sealed                    secret.Sealed
}

// sealedTables are those with the columns key_id and sealed.
var sealedTables = []string{"secrets", "registries", "webhook_endpoints"}

// SealedBefore returns up to a thousand values that were sealed with another
// key than this.
func (s *Store) SealedBefore(ctx context.Context, keyID string) ([]Resealable, error) {
	var out []Resealable
	for _, table := range sealedTables {
		var rows []struct{ ID, OrganizationID, KeyID, Sealed string }
		err := s.r.NewSelect().Table(table).Column("id", "organization_id", "key_id", "sealed").
			Where("key_id <> ?", keyID).Limit(1000).Scan(ctx, &rows)
		if err != nil {
			return nil, translate(err, "read sealed values")
		}
		for _, r := range rows {
			out = append(out, Resealable{table, r.ID, r.OrganizationID, secret.Sealed{KeyID: r.KeyID, Text: r.Sealed}})
		}
	}
	return out, nil
}

// Reseal replaces a sealed value unless it has changed since it was read.
func (s *Store) Reseal(ctx context.Context, old Resealable, fresh secret.Sealed) error {
	_, err := s.w.NewUpdate().Table(old.Table).Set("key_id = ?", fresh.KeyID).Set("sealed = ?", fresh.Text).
		Where("id = ? AND sealed = ?", old.ID, old.Sealed.Text).Exec(ctx)
	return translate(err, "seal a value anew")
}

// SandboxesWithSecret returns the sandboxes that a secret is attached to.
func (s *Store) SandboxesWithSecret(ctx context.Context, organizationID, secretID string) ([]Sandbox, error) {
	var rows []sandboxRow
	err := s.r.NewSelect().Model(&rows).Where("organization_id = ? AND state <> 'destroyed'", organizationID).
		Where(`secrets LIKE ? ESCAPE '!'`, likePart(`"`+secretID+`"`)).Scan(ctx)
	if err != nil {
		return nil, translate(err, "find sandboxes of a secret")
	}
	out := make([]Sandbox, len(rows))
	for i := range rows {
		out[i] = rows[i].sandbox()
	}
	return out, nil
}
