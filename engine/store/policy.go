package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type policyRow struct {
	bun.BaseModel `bun:"table:policies,alias:p"`

	OrganizationID string `bun:",pk"`
	Name           string `bun:",pk"`
	Description    string
	Document       string
	Revision       int64
	CreatedBy      string
	UpdatedBy      string
	CreatedAt      int64
	UpdatedAt      int64
}

func (r *policyRow) policy() engine.NamedPolicy {
	return engine.NamedPolicy{
		OrganizationID: r.OrganizationID, Name: r.Name, Description: r.Description, Document: r.Document, Revision: r.Revision,
		CreatedBy: r.CreatedBy, UpdatedBy: r.UpdatedBy, CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
	}
}

// PolicyUse is what is under a policy or bound to it.
type PolicyUse struct {
	Sandboxes []Sandbox
	Snapshots []string // names
	Keys      []string // names
}

// Policies returns an organization's policies by name.
func (s *Store) Policies(ctx context.Context, organizationID string) ([]engine.NamedPolicy, error) {
	var rows []policyRow
	if err := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID).Order("name").Scan(ctx); err != nil {
		return nil, translate(err, "list policies")
	}
	out := make([]engine.NamedPolicy, len(rows))
	for i := range rows {
		out[i] = rows[i].policy()
	}
	return out, nil
}

// Policy returns one of an organization's policies.
func (s *Store) Policy(ctx context.Context, organizationID, name string) (engine.NamedPolicy, error) {
	row := new(policyRow)
	err := s.r.NewSelect().Model(row).Where("organization_id = ? AND name = ?", organizationID, name).Scan(ctx)
	if err != nil {
		return engine.NamedPolicy{}, noPolicy(translate(err, "read a policy"), name)
	}
	return row.policy(), nil
}

func noPolicy(err error, name string) error {
	if engine.KindOf(err) != engine.KindNotFound {
		return err
	}
	return engine.Errorf(engine.KindNotFound, "policy %q not found", name).WithHint("list the policies that there are").Wrap(err)
}

// PutPolicy stores a policy in place of the one that has its name, and returns
// it with its revision. expect is the revision that must be there, 0 for none;
// nil takes any. Another is a conflict.
func (s *Store) PutPolicy(ctx context.Context, p engine.NamedPolicy, expect *int64) (engine.NamedPolicy, error) {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		old := new(policyRow)
		sel := tx.NewSelect().Model(old).Where("organization_id = ? AND name = ?", p.OrganizationID, p.Name)
		if s.postgres {
			sel = sel.For("UPDATE")
		}
		err := sel.Scan(ctx)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if expect != nil && *expect != old.Revision {
			return stalePolicy(p.Name, *expect, old.Revision)
		}
		row := &policyRow{
			OrganizationID: p.OrganizationID, Name: p.Name, Description: p.Description, Document: p.Document, Revision: old.Revision + 1,
			CreatedBy: p.UpdatedBy, UpdatedBy: p.UpdatedBy, CreatedAt: toNanos(p.UpdatedAt), UpdatedAt: toNanos(p.UpdatedAt),
		}
		if old.Revision == 0 {
			_, err = tx.NewInsert().Model(row).Exec(ctx)
		} else {
			row.CreatedBy, row.CreatedAt = old.CreatedBy, old.CreatedAt
			_, err = tx.NewUpdate().Model(row).WherePK().Exec(ctx)
		}
		p = row.policy()
		return err
	})
	if err = translate(err, "store a policy"); err != nil {
		return engine.NamedPolicy{}, err
	}
	return p, nil
}

func stalePolicy(name string, expect, is int64) error {
	switch {
	case expect == 0:
		return engine.Errorf(engine.KindConflict, "policy %q exists already", name).WithHint("choose another name, or put it without a revision")
	case is == 0:
		return engine.Errorf(engine.KindConflict, "policy %q does not exist any more", name).WithHint("put it without a revision to make it anew")
	}
	return engine.Errorf(engine.KindConflict, "policy %q was changed meanwhile: its revision is %d", name, is).WithHint("read it again and repeat the change")
}

// DeletePolicy removes a policy that nothing is under. It tells whether it was
// removed; one that is in use stays.
func (s *Store) DeletePolicy(ctx context.Context, organizationID, name string) (removed bool, err error) {
	del := s.w.NewDelete().Model((*policyRow)(nil)).Where("organization_id = ? AND name = ?", organizationID, name)
	for _, table := range []string{"sandboxes", "snapshots", "api_keys"} {
		users := s.w.NewSelect().Table(table).ColumnExpr("1").Where("organization_id = ? AND policy = ?", organizationID, name)
		if table == "sandboxes" {
			users = users.Where("state <> 'destroyed'")
		}
		del = del.Where("NOT EXISTS (?)", users)
	}
	res, err := del.Exec(ctx)
	if err != nil {
		return false, translate(err, "delete a policy")
	}
	n, err := res.RowsAffected()
	return n > 0, translate(err, "delete a policy")
}

// PolicyUse returns what is under a policy, the library's included.
func (s *Store) PolicyUse(ctx context.Context, organizationID, name string) (use PolicyUse, err error) {
	var rows []sandboxRow
	err = s.r.NewSelect().Model(&rows).Where("organization_id = ? AND policy = ? AND state <> 'destroyed'", organizationID, name).
		Order("name").Scan(ctx)
	if err != nil {
		return use, translate(err, "find the sandboxes of a policy")
	}
	for i := range rows {
		use.Sandboxes = append(use.Sandboxes, rows[i].sandbox())
	}
	for table, names := range map[string]*[]string{"snapshots": &use.Snapshots, "api_keys": &use.Keys} {
		err := s.r.NewSelect().Table(table).Column("name").Where("organization_id = ? AND policy = ?", organizationID, name).
			Order("name").Scan(ctx, names)
		if err != nil {
			return use, translate(err, "find what uses a policy")
		}
	}
	return use, nil
}

// CountPolicySandboxes counts the sandboxes under a policy.
func (s *Store) CountPolicySandboxes(ctx context.Context, organizationID, name string) (int, error) {
	n, err := s.r.NewSelect().Model((*sandboxRow)(nil)).
		Where("organization_id = ? AND policy = ? AND state <> 'destroyed'", organizationID, name).Count(ctx)
	return int(n), translate(err, "count the sandboxes of a policy")
}
