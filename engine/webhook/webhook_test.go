package webhook

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const org = "org"

// receiver is an endpoint that keeps what it is sent and answers as told.
type receiver struct {
	*httptest.Server
	got chan *http.Request // bodies are in the context's place: see body

	mu     sync.Mutex
	status int
	bodies [][]byte
}

func newReceiver(t *testing.T, status int) *receiver {
	r := &receiver{got: make(chan *http.Request, 100), status: status}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.bodies = append(r.bodies, body)
		status := r.status
		r.mu.Unlock()
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		r.got <- req
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) body(i int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bodies[i]
}

type rig struct {
	*Service
	t     *testing.T
	db    *store.Store
	box   *secret.Box
	clock *enginetest.Clock
}

func newRig(t *testing.T, private bool) *rig {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "atoll.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	box, err := secret.OpenFile(filepath.Join(t.TempDir(), "k"), true)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, db: db, box: box, clock: enginetest.NewClock()}
	r.open(private)
	return r
}

// open begins a service on the store, as a start of the server does.
func (r *rig) open(private bool) {
	r.t.Helper()
	s, err := Open(r.t.Context(), Config{Store: r.db, Box: r.box, Private: private, Now: r.clock.Now})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Service = s
	r.t.Cleanup(s.Close)
}

func (r *rig) endpoint(url string, events ...string) engine.Endpoint {
	r.t.Helper()
	e, err := r.CreateEndpoint(r.t.Context(), engine.Endpoint{OrganizationID: org, URL: url, Events: events})
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func (r *rig) send(id string) {
	r.t.Helper()
	if _, err := r.Messages().Send(r.t.Context(), org, "sandbox.created", id, json.RawMessage(`{"a":1}`)); err != nil {
		r.t.Fatal(err)
	}
}

// settled waits until a message's only delivery is as wanted, moving the clock
// over the pauses between tries.
func (r *rig) settled(id, state string, tries int) {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		m, err := r.db.Message(r.t.Context(), org, id)
		if err != nil {
			r.t.Fatal(err)
		}
		d := m.Deliveries[0]
		if d.State == state && d.Tries == tries {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("got %+v, want %s after %d", d, state, tries)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestEventsAreSignedAndDelivered(t *testing.T) {
	r := newRig(t, true)
	to := newReceiver(t, http.StatusNoContent)
	e := r.endpoint(to.URL+"/hook", "sandbox.state.updated")
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	sb := &engine.Sandbox{
		ID: "s1", OrganizationID: org, Name: "box", State: engine.StateStarted, Snapshot: "atoll-small", Env: map[string]string{"TOKEN": "hunter2"},
		CreatedAt: at, UpdatedAt: at,
	}
	event := engine.Event{ID: "01ABC", Type: "sandbox.state.updated", OrganizationID: org, Time: at, Sandbox: sb, Old: "starting", New: "started"}
	for _, other := range []engine.Event{
		{ID: "02", Type: "sandbox.created", OrganizationID: org, Sandbox: sb},        // not wanted
		{ID: "03", Type: "sandbox.updated", OrganizationID: org, Sandbox: sb},        // not of the contract
		{ID: "04", Type: "sandbox.state.updated", OrganizationID: "no", Sandbox: sb}, // another's
		event,
	} {
		r.Notify(other)
	}
	req := <-to.got
	hook, err := standardwebhooks.NewWebhook(e.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := hook.Verify(to.body(0), req.Header); err != nil {
		t.Error(err)
	}
	if got := req.Header.Get("webhook-id"); got != "msg_01ABC" || req.Method != http.MethodPost {
		t.Errorf("got %s %s", req.Method, got)
	}
	var got map[string]any
	if err := json.Unmarshal(to.body(0), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"event": "sandbox.state.updated", "timestamp": "2026-03-04T05:06:07.000Z", "organizationId": org, "id": "s1", "name": "box",
		"state": "started", "snapshot": "atoll-small", "oldState": "starting", "newState": "started",
		"createdAt": "2026-03-04T05:06:07.000Z", "updatedAt": "2026-03-04T05:06:07.000Z",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.settled("msg_01ABC", engine.DeliveryDelivered, 1)
	list, err := r.Messages().List(t.Context(), org, "", 0)
	if err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	tries, err := r.Messages().Attempts(t.Context(), org, "msg_01ABC")
	if err != nil || len(tries) != 1 || tries[0].Status != 204 || tries[0].Error != "" || tries[0].EndpointID != e.ID {
		t.Errorf("got %+v, %v", tries, err)
	}
}

func TestRequestsForAccessAreDelivered(t *testing.T) {
	r := newRig(t, true)
	to := newReceiver(t, http.StatusNoContent)
	r.endpoint(to.URL+"/hook", engine.EventAccessRequested)
	r.Notify(engine.Event{
		ID: "01", Type: engine.EventAccessRequested, OrganizationID: org, Sandbox: &engine.Sandbox{ID: "s1", Name: "box"},
		Access: &engine.AccessRequest{ID: "acc-1", Host: "x.example", State: engine.AccessPending},
	})
	<-to.got
	var got struct {
		ID     string
		Access struct{ ID, Host, State string }
	}
	if err := json.Unmarshal(to.body(0), &got); err != nil || got.ID != "s1" || got.Access.ID != "acc-1" || got.Access.Host != "x.example" || got.Access.State != "pending" {
		t.Errorf("got %s, %v", to.body(0), err)
	}
}

func TestRetriesEndInDeathAndResendRevives(t *testing.T) {
	r := newRig(t, true)
	to := newReceiver(t, http.StatusInternalServerError)
	r.endpoint(to.URL)
	r.send("m1")
	for i, pause := range pauses() {
		<-to.got
		r.settled("m1", engine.DeliveryPending, i+1)
		m, err := r.db.Message(t.Context(), org, "m1")
		if err != nil {
			t.Fatal(err)
		}
		if left := m.Deliveries[0].NextAt.Sub(r.clock.Now()); left < pause-time.Second || left > pause+pause/10 {
			t.Errorf("after try %d: the next comes in %v, want about %v", i+1, left, pause)
		}
		st, err := r.Status(t.Context(), org)
		if err != nil || st.Retries != 1 || st.LastError != "the endpoint answered 500" {
			t.Errorf("got %+v, %v", st, err)
		}
		r.clock.Advance(pause + pause/10)
		r.wake()
	}
	<-to.got
	r.settled("m1", engine.DeliveryDead, len(pauses())+1)
	to.answer(http.StatusOK)
	if err := r.Messages().Resend(t.Context(), org, "m1"); err != nil {
		t.Fatal(err)
	}
	<-to.got
	r.settled("m1", engine.DeliveryDelivered, 1)
	if tries, err := r.Messages().Attempts(t.Context(), org, "m1"); err != nil || len(tries) != len(pauses())+2 {
		t.Errorf("got %d tries, %v", len(tries), err)
	}
}

func TestDeliverySurvivesARestart(t *testing.T) {
	r := newRig(t, true)
	to := newReceiver(t, http.StatusBadGateway)
	r.endpoint(to.URL)
	r.send("m1")
	<-to.got
	r.settled("m1", engine.DeliveryPending, 1)
	r.Notify(engine.Event{ID: "02", Type: "snapshot.removed", OrganizationID: org, Snapshot: &engine.Snapshot{ID: "n"}})
	r.Close() // what was told is stored
	to.answer(http.StatusOK)
	r.clock.Advance(time.Hour)
	r.open(true)
	r.settled("m1", engine.DeliveryDelivered, 2)
	r.settled("msg_02", engine.DeliveryDelivered, 1)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	r := newRig(t, true)
	to := newReceiver(t, http.StatusTemporaryRedirect)
	r.endpoint(to.URL)
	r.send("m1")
	if req := <-to.got; req.URL.Path != "/" {
		t.Errorf("got %s", req.URL)
	}
	r.settled("m1", engine.DeliveryPending, 1)
}

func TestGoneDisables(t *testing.T) {
	r := newRig(t, true)
	to := newReceiver(t, http.StatusGone)
	e := r.endpoint(to.URL)
	r.send("m1")
	<-to.got
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := r.Endpoint(t.Context(), org, e.ID)
		if err == nil && got.Disabled && got.Reason != "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v, %v", got, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.settled("m1", engine.DeliveryPending, 1)
	r.clock.Advance(time.Minute)
	r.wake()
	r.settled("m1", engine.DeliveryDead, 2)
	on := false
	got, err := r.UpdateEndpoint(t.Context(), org, e.ID, engine.UpdateEndpoint{Disabled: &on})
	if err != nil || got.Disabled || got.Reason != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestPrivateAddressesAreNotReached has an endpoint that a name or a change of
// a name leads to this host: the guard looks at the address that is dialed.
func TestPrivateAddressesAreNotReached(t *testing.T) {
	r := newRig(t, false)
	to := newReceiver(t, http.StatusOK)
	sealed := store.Endpoint{Endpoint: engine.Endpoint{ID: "e", OrganizationID: org, URL: to.URL}}
	if _, err := r.newSecret(&sealed); err != nil {
		t.Fatal(err)
	}
	if err := r.db.InsertEndpoint(t.Context(), sealed); err != nil {
		t.Fatal(err)
	}
	if err := r.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.send("m1")
	r.settled("m1", engine.DeliveryPending, 1)
	tries, err := r.Messages().Attempts(t.Context(), org, "m1")
	if err != nil || len(tries) != 1 || !strings.Contains(tries[0].Error, "not an address of the public internet") {
		t.Errorf("got %+v, %v", tries, err)
	}
	if len(to.got) > 0 {
		t.Error("the receiver was reached")
	}
}

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700:4700::1111": true, "127.0.0.1": false, "10.1.2.3": false, "172.20.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "::ffff:127.0.0.1": false, "::ffff:8.8.8.8": true,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestBadEndpoints(t *testing.T) {
	r := newRig(t, false)
	ctx := t.Context()
	for name, e := range map[string]engine.Endpoint{
		"no url":         {},
		"no host":        {URL: "https://"},
		"another scheme": {URL: "ftp://example.com"},
		"not encrypted":  {URL: "http://example.com"},
		"user":           {URL: "https://a:b@example.com"},
		"fragment":       {URL: "https://example.com/#a"},
		"loopback":       {URL: "https://127.0.0.1/"},
		"mapped":         {URL: "https://[::ffff:10.0.0.1]/"},
		"localhost":      {URL: "https://LOCALHOST./"},
		"metadata":       {URL: "https://169.254.169.254/latest"},
		"long":           {URL: "https://example.com/" + strings.Repeat("a", 3000)},
		"unknown event":  {URL: "https://example.com", Events: []string{"sandbox.exploded"}},
		"description":    {URL: "https://example.com", Description: "a\x00b"},
	} {
		e.OrganizationID = org
		if _, err := r.CreateEndpoint(ctx, e); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := r.CreateEndpoint(ctx, engine.Endpoint{URL: "https://example.com"}); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("no organization: got %v", err)
	}
	if _, err := r.Endpoints(ctx, ""); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("all organizations: got %v", err)
	}
	for range maxEndpoints {
		r.endpoint("https://example.com/hook")
	}
	if _, err := r.CreateEndpoint(ctx, engine.Endpoint{OrganizationID: org, URL: "https://example.com"}); engine.KindOf(err) != engine.KindExhausted {
		t.Errorf("too many: got %v", err)
	}
}

func TestEndpointLife(t *testing.T) {
	r := newRig(t, true)
	ctx := t.Context()
	if _, err := r.Status(ctx, org); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("got %v", err)
	}
	e := r.endpoint("https://example.com/a")
	if st, err := r.Initialize(ctx, org); err != nil || st.OrganizationID != org || st.CreatedAt.IsZero() {
		t.Errorf("got %+v, %v", st, err)
	}
	if !strings.HasPrefix(e.Secret, "whsec_") {
		t.Errorf("got secret %q", e.Secret)
	}
	if got, err := r.Endpoint(ctx, org, e.ID); err != nil || got.Secret != "" || got.URL != e.URL {
		t.Errorf("got %+v, %v", got, err)
	}
	fresh, err := r.RotateSecret(ctx, org, e.ID)
	if err != nil || fresh.Secret == e.Secret || !strings.HasPrefix(fresh.Secret, "whsec_") {
		t.Errorf("got %+v, %v", fresh, err)
	}
	url, events := "https://example.com/b", []string{"volume.created"}
	got, err := r.UpdateEndpoint(ctx, org, e.ID, engine.UpdateEndpoint{URL: &url, Events: &events})
	if err != nil || got.URL != url || len(got.Events) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	bad := "ftp://x"
	if _, err := r.UpdateEndpoint(ctx, org, e.ID, engine.UpdateEndpoint{URL: &bad}); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("got %v", err)
	}
	if err := r.Messages().Refresh(ctx, org); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another's endpoint": func() error { _, err := r.Endpoint(ctx, "other", e.ID); return err }(),
		"another's rotation": func() error { _, err := r.RotateSecret(ctx, "other", e.ID); return err }(),
		"another's delete":   r.DeleteEndpoint(ctx, "other", e.ID),
		"another's refresh":  r.Messages().Refresh(ctx, "other"),
		"unknown message":    r.Messages().Resend(ctx, org, "nobody"),
		"unknown attempts":   func() error { _, err := r.Messages().Attempts(ctx, org, "nobody"); return err }(),
	} {
		if engine.KindOf(err) != engine.KindNotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := r.DeleteEndpoint(ctx, org, e.ID); err != nil {
		t.Error(err)
	}
}

func TestBadMessages(t *testing.T) {
	r := newRig(t, true)
	send := func(event, id, body string) engine.Kind {
		_, err := r.Messages().Send(context.Background(), org, event, id, json.RawMessage(body))
		return engine.KindOf(err)
	}
	if got := send("sandbox.created", "once", "{}"); got != "" {
		t.Errorf("got %s", got)
	}
	for name, got := range map[string]struct{ have, want engine.Kind }{
		"again":         {send("sandbox.created", "once", "{}"), engine.KindConflict},
		"unknown event": {send("sandbox.exploded", "", "{}"), engine.KindInvalid},
		"odd id":        {send("sandbox.created", "a b", "{}"), engine.KindInvalid},
		"no JSON":       {send("sandbox.created", "", "{"), engine.KindInvalid},
		"too large":     {send("sandbox.created", "", `"`+strings.Repeat("a", maxPayload)+`"`), engine.KindInvalid},
	} {
		if got.have != got.want {
			t.Errorf("%s: got %q, want %q", name, got.have, got.want)
		}
	}
}
