package store

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

type auditRow struct {
	bun.BaseModel `bun:"table:audit,alias:a"`

	ID             string `bun:",pk"`
	OrganizationID string
	At             int64
	ActorID        string
	ActorEmail     string
	KeyPrefix      string
	KeySuffix      string
	Action         string
	TargetType     string
	TargetID       string
	Status         int
	Error          string
	IP             string
	UserAgent      string
	Source         string
	Metadata       string
}

func auditToRow(e engine.AuditEntry) auditRow {
	return auditRow{
		ID: e.ID, OrganizationID: e.OrganizationID, At: toNanos(e.At), ActorID: e.ActorID, ActorEmail: e.ActorEmail,
		KeyPrefix: e.KeyPrefix, KeySuffix: e.KeySuffix, Action: e.Action, TargetType: e.TargetType, TargetID: e.TargetID,
		Status: e.Status, Error: e.Error, IP: e.IP, UserAgent: e.UserAgent, Source: e.Source, Metadata: toJSON(e.Metadata),
	}
}

func (r *auditRow) entry() engine.AuditEntry {
	e := engine.AuditEntry{
		ID: r.ID, OrganizationID: r.OrganizationID, At: fromNanos(r.At), ActorID: r.ActorID, ActorEmail: r.ActorEmail,
		KeyPrefix: r.KeyPrefix, KeySuffix: r.KeySuffix, Action: r.Action, TargetType: r.TargetType, TargetID: r.TargetID,
		Status: r.Status, Error: r.Error, IP: r.IP, UserAgent: r.UserAgent, Source: r.Source,
	}
	fromJSON(r.Metadata, &e.Metadata)
	return e
}

// AppendAudit stores entries in one statement. Those without an id get one
// that is ordered by time.
func (s *Store) AppendAudit(ctx context.Context, entries ...engine.AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	rows := make([]auditRow, len(entries))
	for i, e := range entries {
		if e.ID == "" {
			e.ID = ulid.Make().String()
		}
		rows[i] = auditToRow(e)
	}
	_, err := s.w.NewInsert().Model(&rows).Exec(ctx)
	return translate(err, "append to the audit trail")
}

// auditColumns maps the contract's fields to columns.
var auditColumns = map[string]string{
	"id": "id", "actorId": "actor_id", "actorEmail": "actor_email", "actorApiKeyPrefix": "key_prefix",
	"actorApiKeySuffix": "key_suffix", "action": "action", "targetType": "target_type", "targetId": "target_id",
	"statusCode": "status", "createdAt": "at",
}

var auditOps = map[string]string{"eq": "=", "not": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "in": "IN", "notIn": "NOT IN"}

// Audit returns one page of entries, newest first.
func (s *Store) Audit(ctx context.Context, q engine.AuditQuery) (engine.AuditPage, error) {
	limit, err := pageLimit(q.Limit)
	if err != nil {
		return engine.AuditPage{}, err
	}
	var rows []auditRow
	sel, err := filterAudit(s.r.NewSelect().Model(&rows), q)
	if err != nil {
		return engine.AuditPage{}, err
	}
	total, err := sel.Clone().Count(ctx)
	if err != nil {
		return engine.AuditPage{}, translate(err, "count the audit trail")
	}
	if q.Next != "" {
		sel = sel.Where("id < ?", q.Next)
	} else {
		sel = sel.Offset(int64(max(q.Page, 1)-1) * int64(limit))
	}
	if err := sel.Order("id DESC").Limit(int64(limit) + 1).Scan(ctx); err != nil {
		return engine.AuditPage{}, translate(err, "read the audit trail")
	}
	page := engine.AuditPage{Total: int(total)}
	if len(rows) > limit {
		rows = rows[:limit]
		page.Next = rows[limit-1].ID
	}
	for i := range rows {
		page.Items = append(page.Items, rows[i].entry())
	}
	return page, nil
}

func filterAudit(sel *bun.SelectQuery, q engine.AuditQuery) (*bun.SelectQuery, error) {
	if q.OrganizationID != "" {
		sel = sel.Where("organization_id = ?", q.OrganizationID)
	}
	for _, f := range q.Filters {
		column, known := auditColumns[f.Field]
		op, fine := auditOps[f.Op]
		if !known || !fine || len(f.Values) == 0 {
			return nil, engine.Errorf(engine.KindInvalid, "%s cannot be filtered by %s", f.Field, f.Op)
		}
		values := make([]any, len(f.Values))
		for i, v := range f.Values {
			if t, ok := v.(time.Time); ok {
				v = toNanos(t)
			}
			values[i] = v
		}
		if op == "IN" || op == "NOT IN" {
			sel = sel.Where("? "+op+" (?)", bun.Ident(column), bun.List(values))
			continue
		}
		sel = sel.Where("? "+op+" ?", bun.Ident(column), values[0])
	}
	return sel, nil
}

// PurgeAudit forgets entries from before the given time, and the oldest above
// the number that is kept.
func (s *Store) PurgeAudit(ctx context.Context, before time.Time, keep int) error {
	if _, err := s.w.NewDelete().Table("audit").Where("at < ?", toNanos(before)).Exec(ctx); err != nil {
		return translate(err, "purge the audit trail")
	}
	var last []string
	err := s.r.NewSelect().Table("audit").Column("id").Order("id DESC").Offset(int64(keep)).Limit(1).Scan(ctx, &last)
	if err != nil || len(last) == 0 {
		return translate(err, "purge the audit trail")
	}
	_, err = s.w.NewDelete().Table("audit").Where("id <= ?", last[0]).Exec(ctx)
	return translate(err, "purge the audit trail")
}
