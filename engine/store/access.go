package store

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

// Bounds of the requests that are kept of one sandbox, so that a hostile one
// cannot fill the database or an operator's screen.
const (
	MaxAccessPending = 64
	MaxAccess        = 256 // decided ones included
)

type accessRow struct {
	bun.BaseModel `bun:"table:access_requests,alias:r"`

	ID             string `bun:",pk"`
	OrganizationID string
	SandboxID      string
	Host           string
	Address        string
	Port           int
	Protocol       string
	Rule           string
	Reason         string
	CallID         string
	State          string
	Denials        int64
	FirstAt        int64
	LastAt         int64
	DecidedAt      int64
	DecidedBy      string
	UntilAt        int64
	SandboxName    string `bun:",scanonly"`
}

func toAccessRow(r engine.AccessRequest) *accessRow {
	return &accessRow{
		ID: r.ID, OrganizationID: r.OrganizationID, SandboxID: r.SandboxID, Host: r.Host, Address: r.Address, Port: int(r.Port),
		Protocol: r.Protocol, Rule: r.Rule, Reason: r.Reason, CallID: r.Call, State: string(r.State), Denials: r.Count,
		FirstAt: toNanos(r.FirstAt), LastAt: toNanos(r.LastAt), DecidedAt: toNanos(r.DecidedAt), DecidedBy: r.DecidedBy, UntilAt: toNanos(r.Until),
	}
}

func (r *accessRow) request() engine.AccessRequest {
	return engine.AccessRequest{
		ID: r.ID, OrganizationID: r.OrganizationID, SandboxID: r.SandboxID, SandboxName: r.SandboxName, Host: r.Host, Address: r.Address,
		Port: uint16(r.Port), Protocol: r.Protocol, Rule: r.Rule, Reason: r.Reason, Call: r.CallID, State: engine.AccessState(r.State), //nolint:gosec // written from one
		Count: r.Denials, FirstAt: fromNanos(r.FirstAt), LastAt: fromNanos(r.LastAt), DecidedAt: fromNanos(r.DecidedAt), DecidedBy: r.DecidedBy,
		Until: fromNanos(r.UntilAt),
	}
}

// RecordAccess counts denials of one sandbox, whose Count is added to what is
// stored, and returns the requests that are new to the operator: those that
// were not there, and those whose decision has expired by now. One whose Count
// is zero only tells its call. What does not fit the bounds is dropped.
func (s *Store) RecordAccess(ctx context.Context, sandboxID string, denials []engine.AccessRequest, now time.Time) (fresh []engine.AccessRequest, err error) {
	err = s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		fresh = nil
		var all []accessRow
		if err := tx.NewSelect().Model(&all).Where("sandbox_id = ?", sandboxID).Scan(ctx); err != nil {
			return err
		}
		pending := 0
		for i := range all {
			if all[i].State == string(engine.AccessPending) {
				pending++
			}
		}
		for _, d := range denials {
			i := slices.IndexFunc(all, func(r accessRow) bool { return r.ID == d.ID })
			again := i >= 0 && all[i].State != string(engine.AccessPending) && all[i].UntilAt != 0 && all[i].UntilAt <= toNanos(now)
			if i >= 0 && (!again || d.Count == 0) {
				set := tx.NewUpdate().Table("access_requests").Set("denials = denials + ?", d.Count).Set("last_at = ?", toNanos(d.LastAt))
				if d.Call != "" {
					set = set.Set("call_id = ?", d.Call)
				}
				if _, err := set.Where("id = ?", d.ID).Exec(ctx); err != nil {
					return err
				}
				continue
			}
			if d.Count == 0 || pending >= MaxAccessPending || i < 0 && len(all) >= MaxAccess {
				continue
			}
			d.State, d.DecidedAt, d.DecidedBy, d.Until = engine.AccessPending, time.Time{}, "", time.Time{}
			row := toAccessRow(d)
			if err := put(ctx, tx, row, i >= 0); err != nil {
				return err
			}
			if i < 0 {
				all = append(all, *row)
			}
			pending++
			fresh = append(fresh, d)
		}
		return nil
	})
	return fresh, translate(err, "store requests for access")
}

func put(ctx context.Context, tx bun.Tx, row *accessRow, known bool) error {
	if known {
		_, err := tx.NewUpdate().Model(row).WherePK().Exec(ctx)
		return err
	}
	_, err := tx.NewInsert().Model(row).Exec(ctx)
	return err
}

// DecideAccess writes the state of a request, who decided it, when, and until
// when that holds.
func (s *Store) DecideAccess(ctx context.Context, r engine.AccessRequest) error {
	res, err := s.w.NewUpdate().Model(toAccessRow(r)).WherePK().Where("organization_id = ?", r.OrganizationID).
		Column("state", "decided_at", "decided_by", "until_at").Exec(ctx)
	return changedOne(res, translate(err, "decide a request for access"), "request", r.ID)
}

// DropGrants forgets the requests of a sandbox that were approved, so that
// their next denial asks again.
func (s *Store) DropGrants(ctx context.Context, sandboxID string) error {
	_, err := s.w.NewDelete().Table("access_requests").Where("sandbox_id = ? AND state = ?", sandboxID, string(engine.AccessApproved)).Exec(ctx)
	return translate(err, "forget approved requests for access")
}

// Access finds a request of an organization.
func (s *Store) Access(ctx context.Context, organizationID, id string) (engine.AccessRequest, error) {
	row := new(accessRow)
	err := s.selectAccess(row).Where("r.id = ? AND r.organization_id = ?", id, organizationID).Scan(ctx)
	if err != nil {
		return engine.AccessRequest{}, missing(translate(err, "read a request for access"), "request", id)
	}
	return row.request(), nil
}

// ListAccess returns requests, the latest denial first. The sandbox is an id.
func (s *Store) ListAccess(ctx context.Context, q engine.AccessQuery) ([]engine.AccessRequest, error) {
	var rows []accessRow
	sel := s.selectAccess(&rows).Where("r.organization_id = ?", q.OrganizationID)
	if q.Sandbox != "" {
		sel = sel.Where("r.sandbox_id = ?", q.Sandbox)
	}
	if q.State != "" {
		sel = sel.Where("r.state = ?", string(q.State))
	}
	if err := sel.OrderExpr("r.last_at DESC, r.id").Limit(int64(q.Limit)).Scan(ctx); err != nil {
		return nil, translate(err, "list requests for access")
	}
	out := make([]engine.AccessRequest, len(rows))
	for i := range rows {
		out[i] = rows[i].request()
	}
	return out, nil
}

func (s *Store) selectAccess(model any) *bun.SelectQuery {
	return s.r.NewSelect().Model(model).ColumnExpr("r.*").
		ColumnExpr("(SELECT s.name FROM sandboxes AS s WHERE s.id = r.sandbox_id) AS sandbox_name")
}

// PurgeAccess forgets decisions that have expired by now, requests that nobody
// decided and that were last denied before the given time, and all of
// sandboxes that are no more.
func (s *Store) PurgeAccess(ctx context.Context, now, before time.Time) error {
	_, err := s.w.NewDelete().Table("access_requests").
		Where("state <> 'pending' AND until_at <> 0 AND until_at <= ?", toNanos(now)).
		WhereOr("state = 'pending' AND last_at < ?", toNanos(before)).
		WhereOr("sandbox_id NOT IN (SELECT id FROM sandboxes WHERE state <> 'destroyed')").Exec(ctx)
	return translate(err, "purge requests for access")
}
