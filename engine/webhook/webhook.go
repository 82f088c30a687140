// Package webhook tells the outside of events: it stores a signed message for
// each endpoint that wants it and delivers it until the endpoint has taken it
// or a day and a half is over. What it stores survives a restart.
package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
)

// Store is what the service needs of engine/store.
type Store interface {
	EnsureWebhookApp(ctx context.Context, organizationID string, at time.Time) error
	WebhookApp(ctx context.Context, organizationID string) (engine.WebhookStatus, error)
	InsertEndpoint(ctx context.Context, e store.Endpoint) error
	UpdateEndpoint(ctx context.Context, e store.Endpoint) error
	DeleteEndpoint(ctx context.Context, organizationID, id string) error
	Endpoints(ctx context.Context, organizationID string) ([]store.Endpoint, error)
	InsertMessage(ctx context.Context, m engine.Message) error
	PendingDeliveries(ctx context.Context, organizationID string) (int, error)
	DueDeliveries(ctx context.Context, now time.Time, except []string, limit int) ([]store.Delivery, time.Time, error)
	ClaimDelivery(ctx context.Context, d store.Delivery, until time.Time) (bool, error)
	FinishDelivery(ctx context.Context, organizationID string, a engine.Attempt, after engine.Delivery) error
	Messages(ctx context.Context, organizationID, before string, limit int) ([]engine.Message, error)
	Message(ctx context.Context, organizationID, id string) (engine.Message, error)
	Attempts(ctx context.Context, messageID string) ([]engine.Attempt, error)
	ReviveDeliveries(ctx context.Context, messageID string, at time.Time) error
	PurgeWebhooks(ctx context.Context, before time.Time) error
}

// Config is what a service is made of.
type Config struct {
	Store   Store
	Box     *secret.Box // seals signing secrets
	Private bool        // allow plain HTTP, and addresses that are not public
	Now     func() time.Time
	Log     *slog.Logger
}

const (
	maxEndpoints = 20      // of an organization
	maxPending   = 10_000  // deliveries of an organization; more events are dropped
	maxPayload   = 1 << 20 // bytes of a message that an administrator sends
	queueSize    = 4096    // events on their way to the database
)

// Service is webhooks. It implements engine.Webhooks and, by Messages, the
// rest.
type Service struct {
	Config
	client *http.Client
	queue  chan engine.Event
	poke   chan struct{}
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	endpoints map[string][]store.Endpoint // by organization
	flying    map[string]int              // deliveries at work, by endpoint
}

// Open reads the endpoints and begins to deliver. Close ends it.
func Open(ctx context.Context, c Config) (*Service, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Service{
		Config: c, client: newClient(c.Private), queue: make(chan engine.Event, queueSize), poke: make(chan struct{}, 1),
		stop: stop, flying: map[string]int{},
	}
	if err := s.reload(ctx); err != nil {
		stop()
		return nil, err
	}
	s.wg.Go(func() { s.collect(bg) })
	s.wg.Go(func() { s.deliver(bg) })
	return s, nil
}

// Close stores what was told before and stops deliveries; those at work are
// tried again by the next server.
func (s *Service) Close() {
	s.stop()
	s.wg.Wait()
	s.client.CloseIdleConnections()
}

func (s *Service) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// reload reads all endpoints.
func (s *Service) reload(ctx context.Context) error {
	all, err := s.Store.Endpoints(ctx, "")
	if err != nil {
		return err
	}
	by := map[string][]store.Endpoint{}
	for _, e := range all {
		by[e.OrganizationID] = append(by[e.OrganizationID], e)
	}
	s.mu.Lock()
	s.endpoints = by
	s.mu.Unlock()
	s.wake()
	return nil
}

// wanting returns an organization's endpoints that want an event.
func (s *Service) wanting(organizationID, event string) []store.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []store.Endpoint
	for _, e := range s.endpoints[organizationID] {
		if !e.Disabled && (len(e.Events) == 0 || slices.Contains(e.Events, event)) {
			out = append(out, e)
		}
	}
	return out
}

// Initialize implements engine.Webhooks.
func (s *Service) Initialize(ctx context.Context, organizationID string) (engine.WebhookStatus, error) {
	if organizationID == "" {
		return engine.WebhookStatus{}, engine.Errorf(engine.KindInvalid, "organization is empty")
	}
	if err := s.Store.EnsureWebhookApp(ctx, organizationID, s.Now().UTC()); err != nil {
		return engine.WebhookStatus{}, err
	}
	return s.Status(ctx, organizationID)
}

// Status implements engine.Webhooks.
func (s *Service) Status(ctx context.Context, organizationID string) (engine.WebhookStatus, error) {
	st, err := s.Store.WebhookApp(ctx, organizationID)
	if engine.KindOf(err) == engine.KindNotFound {
		return st, engine.Errorf(engine.KindNotFound, "webhooks are not initialized").WithHint("initialize them, or make an endpoint")
	}
	return st, err
}

// Endpoints implements engine.Webhooks.
func (s *Service) Endpoints(ctx context.Context, organizationID string) ([]engine.Endpoint, error) {
	all, err := s.own(ctx, organizationID)
	out := make([]engine.Endpoint, len(all))
	for i, e := range all {
		out[i] = e.Endpoint
	}
	return out, err
}

// own never lists those of all organizations.
func (s *Service) own(ctx context.Context, organizationID string) ([]store.Endpoint, error) {
	if organizationID == "" {
		return nil, engine.Errorf(engine.KindInvalid, "organization is empty")
	}
	return s.Store.Endpoints(ctx, organizationID)
}

func (s *Service) endpoint(ctx context.Context, organizationID, id string) (store.Endpoint, error) {
	all, err := s.own(ctx, organizationID)
	if err != nil {
		return store.Endpoint{}, err
	}
	for _, e := range all {
		if e.ID == id {
			return e, nil
		}
	}
	return store.Endpoint{}, engine.Errorf(engine.KindNotFound, "webhook endpoint %q does not exist", id)
}

// Endpoint implements engine.Webhooks.
func (s *Service) Endpoint(ctx context.Context, organizationID, id string) (engine.Endpoint, error) {
	e, err := s.endpoint(ctx, organizationID, id)
	return e.Endpoint, err
}

// CreateEndpoint implements engine.Webhooks.
func (s *Service) CreateEndpoint(ctx context.Context, e engine.Endpoint) (engine.Endpoint, error) {
	if err := s.check(e); err != nil {
		return engine.Endpoint{}, err
	}
	all, err := s.own(ctx, e.OrganizationID)
	if err != nil {
		return engine.Endpoint{}, err
	}
	if len(all) >= maxEndpoints {
		return engine.Endpoint{}, engine.Errorf(engine.KindExhausted, "the organization has %d webhook endpoints", len(all)).WithHint("delete one")
	}
	now := s.Now().UTC()
	row := store.Endpoint{Endpoint: engine.Endpoint{
		ID: uuid.NewString(), OrganizationID: e.OrganizationID, URL: e.URL, Description: e.Description, Events: e.Events,
		Disabled: e.Disabled, CreatedAt: now, UpdatedAt: now,
	}}
	text, err := s.newSecret(&row)
	if err == nil {
		err = s.Store.EnsureWebhookApp(ctx, e.OrganizationID, now)
	}
	if err == nil {
		err = s.Store.InsertEndpoint(ctx, row)
	}
	if err != nil {
		return engine.Endpoint{}, err
	}
	answer := row.Endpoint
	answer.Secret = text
	return answer, s.reload(ctx)
}

func (s *Service) check(e engine.Endpoint) error {
	if err := s.checkURL(e.URL); err != nil {
		return err
	}
	if len(e.Description) > 256 || strings.ContainsFunc(e.Description, unicode.IsControl) {
		return engine.Errorf(engine.KindInvalid, "description is longer than 256 bytes or holds control characters")
	}
	for _, event := range e.Events {
		if err := checkEvent(event); err != nil {
			return err
		}
	}
	return nil
}

func checkEvent(event string) error {
	if slices.Contains(engine.WebhookEvents(), event) {
		return nil
	}
	return engine.Errorf(engine.KindInvalid, "event %.80q is not known", event).
		WithHint("use one of %s", strings.Join(engine.WebhookEvents(), ", "))
}

// newSecret gives the endpoint a fresh signing secret and returns it.
func (s *Service) newSecret(e *store.Endpoint) (string, error) {
	if s.Box == nil {
		return "", engine.Errorf(engine.KindUnsupported, "this server keeps no secrets: it has no key file")
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return "", err
	}
	text := "whsec_" + base64.StdEncoding.EncodeToString(key[:])
	sealed, err := s.Box.Seal(owner(*e), secret.NewValue(text))
	e.Sealed = sealed
	return text, err
}

// owner is what the signing secret of an endpoint is sealed for.
func owner(e store.Endpoint) string {
	return secret.Owner("webhook_endpoints", e.OrganizationID, e.ID)
}

// UpdateEndpoint implements engine.Webhooks. One that is enabled again is as
// new to the server.
func (s *Service) UpdateEndpoint(ctx context.Context, organizationID, id string, u engine.UpdateEndpoint) (engine.Endpoint, error) {
	e, err := s.endpoint(ctx, organizationID, id)
	if err != nil {
		return engine.Endpoint{}, err
	}
	set(&e.URL, u.URL)
	set(&e.Description, u.Description)
	set(&e.Events, u.Events)
	if u.Disabled != nil {
		e.Disabled, e.Reason = *u.Disabled, ""
	}
	if err := s.check(e.Endpoint); err != nil {
		return engine.Endpoint{}, err
	}
	e.UpdatedAt = s.Now().UTC()
	if err := s.Store.UpdateEndpoint(ctx, e); err != nil {
		return engine.Endpoint{}, err
	}
	return e.Endpoint, s.reload(ctx)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// DeleteEndpoint implements engine.Webhooks.
func (s *Service) DeleteEndpoint(ctx context.Context, organizationID, id string) error {
	if err := s.Store.DeleteEndpoint(ctx, organizationID, id); err != nil {
		return err
	}
	return s.reload(ctx)
}

// RotateSecret implements engine.Webhooks. What is sent from then on is signed
// with the new secret alone.
func (s *Service) RotateSecret(ctx context.Context, organizationID, id string) (engine.Endpoint, error) {
	e, err := s.endpoint(ctx, organizationID, id)
	if err != nil {
		return engine.Endpoint{}, err
	}
	text, err := s.newSecret(&e)
	if err != nil {
		return engine.Endpoint{}, err
	}
	e.UpdatedAt = s.Now().UTC()
	if err := s.Store.UpdateEndpoint(ctx, e); err != nil {
		return engine.Endpoint{}, err
	}
	answer := e.Endpoint
	answer.Secret = text
	return answer, s.reload(ctx)
}

// Messages is what was sent or waits to be.
func (s *Service) Messages() engine.Messages { return messages{s} }

type messages struct{ *Service }

var idRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Send implements engine.Messages.
func (m messages) Send(ctx context.Context, organizationID, event, id string, payload json.RawMessage) (engine.Message, error) {
	if err := checkEvent(event); err != nil {
		return engine.Message{}, err
	}
	if id == "" {
		id = "msg_" + ulid.Make().String()
	}
	switch {
	case organizationID == "":
		return engine.Message{}, engine.Errorf(engine.KindInvalid, "organization is empty")
	case !idRule.MatchString(id):
		return engine.Message{}, engine.Errorf(engine.KindInvalid, "eventId %.80q is not allowed", id).WithHint("use up to 64 letters, digits, dots, dashes and underscores")
	case len(payload) > maxPayload || !json.Valid(payload):
		return engine.Message{}, engine.Errorf(engine.KindInvalid, "payload is not JSON of at most %d bytes", maxPayload)
	}
	return m.put(ctx, organizationID, event, id, payload)
}

// put stores a message for the endpoints that want it.
func (s *Service) put(ctx context.Context, organizationID, event, id string, payload json.RawMessage) (engine.Message, error) {
	now := s.Now().UTC()
	m := engine.Message{ID: id, OrganizationID: organizationID, Event: event, Payload: payload, CreatedAt: now}
	for _, e := range s.wanting(organizationID, event) {
		m.Deliveries = append(m.Deliveries, engine.Delivery{EndpointID: e.ID, State: engine.DeliveryPending, NextAt: now})
	}
	n, err := s.Store.PendingDeliveries(ctx, organizationID)
	if err != nil {
		return m, err
	}
	if n+len(m.Deliveries) > maxPending {
		return m, engine.Errorf(engine.KindExhausted, "%d webhook deliveries wait already", n).WithHint("disable endpoints that do not answer")
	}
	if err := s.Store.InsertMessage(ctx, m); err != nil {
		return m, err
	}
	s.wake()
	return m, nil
}

// List implements engine.Messages.
func (m messages) List(ctx context.Context, organizationID, before string, limit int) ([]engine.Message, error) {
	return m.Store.Messages(ctx, organizationID, before, limit)
}

// Attempts implements engine.Messages.
func (m messages) Attempts(ctx context.Context, organizationID, messageID string) ([]engine.Attempt, error) {
	if _, err := m.Store.Message(ctx, organizationID, messageID); err != nil {
		return nil, err
	}
	return m.Store.Attempts(ctx, messageID)
}

// Resend implements engine.Messages.
func (m messages) Resend(ctx context.Context, organizationID, messageID string) error {
	if _, err := m.Store.Message(ctx, organizationID, messageID); err != nil {
		return err
	}
	if err := m.Store.ReviveDeliveries(ctx, messageID, m.Now().UTC()); err != nil {
		return err
	}
	m.wake()
	return nil
}

// Refresh implements engine.Messages.
func (m messages) Refresh(ctx context.Context, organizationID string) error {
	if _, err := m.Status(ctx, organizationID); err != nil {
		return err
	}
	return m.reload(ctx)
}
