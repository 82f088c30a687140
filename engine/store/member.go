package store

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type memberRow struct {
	bun.BaseModel `bun:"table:members,alias:m"`

	OrganizationID string `bun:",pk"`
	UserID         string `bun:",pk"`
	Role           string
	Roles          string // ids
	CreatedAt      int64
	UpdatedAt      int64
}

// Member is a member's record: the roles are ids.
type Member struct {
	engine.Member
	RoleIDs []string
}

// Members returns an organization's members, oldest first; with a user, that
// one alone.
func (s *Store) Members(ctx context.Context, organizationID, userID string) ([]Member, error) {
	var rows []struct {
		UserID, Role, Roles, Name, Email string
		CreatedAt, UpdatedAt             int64
	}
	q := s.r.NewSelect().TableExpr("members AS m").Join("JOIN users AS u ON u.id = m.user_id").
		ColumnExpr("m.user_id, m.role, m.roles, u.name, u.email, m.created_at, m.updated_at").
		Where("m.organization_id = ?", organizationID).OrderExpr("m.created_at, m.user_id")
	if userID != "" {
		q = q.Where("m.user_id = ?", userID)
	}
	if err := q.Scan(ctx, &rows); err != nil {
		return nil, translate(err, "list members")
	}
	out := make([]Member, len(rows))
	for i, r := range rows {
		out[i].Member = engine.Member{
			OrganizationID: organizationID, UserID: r.UserID, Name: r.Name, Email: r.Email, Role: engine.MemberRole(r.Role),
			CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
		}
		fromJSON(r.Roles, &out[i].RoleIDs)
	}
	return out, nil
}

var errLastOwner = engine.Errorf(engine.KindInvalid, "an organization needs an owner").
	WithHint("make somebody else an owner first, or delete the organization")

// SetAccess changes what a member is.
func (s *Store) SetAccess(ctx context.Context, organizationID, userID string, a engine.Access, at time.Time) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewUpdate().Table("members").Set("role = ?", a.Role).Set("roles = ?", toJSON(a.RoleIDs)).Set("updated_at = ?", toNanos(at)).
			Where("organization_id = ? AND user_id = ?", organizationID, userID).Exec(ctx)
		if err := affected(res, err, "change a member", "member", userID); err != nil {
			return err
		}
		return s.keepOwner(ctx, tx, organizationID)
	})
	return translate(err, "change a member")
}

// DeleteMember takes a member and their keys out of an organization.
func (s *Store) DeleteMember(ctx context.Context, organizationID, userID string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewDelete().Table("members").Where("organization_id = ? AND user_id = ?", organizationID, userID).Exec(ctx)
		if err := affected(res, err, "remove a member", "member", userID); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Table("api_keys").Where("organization_id = ? AND user_id = ?", organizationID, userID).Exec(ctx); err != nil {
			return err
		}
		return s.keepOwner(ctx, tx, organizationID)
	})
	return translate(err, "remove a member")
}

// keepOwner refuses what would leave an organization without an owner. Two
// such changes at once wait for one another.
func (s *Store) keepOwner(ctx context.Context, tx bun.Tx, organizationID string) error {
	if s.postgres {
		if _, err := tx.ExecContext(ctx, "SELECT id FROM organizations WHERE id = ? FOR UPDATE", organizationID); err != nil {
			return err
		}
	}
	n, err := tx.NewSelect().Table("members").Where("organization_id = ? AND role = ?", organizationID, engine.RoleOwner).Count(ctx)
	if err == nil && n == 0 {
		return errLastOwner
	}
	return err
}

type roleRow struct {
	bun.BaseModel `bun:"table:roles,alias:r"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Description    string
	Permissions    string
	CreatedAt      int64
	UpdatedAt      int64
}

func roleToRow(r engine.Role) *roleRow {
	return &roleRow{
		ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, Description: r.Description,
		Permissions: toJSON(r.Permissions), CreatedAt: toNanos(r.CreatedAt), UpdatedAt: toNanos(r.UpdatedAt),
	}
}

// Roles returns an organization's own roles, oldest first.
func (s *Store) Roles(ctx context.Context, organizationID string) ([]engine.Role, error) {
	var rows []roleRow
	err := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID).Order("created_at", "id").Scan(ctx)
	if err != nil {
		return nil, translate(err, "list roles")
	}
	out := make([]engine.Role, len(rows))
	for i, r := range rows {
		out[i] = engine.Role{
			ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, Description: r.Description,
			CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
		}
		fromJSON(r.Permissions, &out[i].Permissions)
	}
	return out, nil
}

// InsertRole stores a role. A taken name is a conflict.
func (s *Store) InsertRole(ctx context.Context, r engine.Role) error {
	_, err := s.w.NewInsert().Model(roleToRow(r)).Exec(ctx)
	return nameTaken(translate(err, "insert a role"), "role", r.Name)
}

// UpdateRole changes a role's name, description and permissions.
func (s *Store) UpdateRole(ctx context.Context, r engine.Role) error {
	res, err := s.w.NewUpdate().Model(roleToRow(r)).Column("name", "description", "permissions", "updated_at").
		Where("id = ? AND organization_id = ?", r.ID, r.OrganizationID).Exec(ctx)
	return nameTaken(affected(res, err, "change a role", "role", r.ID), "role", r.Name)
}

// DeleteRole removes a role and takes it from members and invitations.
func (s *Store) DeleteRole(ctx context.Context, organizationID, id string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewDelete().Table("roles").Where("id = ? AND organization_id = ?", id, organizationID).Exec(ctx)
		if err := affected(res, err, "delete a role", "role", id); err != nil {
			return err
		}
		for table, key := range map[string]string{"members": "user_id", "invitations": "id"} {
			if err := unassign(ctx, tx, table, key, organizationID, id); err != nil {
				return err
			}
		}
		return nil
	})
	return translate(err, "delete a role")
}

func unassign(ctx context.Context, tx bun.Tx, table, key, organizationID, role string) error {
	var rows []struct{ ID, Roles string }
	err := tx.NewSelect().Table(table).ColumnExpr("? AS id, roles", bun.Ident(key)).
		Where("organization_id = ?", organizationID).Where(`roles LIKE ? ESCAPE '!'`, likePart(role)).Scan(ctx, &rows)
	if err != nil {
		return err
	}
	for _, r := range rows {
		var ids []string
		fromJSON(r.Roles, &ids)
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == role })
		_, err := tx.NewUpdate().Table(table).Set("roles = ?", toJSON(ids)).
			Where("organization_id = ? AND ? = ?", organizationID, bun.Ident(key), r.ID).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

type invitationRow struct {
	bun.BaseModel `bun:"table:invitations,alias:i"`

	ID             string `bun:",pk"`
	OrganizationID string
	Email          string
	InvitedBy      string
	Role           string
	Roles          string // ids
	Status         string
	ExpiresAt      int64
	CreatedAt      int64
	UpdatedAt      int64
}

// Invitation is an invitation's record: the roles are ids.
type Invitation struct {
	engine.Invitation
	RoleIDs []string
}

func invitationToRow(i Invitation) *invitationRow {
	return &invitationRow{
		ID: i.ID, OrganizationID: i.OrganizationID, Email: i.Email, InvitedBy: i.InvitedBy, Role: string(i.Role),
		Roles: toJSON(i.RoleIDs), Status: i.Status, ExpiresAt: toNanos(i.ExpiresAt),
		CreatedAt: toNanos(i.CreatedAt), UpdatedAt: toNanos(i.UpdatedAt),
	}
}

// InsertInvitation stores an invitation. A pending one of the same address is
// a conflict.
func (s *Store) InsertInvitation(ctx context.Context, i Invitation) error {
	_, err := s.w.NewInsert().Model(invitationToRow(i)).Exec(ctx)
	if err = translate(err, "insert an invitation"); Conflicting(err) {
		return engine.Errorf(engine.KindConflict, "%s is invited already", i.Email).WithHint("change or cancel that invitation").Wrap(err)
	}
	return err
}

// InvitationQuery selects invitations. Empty fields do not filter.
type InvitationQuery struct{ ID, OrganizationID, Email, Status string }

// Invitations returns those that match, oldest first, with the names of their
// organizations.
func (s *Store) Invitations(ctx context.Context, q InvitationQuery) ([]Invitation, error) {
	var rows []struct {
		ID, OrganizationID, Email, InvitedBy, Role, Roles, Status, Name string
		ExpiresAt, CreatedAt, UpdatedAt                                 int64
	}
	sel := s.r.NewSelect().TableExpr("invitations AS i").Join("JOIN organizations AS o ON o.id = i.organization_id").
		ColumnExpr("i.*, o.name").OrderExpr("i.created_at, i.id")
	for column, want := range map[string]string{
		"i.id": q.ID, "i.organization_id": q.OrganizationID, "lower(i.email)": sameAddress(q.Email), "i.status": q.Status,
	} {
		if want != "" {
			sel = sel.Where(column+" = ?", want)
		}
	}
	if err := sel.Scan(ctx, &rows); err != nil {
		return nil, translate(err, "list invitations")
	}
	out := make([]Invitation, len(rows))
	for i, r := range rows {
		out[i].Invitation = engine.Invitation{
			ID: r.ID, OrganizationID: r.OrganizationID, OrganizationName: r.Name, Email: r.Email, InvitedBy: r.InvitedBy,
			Role: engine.MemberRole(r.Role), Status: r.Status, ExpiresAt: fromNanos(r.ExpiresAt),
			CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
		}
		fromJSON(r.Roles, &out[i].RoleIDs)
	}
	return out, nil
}

// UpdateInvitation writes a pending invitation, and is a conflict when it is
// no longer pending. When it becomes accepted, the user becomes a member.
func (s *Store) UpdateInvitation(ctx context.Context, i Invitation, userID string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewUpdate().Model(invitationToRow(i)).Column("role", "roles", "status", "expires_at", "updated_at").
			Where("id = ? AND status = ?", i.ID, engine.InvitationPending).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return engine.Errorf(engine.KindConflict, "the invitation is no longer pending").Wrap(err)
		}
		if i.Status != engine.InvitationAccepted {
			return nil
		}
		_, err = tx.NewInsert().Model(&memberRow{
			OrganizationID: i.OrganizationID, UserID: userID, Role: string(i.Role), Roles: toJSON(i.RoleIDs),
			CreatedAt: toNanos(i.UpdatedAt), UpdatedAt: toNanos(i.UpdatedAt),
		}).Exec(ctx)
		if err = translate(err, "insert a member"); Conflicting(err) {
			return engine.Errorf(engine.KindConflict, "you are a member of this organization already").Wrap(err)
		}
		return err
	})
	return translate(err, "change an invitation")
}
