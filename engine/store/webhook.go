package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// Endpoint is a webhook endpoint's record with its sealed signing secret.
type Endpoint struct {
	engine.Endpoint // Secret is empty
	Sealed          secret.Sealed
}

// Delivery is one delivery that is due, with all that is needed for it.
type Delivery struct {
	MessageID, EndpointID, OrganizationID string
	Event                                 string
	Payload                               json.RawMessage
	Tries                                 int
	NextAt                                time.Time
}

type webhookAppRow struct {
	bun.BaseModel `bun:"table:webhook_apps,alias:a"`

	OrganizationID string `bun:",pk"`
	LastError      string
	Retries        int64
	CreatedAt      int64
	UpdatedAt      int64
}

type endpointRow struct {
	bun.BaseModel `bun:"table:webhook_endpoints,alias:e"`

	ID             string `bun:",pk"`
	OrganizationID string
	URL            string `bun:"url"`
	Description    string
	Events         string
	Disabled       bool
	Reason         string
	KeyID          string
	Sealed         string
	CreatedAt      int64
	UpdatedAt      int64
}

type messageRow struct {
	bun.BaseModel `bun:"table:webhook_messages,alias:m"`

	ID             string `bun:",pk"`
	OrganizationID string
	Event          string
	Payload        string
	CreatedAt      int64
}

type deliveryRow struct {
	bun.BaseModel `bun:"table:webhook_deliveries,alias:d"`

	MessageID      string `bun:",pk"`
	EndpointID     string `bun:",pk"`
	OrganizationID string
	State          string
	Tries          int64
	NextAt         int64
}

type attemptRow struct {
	bun.BaseModel `bun:"table:webhook_attempts,alias:t"`

	ID         string `bun:",pk"`
	MessageID  string
	EndpointID string
	At         int64
	Took       int64
	Status     int64
	Error      string
}

func toEndpointRow(e *Endpoint) *endpointRow {
	return &endpointRow{
		ID: e.ID, OrganizationID: e.OrganizationID, URL: e.URL, Description: e.Description, Events: toJSON(e.Events),
		Disabled: e.Disabled, Reason: e.Reason, KeyID: e.Sealed.KeyID, Sealed: e.Sealed.Text,
		CreatedAt: toNanos(e.CreatedAt), UpdatedAt: toNanos(e.UpdatedAt),
	}
}

func (r *endpointRow) endpoint() Endpoint {
	e := Endpoint{
		Endpoint: engine.Endpoint{
			ID: r.ID, OrganizationID: r.OrganizationID, URL: r.URL, Description: r.Description, Disabled: r.Disabled,
			Reason: r.Reason, CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
		},
		Sealed: secret.Sealed{KeyID: r.KeyID, Text: r.Sealed},
	}
	fromJSON(r.Events, &e.Events)
	return e
}

// EnsureWebhookApp says that an organization uses webhooks.
func (s *Store) EnsureWebhookApp(ctx context.Context, organizationID string, at time.Time) error {
	_, err := s.w.NewRaw(`INSERT INTO webhook_apps (organization_id, last_error, retries, created_at, updated_at)
		VALUES (?, '', 0, ?, ?) ON CONFLICT (organization_id) DO NOTHING`, organizationID, toNanos(at), toNanos(at)).Exec(ctx)
	return translate(err, "initialize webhooks")
}

// WebhookApp tells of an organization's webhooks. Retries counts deliveries
// that failed and wait for another try.
func (s *Store) WebhookApp(ctx context.Context, organizationID string) (engine.WebhookStatus, error) {
	row := new(webhookAppRow)
	if err := s.r.NewSelect().Model(row).Where("organization_id = ?", organizationID).Scan(ctx); err != nil {
		return engine.WebhookStatus{}, translate(err, "read the state of webhooks")
	}
	n, err := s.r.NewSelect().Model((*deliveryRow)(nil)).Where("state = ?", engine.DeliveryPending).
		Where("organization_id = ? AND tries > 0", organizationID).Count(ctx)
	return engine.WebhookStatus{
		OrganizationID: organizationID, LastError: row.LastError, Retries: int(n),
		CreatedAt: fromNanos(row.CreatedAt), UpdatedAt: fromNanos(row.UpdatedAt),
	}, translate(err, "count retries")
}

// InsertEndpoint stores a new endpoint.
func (s *Store) InsertEndpoint(ctx context.Context, e Endpoint) error {
	_, err := s.w.NewInsert().Model(toEndpointRow(&e)).Exec(ctx)
	return translate(err, "insert a webhook endpoint")
}

// UpdateEndpoint overwrites an endpoint.
func (s *Store) UpdateEndpoint(ctx context.Context, e Endpoint) error {
	res, err := s.w.NewUpdate().Model(toEndpointRow(&e)).WherePK().Where("organization_id = ?", e.OrganizationID).
		ExcludeColumn("organization_id", "created_at").Exec(ctx)
	return changedOne(res, translate(err, "update a webhook endpoint"), "webhook endpoint", e.ID)
}

// DeleteEndpoint removes an endpoint and what waits for it.
func (s *Store) DeleteEndpoint(ctx context.Context, organizationID, id string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewDelete().Table("webhook_endpoints").Where("id = ? AND organization_id = ?", id, organizationID).Exec(ctx)
		if err := changedOne(res, translate(err, "delete a webhook endpoint"), "webhook endpoint", id); err != nil {
			return err
		}
		_, err = tx.NewDelete().Table("webhook_deliveries").Where("endpoint_id = ?", id).Exec(ctx)
		return err
	})
	return translate(err, "delete a webhook endpoint")
}

// Endpoints returns the endpoints of an organization, or of all when it is
// empty, oldest first.
func (s *Store) Endpoints(ctx context.Context, organizationID string) ([]Endpoint, error) {
	var rows []endpointRow
	sel := s.r.NewSelect().Model(&rows).Order("created_at", "id")
	if organizationID != "" {
		sel = sel.Where("organization_id = ?", organizationID)
	}
	if err := sel.Scan(ctx); err != nil {
		return nil, translate(err, "list webhook endpoints")
	}
	out := make([]Endpoint, len(rows))
	for i := range rows {
		out[i] = rows[i].endpoint()
	}
	return out, nil
}

// InsertMessage stores a message and what is to be delivered of it. An id that
// is known is a conflict.
func (s *Store) InsertMessage(ctx context.Context, m engine.Message) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewInsert().Model(&messageRow{
			ID: m.ID, OrganizationID: m.OrganizationID, Event: m.Event, Payload: string(m.Payload), CreatedAt: toNanos(m.CreatedAt),
		}).Exec(ctx)
		if err != nil || len(m.Deliveries) == 0 {
			return err
		}
		rows := make([]deliveryRow, len(m.Deliveries))
		for i, d := range m.Deliveries {
			rows[i] = deliveryRow{
				MessageID: m.ID, EndpointID: d.EndpointID, OrganizationID: m.OrganizationID, State: d.State,
				Tries: int64(d.Tries), NextAt: toNanos(d.NextAt),
			}
		}
		_, err = tx.NewInsert().Model(&rows).Exec(ctx)
		return err
	})
	if err = translate(err, "insert a webhook message"); Conflicting(err) {
		return engine.Errorf(engine.KindConflict, "message %q exists", m.ID).WithHint("use a new event id").Wrap(err)
	}
	return err
}

// PendingDeliveries counts what waits to be delivered of an organization.
func (s *Store) PendingDeliveries(ctx context.Context, organizationID string) (int, error) {
	n, err := s.r.NewSelect().Model((*deliveryRow)(nil)).Where("state = ?", engine.DeliveryPending).
		Where("organization_id = ?", organizationID).Count(ctx)
	return int(n), translate(err, "count webhook deliveries")
}

// DueDeliveries returns up to limit deliveries whose time has come, the longest
// due first, except those to the given endpoints, and when the next one comes;
// the zero time when none does.
func (s *Store) DueDeliveries(ctx context.Context, now time.Time, except []string, limit int) ([]Delivery, time.Time, error) {
	var rows []struct {
		MessageID, EndpointID, OrganizationID, Event, Payload string
		Tries, NextAt                                         int64
	}
	others := func(q *bun.SelectQuery) *bun.SelectQuery {
		if q = q.Where("d.state = ?", engine.DeliveryPending); len(except) > 0 {
			q = q.Where("d.endpoint_id NOT IN (?)", bun.List(except))
		}
		return q
	}
	err := s.r.NewSelect().TableExpr("webhook_deliveries AS d").Join("JOIN webhook_messages AS m ON m.id = d.message_id").
		ColumnExpr("d.message_id, d.endpoint_id, d.organization_id, d.tries, d.next_at, m.event, m.payload").
		Apply(others).Where("d.next_at <= ?", toNanos(now)).OrderExpr("d.next_at, d.message_id").Limit(int64(limit)).Scan(ctx, &rows)
	if err != nil {
		return nil, time.Time{}, translate(err, "find due webhook deliveries")
	}
	var next int64
	err = s.r.NewSelect().TableExpr("webhook_deliveries AS d").ColumnExpr("COALESCE(MIN(d.next_at), 0)").
		Apply(others).Where("d.next_at > ?", toNanos(now)).Scan(ctx, &next)
	if err != nil {
		return nil, time.Time{}, translate(err, "find the next webhook delivery")
	}
	out := make([]Delivery, len(rows))
	for i, r := range rows {
		out[i] = Delivery{
			MessageID: r.MessageID, EndpointID: r.EndpointID, OrganizationID: r.OrganizationID, Event: r.Event,
			Payload: json.RawMessage(r.Payload), Tries: int(r.Tries), NextAt: fromNanos(r.NextAt),
		}
	}
	return out, fromNanos(next), nil
}

// ClaimDelivery keeps a delivery from others until the given time. It is false
// when another server has it.
func (s *Store) ClaimDelivery(ctx context.Context, d Delivery, until time.Time) (bool, error) {
	res, err := s.w.NewUpdate().Table("webhook_deliveries").Set("next_at = ?", toNanos(until)).
		Where("message_id = ? AND endpoint_id = ?", d.MessageID, d.EndpointID).
		Where("state = ? AND next_at = ?", engine.DeliveryPending, toNanos(d.NextAt)).Exec(ctx)
	if err != nil {
		return false, translate(err, "claim a webhook delivery")
	}
	n, err := res.RowsAffected()
	return n == 1, translate(err, "claim a webhook delivery")
}

// FinishDelivery writes how a try ended, and its error as the organization's
// last.
func (s *Store) FinishDelivery(ctx context.Context, organizationID string, a engine.Attempt, after engine.Delivery) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewUpdate().Table("webhook_deliveries").Set("state = ?", after.State).Set("tries = ?", after.Tries).
			Set("next_at = ?", toNanos(after.NextAt)).Where("message_id = ? AND endpoint_id = ?", a.MessageID, a.EndpointID).Exec(ctx)
		if err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(&attemptRow{
			ID: a.ID, MessageID: a.MessageID, EndpointID: a.EndpointID, At: toNanos(a.At), Took: int64(a.Took),
			Status: int64(a.Status), Error: a.Error,
		}).Exec(ctx)
		if err != nil {
			return err
		}
		_, err = tx.NewUpdate().Table("webhook_apps").Set("last_error = ?", a.Error).Set("updated_at = ?", toNanos(a.At)).
			Where("organization_id = ? AND last_error <> ?", organizationID, a.Error).Exec(ctx)
		return err
	})
	return translate(err, "write a webhook delivery")
}

// Messages returns an organization's newest messages before the given id, with
// their deliveries.
func (s *Store) Messages(ctx context.Context, organizationID, before string, limit int) ([]engine.Message, error) {
	n, err := pageLimit(limit)
	if err != nil {
		return nil, err
	}
	var rows []messageRow
	sel := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID)
	if before != "" {
		sel = sel.Where("id < ?", before)
	}
	if err := sel.Order("id DESC").Limit(int64(n)).Scan(ctx); err != nil {
		return nil, translate(err, "list webhook messages")
	}
	return s.withDeliveries(ctx, rows)
}

// Message returns one message.
func (s *Store) Message(ctx context.Context, organizationID, id string) (engine.Message, error) {
	row := new(messageRow)
	if err := s.r.NewSelect().Model(row).Where("id = ? AND organization_id = ?", id, organizationID).Scan(ctx); err != nil {
		return engine.Message{}, missing(translate(err, "read a webhook message"), "webhook message", id)
	}
	all, err := s.withDeliveries(ctx, []messageRow{*row})
	if err != nil {
		return engine.Message{}, err
	}
	return all[0], nil
}

func (s *Store) withDeliveries(ctx context.Context, rows []messageRow) ([]engine.Message, error) {
	out := make([]engine.Message, len(rows))
	at := map[string]int{}
	ids := make([]string, len(rows))
	for i, r := range rows {
		out[i] = engine.Message{
			ID: r.ID, OrganizationID: r.OrganizationID, Event: r.Event, Payload: json.RawMessage(r.Payload), CreatedAt: fromNanos(r.CreatedAt),
		}
		at[r.ID], ids[i] = i, r.ID
	}
	if len(rows) == 0 {
		return out, nil
	}
	var deliveries []deliveryRow
	err := s.r.NewSelect().Model(&deliveries).Where("message_id IN (?)", bun.List(ids)).Order("message_id", "endpoint_id").Scan(ctx)
	for _, d := range deliveries {
		m := &out[at[d.MessageID]]
		m.Deliveries = append(m.Deliveries, engine.Delivery{
			EndpointID: d.EndpointID, State: d.State, Tries: int(d.Tries), NextAt: fromNanos(d.NextAt),
		})
	}
	return out, translate(err, "list webhook deliveries")
}

// Attempts returns the tries of a message, oldest first.
func (s *Store) Attempts(ctx context.Context, messageID string) ([]engine.Attempt, error) {
	var rows []attemptRow
	err := s.r.NewSelect().Model(&rows).Where("message_id = ?", messageID).Order("id").Limit(1000).Scan(ctx)
	out := make([]engine.Attempt, len(rows))
	for i, r := range rows {
		out[i] = engine.Attempt{
			ID: r.ID, MessageID: r.MessageID, EndpointID: r.EndpointID, At: fromNanos(r.At), Took: time.Duration(r.Took),
			Status: int(r.Status), Error: r.Error,
		}
	}
	return out, translate(err, "list webhook attempts")
}

// ReviveDeliveries makes dead deliveries of a message due again.
func (s *Store) ReviveDeliveries(ctx context.Context, messageID string, at time.Time) error {
	_, err := s.w.NewUpdate().Table("webhook_deliveries").Set("state = ?", engine.DeliveryPending).Set("tries = 0").
		Set("next_at = ?", toNanos(at)).Where("message_id = ? AND state = ?", messageID, engine.DeliveryDead).Exec(ctx)
	return translate(err, "revive webhook deliveries")
}

// PurgeWebhooks forgets messages older than the given time, delivered or not.
func (s *Store) PurgeWebhooks(ctx context.Context, before time.Time) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		const old = "message_id IN (SELECT id FROM webhook_messages WHERE created_at < ?)"
		for _, table := range []string{"webhook_attempts", "webhook_deliveries"} {
			if _, err := tx.NewDelete().Table(table).Where(old, toNanos(before)).Exec(ctx); err != nil {
				return err
			}
		}
		_, err := tx.NewDelete().Table("webhook_messages").Where("created_at < ?", toNanos(before)).Exec(ctx)
		return err
	})
	return translate(err, "purge webhook messages")
}
