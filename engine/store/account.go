package store

import (
	"context"
	"database/sql"
	"strings"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

// affected makes an error of a change that met no row.
func affected(res sql.Result, err error, doing, what, name string) error {
	if err != nil {
		return translate(err, doing)
	}
	n, err := res.RowsAffected()
	if err != nil || n == 0 {
		return engine.Errorf(engine.KindNotFound, "%s %q not found", what, name).Wrap(err)
	}
	return nil
}

type userRow struct {
	bun.BaseModel `bun:"table:users,alias:u"`

	ID            string `bun:",pk"`
	Name          string
	Email         string
	EmailVerified bool
	Admin         bool
	CreatedAt     int64
}

func (r *userRow) user() engine.User {
	return engine.User{
		ID: r.ID, Name: r.Name, Email: r.Email, EmailVerified: r.EmailVerified, Admin: r.Admin, CreatedAt: fromNanos(r.CreatedAt),
	}
}

func userToRow(u engine.User) *userRow {
	return &userRow{
		ID: u.ID, Name: u.Name, Email: u.Email, EmailVerified: u.EmailVerified, Admin: u.Admin, CreatedAt: toNanos(u.CreatedAt),
	}
}

// ensureUser stores a user unless one has the id.
func ensureUser(ctx context.Context, db bun.IDB, u engine.User) error {
	_, err := db.NewInsert().Model(userToRow(u)).On("CONFLICT (id) DO NOTHING").Exec(ctx)
	return err
}

// EnsureAccount stores a user and an organization unless they exist, and makes
// the organization's creator an owner unless they are a member. Nobody sees the
// one without the other.
func (s *Store) EnsureAccount(ctx context.Context, u engine.User, o engine.Organization) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := ensureUser(ctx, tx, u); err != nil {
			return err
		}
		return ensureOrganization(ctx, tx, o)
	})
	return translate(err, "create the user with an organization")
}

// User finds a user by id.
func (s *Store) User(ctx context.Context, id string) (engine.User, error) {
	row := new(userRow)
	if err := s.r.NewSelect().Model(row).Where("id = ?", id).Scan(ctx); err != nil {
		return engine.User{}, missing(translate(err, "read a user"), "user", id)
	}
	return row.user(), nil
}

// UserByEmail finds a user by address, in any case.
func (s *Store) UserByEmail(ctx context.Context, email string) (engine.User, error) {
	row := new(userRow)
	if err := s.r.NewSelect().Model(row).Where("email <> '' AND lower(email) = lower(?)", email).Scan(ctx); err != nil {
		return engine.User{}, missing(translate(err, "read a user"), "user", email)
	}
	return row.user(), nil
}

// Users returns all users, oldest first.
func (s *Store) Users(ctx context.Context) ([]engine.User, error) {
	var rows []userRow
	if err := s.r.NewSelect().Model(&rows).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, translate(err, "list users")
	}
	out := make([]engine.User, len(rows))
	for i := range rows {
		out[i] = rows[i].user()
	}
	return out, nil
}

// InsertUser stores a user together with their organization and key. A taken
// id or address is a conflict, and nothing is stored.
func (s *Store) InsertUser(ctx context.Context, u engine.User, o engine.Organization, quota *engine.RegionQuota, k Key, secret string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(userToRow(u)).Exec(ctx); err != nil {
			if err = translate(err, "insert a user"); Conflicting(err) {
				return engine.Errorf(engine.KindConflict, "a user with this id or email exists already").WithHint("choose another").Wrap(err)
			}
			return err
		}
		if err := insertOrganization(ctx, tx, o); err != nil {
			return err
		}
		if quota != nil {
			if _, err := tx.NewInsert().Model(quotaToRow(*quota)).Exec(ctx); err != nil {
				return err
			}
		}
		_, err := tx.NewInsert().Model(keyToRow(k, secret)).Exec(ctx)
		return err
	})
	return translate(err, "insert a user")
}

type organizationRow struct {
	bun.BaseModel `bun:"table:organizations,alias:o"`

	ID             string `bun:",pk"`
	Name           string
	CreatedBy      string
	Personal       bool
	DefaultRegion  string
	LimitedEgress  bool
	PreviewWarning bool
	Suspension     string
	Quota          string
	CreatedAt      int64
	UpdatedAt      int64
}

func (r *organizationRow) organization() engine.Organization {
	o := engine.Organization{
		ID: r.ID, Name: r.Name, CreatedBy: r.CreatedBy, Personal: r.Personal, DefaultRegion: r.DefaultRegion,
		LimitedEgress: r.LimitedEgress, PreviewWarning: r.PreviewWarning,
		CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
	}
	fromJSON(r.Suspension, &o.Suspension)
	fromJSON(r.Quota, &o.Quota)
	return o
}

func organizationToRow(o engine.Organization) *organizationRow {
	row := &organizationRow{
		ID: o.ID, Name: o.Name, CreatedBy: o.CreatedBy, Personal: o.Personal, DefaultRegion: o.DefaultRegion,
		LimitedEgress: o.LimitedEgress, PreviewWarning: o.PreviewWarning,
		CreatedAt: toNanos(o.CreatedAt), UpdatedAt: toNanos(o.UpdatedAt),
	}
	if o.Suspension != nil {
		row.Suspension = toJSON(o.Suspension)
	}
	if o.Quota != (engine.Quota{}) {
		row.Quota = toJSON(o.Quota)
	}
	return row
}

// insertOrganization stores an organization with its creator as owner.
func insertOrganization(ctx context.Context, tx bun.Tx, o engine.Organization) error {
	if _, err := tx.NewInsert().Model(organizationToRow(o)).Exec(ctx); err != nil {
		return err
	}
	_, err := tx.NewInsert().Model(&memberRow{
		OrganizationID: o.ID, UserID: o.CreatedBy, Role: string(engine.RoleOwner),
		CreatedAt: toNanos(o.CreatedAt), UpdatedAt: toNanos(o.CreatedAt),
	}).Exec(ctx)
	return err
}

// InsertOrganization stores an organization with its creator as owner.
func (s *Store) InsertOrganization(ctx context.Context, o engine.Organization) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error { return insertOrganization(ctx, tx, o) })
	return translate(err, "insert an organization")
}

func ensureOrganization(ctx context.Context, tx bun.Tx, o engine.Organization) error {
	if _, err := tx.NewInsert().Model(organizationToRow(o)).On("CONFLICT (id) DO NOTHING").Exec(ctx); err != nil {
		return err
	}
	_, err := tx.NewUpdate().Table("organizations").Set("created_by = ?", o.CreatedBy).Set("updated_at = created_at").
		Where("id = ? AND created_by = ''", o.ID).Exec(ctx)
	if err != nil {
		return err
	}
	_, err = tx.NewInsert().Model(&memberRow{
		OrganizationID: o.ID, UserID: o.CreatedBy, Role: string(engine.RoleOwner),
		CreatedAt: toNanos(o.CreatedAt), UpdatedAt: toNanos(o.CreatedAt),
	}).On("CONFLICT (organization_id, user_id) DO NOTHING").Exec(ctx)
	return err
}

// Organization finds an organization by id.
func (s *Store) Organization(ctx context.Context, id string) (engine.Organization, error) {
	row := new(organizationRow)
	if err := s.r.NewSelect().Model(row).Where("id = ?", id).Scan(ctx); err != nil {
		return engine.Organization{}, missing(translate(err, "read an organization"), "organization", id)
	}
	return row.organization(), nil
}

// Organizations returns those that the user is a member of, oldest first. The
// empty user asks for all.
func (s *Store) Organizations(ctx context.Context, userID string) ([]engine.Organization, error) {
	var rows []organizationRow
	q := s.r.NewSelect().Model(&rows).Order("created_at", "id")
	if userID != "" {
		q = q.Where("id IN (SELECT organization_id FROM members WHERE user_id = ?)", userID)
	}
	if err := q.Scan(ctx); err != nil {
		return nil, translate(err, "list organizations")
	}
	out := make([]engine.Organization, len(rows))
	for i := range rows {
		out[i] = rows[i].organization()
	}
	return out, nil
}

// ChangeOrganization reads an organization, applies change and writes it, so
// that no other change is lost in between.
func (s *Store) ChangeOrganization(ctx context.Context, id string, change func(*engine.Organization)) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		row := new(organizationRow)
		q := tx.NewSelect().Model(row).Where("id = ?", id)
		if s.postgres {
			q = q.For("UPDATE")
		}
		if err := q.Scan(ctx); err != nil {
			return missing(translate(err, "read an organization"), "organization", id)
		}
		o := row.organization()
		change(&o)
		_, err := tx.NewUpdate().Model(organizationToRow(o)).WherePK().Exec(ctx)
		return err
	})
	return translate(err, "change an organization")
}

// DeleteOrganization removes an organization and everything that only belongs
// to it. One that has sandboxes or snapshots is a conflict.
func (s *Store) DeleteOrganization(ctx context.Context, id string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		for table, what := range map[string]string{"sandboxes": "state <> 'destroyed'", "snapshots": "NOT general"} {
			n, err := tx.NewSelect().Table(table).Where("organization_id = ?", id).Where(what).Count(ctx)
			if err != nil {
				return err
			}
			if n > 0 {
				return engine.Errorf(engine.KindConflict, "the organization still has %d %s", n, table).WithHint("delete them first")
			}
		}
		for _, table := range []string{"api_keys", "members", "roles", "invitations", "region_quotas", "policies"} {
			if _, err := tx.NewDelete().Table(table).Where("organization_id = ?", id).Exec(ctx); err != nil {
				return err
			}
		}
		res, err := tx.NewDelete().Table("organizations").Where("id = ?", id).Exec(ctx)
		return affected(res, err, "delete an organization", "organization", id)
	})
	return translate(err, "delete an organization")
}

type quotaRow struct {
	bun.BaseModel `bun:"table:region_quotas"`

	OrganizationID string `bun:",pk"`
	Region         string `bun:",pk"`
	Class          string `bun:",pk"`
	Limits         string
}

func quotaToRow(q engine.RegionQuota) *quotaRow {
	return &quotaRow{OrganizationID: q.OrganizationID, Region: q.Region, Class: string(q.Class), Limits: toJSON(q.Limits)}
}

// RegionQuotas returns the quotas of an organization.
func (s *Store) RegionQuotas(ctx context.Context, organizationID string) ([]engine.RegionQuota, error) {
	var rows []quotaRow
	err := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID).Order("region", "class").Scan(ctx)
	if err != nil {
		return nil, translate(err, "list quotas")
	}
	out := make([]engine.RegionQuota, len(rows))
	for i, r := range rows {
		out[i] = engine.RegionQuota{OrganizationID: r.OrganizationID, Region: r.Region, Class: engine.Class(r.Class)}
		fromJSON(r.Limits, &out[i].Limits)
	}
	return out, nil
}

// InsertRegionQuota stores a quota. One that exists is a conflict.
func (s *Store) InsertRegionQuota(ctx context.Context, q engine.RegionQuota) error {
	_, err := s.w.NewInsert().Model(quotaToRow(q)).Exec(ctx)
	if err = translate(err, "insert a quota"); Conflicting(err) {
		return engine.Errorf(engine.KindConflict, "a quota of region %q and class %q exists already", q.Region, q.Class).WithHint("change it instead").Wrap(err)
	}
	return err
}

// PutRegionQuota stores a quota in place of the one before.
func (s *Store) PutRegionQuota(ctx context.Context, q engine.RegionQuota) error {
	_, err := s.w.NewInsert().Model(quotaToRow(q)).
		On("CONFLICT (organization_id, region, class) DO UPDATE").Set("limits = EXCLUDED.limits").Exec(ctx)
	return translate(err, "store a quota")
}

// DeleteRegionQuota removes a quota.
func (s *Store) DeleteRegionQuota(ctx context.Context, organizationID, region string, class engine.Class) error {
	res, err := s.w.NewDelete().Table("region_quotas").
		Where("organization_id = ? AND region = ? AND class = ?", organizationID, region, class).Exec(ctx)
	return affected(res, err, "delete a quota", "quota of region", region)
}

// Use is what the sandboxes of one class use.
type Use struct {
	Class     engine.Class
	CPU       float64 // of those that are not stopped, as memory and GPUs
	MemoryMiB int64
	GPU       int
	DiskMiB   int64
}

// Usage sums up what an organization's sandboxes use, but for the sandbox
// except.
func (s *Store) Usage(ctx context.Context, organizationID, except string) ([]Use, error) {
	running := "CASE WHEN state IN ('stopped', 'archived', 'error', 'build_failed') THEN 0 ELSE "
	var out []Use
	err := s.r.NewSelect().Table("sandboxes").Column("class").
		ColumnExpr("SUM("+running+"cpu END) AS cpu").
		ColumnExpr("CAST(SUM("+running+"memory_mib END) AS BIGINT) AS memory_mib").
		ColumnExpr("CAST(SUM("+running+"gpu END) AS BIGINT) AS gpu").
		ColumnExpr("CAST(SUM(disk_mib) AS BIGINT) AS disk_mib").
		Where("organization_id = ? AND state <> 'destroyed' AND id <> ?", organizationID, except).
		Group("class").Order("class").Scan(ctx, &out)
	return out, translate(err, "sum up the use")
}

// CountSnapshots returns how many snapshots an organization has, but for those
// whose making failed.
func (s *Store) CountSnapshots(ctx context.Context, organizationID string) (int, error) {
	n, err := s.r.NewSelect().Table("snapshots").
		Where("organization_id = ? AND NOT general AND state NOT IN ('error', 'build_failed')", organizationID).Count(ctx)
	return int(n), translate(err, "count snapshots")
}

// sameAddress compares addresses of mail as people do.
func sameAddress(email string) string { return strings.ToLower(strings.TrimSpace(email)) }
