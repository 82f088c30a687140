package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

const (
	atOnce      = 16 // deliveries at work
	perEndpoint = 4  // of them to one endpoint
	lease       = time.Minute
	keepFor     = 7 * 24 * time.Hour
	lookEvery   = 30 * time.Second // for what other servers wrote
	purgeEvery  = time.Hour
)

// pauses are the times between tries. After the last try a delivery is dead.
func pauses() []time.Duration {
	return []time.Duration{
		5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 16 * time.Hour,
	}
}

// Notify takes an event for those who want to be told. It waits for nobody:
// when the database is so slow that thousands queue, events are dropped.
func (s *Service) Notify(e engine.Event) {
	if !slices.Contains(engine.WebhookEvents(), e.Type) || len(s.wanting(e.OrganizationID, e.Type)) == 0 {
		return
	}
	select {
	case s.queue <- e:
	default:
		s.Log.Error("webhook event dropped: too many wait", "type", e.Type, "organization", e.OrganizationID)
	}
}

// collect stores events until ctx ends, then those that are queued.
func (s *Service) collect(ctx context.Context) {
	for {
		select {
		case e := <-s.queue:
			s.store(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-s.queue:
					s.store(e)
				default:
					return
				}
			}
		}
	}
}

func (s *Service) store(e engine.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body, err := json.Marshal(payload(e))
	if err == nil {
		_, err = s.put(ctx, e.OrganizationID, e.Type, "msg_"+e.ID, body)
	}
	if err != nil {
		s.Log.Error("webhook event dropped", "type", e.Type, "organization", e.OrganizationID, "error", err)
	}
}

// payload is what receivers get: the contract's fields, and nothing that may
// be secret.
func payload(e engine.Event) map[string]any {
	const format = "2006-01-02T15:04:05.000Z07:00"
	p := map[string]any{"event": e.Type, "timestamp": e.Time.UTC().Format(format), "organizationId": e.OrganizationID}
	created, updated := e.Time, e.Time
	switch {
	case e.Sandbox != nil:
		p["id"], p["name"], p["state"], p["snapshot"] = e.Sandbox.ID, e.Sandbox.Name, e.Sandbox.State, e.Sandbox.Snapshot
		created, updated = e.Sandbox.CreatedAt, e.Sandbox.UpdatedAt
	case e.Snapshot != nil:
		p["id"], p["name"], p["state"] = e.Snapshot.ID, e.Snapshot.Name, e.Snapshot.State
		created, updated = e.Snapshot.CreatedAt, e.Snapshot.UpdatedAt
	}
	if e.Access != nil {
		p["access"] = e.Access
	}
	p["createdAt"], p["updatedAt"] = created.UTC().Format(format), updated.UTC().Format(format)
	if e.Type == "sandbox.state.updated" || e.Type == "snapshot.state.updated" {
		p["oldState"], p["newState"] = e.Old, e.New
	}
	return p
}

// deliver sends what is due until ctx ends.
func (s *Service) deliver(ctx context.Context) {
	slots := make(chan struct{}, atOnce)
	var purged time.Time
	for ctx.Err() == nil {
		if time.Since(purged) > purgeEvery {
			purged = time.Now()
			if err := s.Store.PurgeWebhooks(ctx, s.Now().Add(-keepFor)); err != nil && ctx.Err() == nil {
				s.Log.Warn("old webhook messages not removed", "error", err)
			}
		}
		wait := s.round(ctx, slots)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.poke:
		}
		timer.Stop()
	}
}

// round begins deliveries that are due and says when to look again.
func (s *Service) round(ctx context.Context, slots chan struct{}) time.Duration {
	due, next, err := s.Store.DueDeliveries(ctx, s.Now(), s.crowded(), 2*atOnce)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Warn("webhook deliveries not read", "error", err)
		}
		return lookEvery
	}
	for _, d := range due {
		e, ok := s.find(d)
		if ok && !s.take(d.EndpointID) {
			continue // it is crowded now; the end of one looks again
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return 0
		}
		s.wg.Go(func() {
			defer func() {
				<-slots
				if ok {
					s.leave(d.EndpointID)
				}
				s.wake()
			}()
			s.attempt(ctx, d, e, ok)
		})
	}
	if next.IsZero() {
		return lookEvery
	}
	return min(max(next.Sub(s.Now()), time.Millisecond), lookEvery)
}

// find returns the endpoint of a delivery. One that is gone or disabled has
// none.
func (s *Service) find(d store.Delivery) (store.Endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints[d.OrganizationID] {
		if e.ID == d.EndpointID {
			return e, !e.Disabled
		}
	}
	return store.Endpoint{}, false
}

func (s *Service) crowded() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id, n := range s.flying {
		if n >= perEndpoint {
			out = append(out, id)
		}
	}
	return out
}

func (s *Service) take(endpoint string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flying[endpoint] >= perEndpoint {
		return false
	}
	s.flying[endpoint]++
	return true
}

func (s *Service) leave(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flying[endpoint]--; s.flying[endpoint] <= 0 {
		delete(s.flying, endpoint)
	}
}

// attempt tries a delivery once, if no other server does.
func (s *Service) attempt(ctx context.Context, d store.Delivery, e store.Endpoint, there bool) {
	mine, err := s.Store.ClaimDelivery(ctx, d, s.Now().Add(lease))
	if err != nil || !mine {
		return
	}
	began := s.Now()
	status := 0
	if there {
		status, err = s.send(ctx, d, e)
	} else {
		err = engine.Errorf(engine.KindNotFound, "the endpoint is disabled")
	}
	if ctx.Err() != nil {
		return // the server ends; the next one tries again after the lease
	}
	a := engine.Attempt{
		ID: ulid.Make().String(), MessageID: d.MessageID, EndpointID: d.EndpointID, At: began.UTC(), Took: s.Now().Sub(began), Status: status,
	}
	if err != nil {
		a.Error = plain(err)
	}
	if status == http.StatusGone {
		s.disable(ctx, e) // first, so that nothing is sent again
	}
	after := s.after(d, err, there)
	if err := s.Store.FinishDelivery(ctx, d.OrganizationID, a, after); err != nil && ctx.Err() == nil {
		s.Log.Warn("webhook delivery not written", "message", d.MessageID, "error", err)
	}
}

// plain is an error's text for the endpoint's owner, without addresses of this
// host.
func plain(err error) string {
	known := engine.AsError(err)
	if known.Kind == engine.KindInternal {
		return "no answer"
	}
	return known.Message
}

// after says what becomes of a delivery. An endpoint that is gone is not tried
// again.
func (s *Service) after(d store.Delivery, err error, there bool) engine.Delivery {
	out := engine.Delivery{EndpointID: d.EndpointID, State: engine.DeliveryDelivered, Tries: d.Tries + 1}
	if err == nil {
		return out
	}
	out.State = engine.DeliveryDead
	if list := pauses(); there && d.Tries < len(list) {
		pause := list[d.Tries]
		out.State, out.NextAt = engine.DeliveryPending, s.Now().UTC().Add(pause+rand.N(pause/10)) //nolint:gosec // spreads load
	}
	return out
}

// send posts one message. Any status of 2xx takes it.
func (s *Service) send(ctx context.Context, d store.Delivery, e store.Endpoint) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	req, err := s.request(ctx, d, e)
	if err != nil {
		return 0, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxResponse))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return res.StatusCode, engine.Errorf(engine.KindUnavailable, "the endpoint answered %d", res.StatusCode)
	}
	return res.StatusCode, nil
}

// request makes a request that is signed as Standard Webhooks says.
func (s *Service) request(ctx context.Context, d store.Delivery, e store.Endpoint) (*http.Request, error) {
	if s.Box == nil {
		return nil, engine.Errorf(engine.KindUnsupported, "this server keeps no secrets: it has no key file")
	}
	key, err := s.Box.Open(owner(e), e.Sealed)
	if err != nil {
		return nil, err
	}
	signer, err := standardwebhooks.NewWebhook(key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read the signing secret: %w", err)
	}
	now := time.Now()
	signature, err := signer.Sign(d.MessageID, now, d.Payload)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(d.Payload))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "atoll-webhooks")
	req.Header.Set("webhook-id", d.MessageID)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	return req, nil
}

// disable switches an endpoint off that says that it is gone.
func (s *Service) disable(ctx context.Context, e store.Endpoint) {
	e.Disabled, e.Reason, e.UpdatedAt = true, "it answered 410 Gone", s.Now().UTC()
	err := s.Store.UpdateEndpoint(ctx, e)
	if err == nil {
		err = s.reload(ctx)
	}
	if err != nil {
		s.Log.Warn("webhook endpoint not disabled", "endpoint", e.ID, "error", err)
	}
}
