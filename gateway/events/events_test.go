package events_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/events"
)

// source is an engine.Events and a list of keys.
type source struct {
	changes chan engine.Event
	watched chan watch
	valid   func() bool
}

type watch struct {
	ctx          context.Context // ends with the stream
	organization string
}

func (s *source) Watch(ctx context.Context, organization string) (<-chan engine.Event, error) {
	s.watched <- watch{ctx, organization}
	return s.changes, nil
}

func (s *source) authenticate(_ context.Context, _, token string) (engine.Principal, error) {
	if token != "good" || !s.valid() {
		return engine.Principal{}, engine.Errorf(engine.KindUnauthenticated, "unknown API key")
	}
	return engine.Principal{OrganizationID: "org"}, nil
}

type rig struct {
	*testing.T
	*source
	server *events.Server
	url    string
}

// newRig serves events until the test ends, and then looks for goroutines.
func newRig(t *testing.T, limits events.Limits) *rig {
	t.Helper()
	// The test server and its client hold connections that are not ours.
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	r := &rig{T: t, source: &source{
		changes: make(chan engine.Event), watched: make(chan watch, 8), valid: func() bool { return true },
	}}
	r.server = events.New(events.Config{
		Events: r, Authenticate: r.authenticate, Region: "local", Limits: limits,
		ToolboxURL: func(*http.Request) string { return "http://gate/toolbox" },
	})
	web := httptest.NewServer(r.server)
	r.url = web.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.server.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		web.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return r
}

const query = "/api/socket.io/?source=sdk-typescript&sdkVersion=0.216.0&EIO=4&transport=websocket"

func (r *rig) dial() *websocket.Conn {
	r.Helper()
	ws, _, err := websocket.Dial(r.Context(), r.url+query, nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { ws.CloseNow() })
	return ws
}

var id = regexp.MustCompile(`"sid":"[0-9A-Z]{26}"`)

// want reads a frame; ids in it are written as SID.
func (r *rig) want(ws *websocket.Conn, want string) {
	r.Helper()
	_, b, err := ws.Read(r.Context())
	if err != nil {
		r.Fatalf("got %v, want %s", err, want)
	}
	if d := cmp.Diff(want, id.ReplaceAllString(string(b), `"sid":"SID"`)); d != "" {
		r.Fatalf("frame (-want +got):\n%s", d)
	}
}

func (r *rig) send(ws *websocket.Conn, frame string) {
	r.Helper()
	if err := ws.Write(r.Context(), websocket.MessageText, []byte(frame)); err != nil {
		r.Fatal(err)
	}
}

// wantClose reads until the server closes.
func (r *rig) wantClose(ws *websocket.Conn, want websocket.StatusCode) {
	r.Helper()
	_, b, err := ws.Read(r.Context())
	if got := websocket.CloseStatus(err); got != want {
		r.Errorf("got frame %q and %v, want close %d", b, err, want)
	}
}

const open = `0{"sid":"SID","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":16384}`

func (r *rig) connect() *websocket.Conn {
	r.Helper()
	ws, _ := r.connectWatched()
	return ws
}

// connectWatched also returns the context of the stream.
func (r *rig) connectWatched() (*websocket.Conn, context.Context) {
	r.Helper()
	ws := r.dial()
	r.want(ws, open)
	r.send(ws, `40{"token":"good"}`)
	r.want(ws, `40{"sid":"SID"}`)
	w := <-r.watched
	if w.organization != "org" {
		r.Errorf("watched %q, want the key's organization", w.organization)
	}
	return ws, w.ctx
}

func TestEventsAsFrames(t *testing.T) {
	r := newRig(t, events.Limits{})
	ws := r.connect()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sandbox := &engine.Sandbox{
		ID: "s1", OrganizationID: "org", Name: "one", Target: "local", State: engine.StateStopping, Desired: engine.DesiredStopped,
		User: "daytona", Class: engine.ClassContainer, Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}, CreatedAt: at,
	}
	const sandboxJSON = `{"id":"s1","organizationId":"org","name":"one","target":"local","sandboxClass":"container","state":"stopping",` +
		`"desiredState":"stopped","user":"daytona","public":false,"networkBlockAll":false,"cpu":1,"gpu":0,"memory":1,"disk":3,"labels":{},` +
		`"autoStopInterval":0,"autoPauseInterval":0,"autoArchiveInterval":0,"autoDeleteInterval":0,"createdAt":"2026-01-02T03:04:05.000000Z",` +
		`"toolboxProxyUrl":"http://gate/toolbox","class":"container","env":{},"kvm":false}`
	snapshot := &engine.Snapshot{ID: "n1", OrganizationID: "org", Name: "snap", State: engine.SnapshotActive, Image: "debian:12", CreatedAt: at, UpdatedAt: at}
	const snapshotJSON = `{"id":"n1","organizationId":"org","general":false,"name":"snap","imageName":"debian:12","state":"active","size":null,` +
		`"entrypoint":null,"cpu":0,"gpu":0,"mem":0,"disk":0,"errorReason":null,"createdAt":"2026-01-02T03:04:05.000000Z",` +
		`"updatedAt":"2026-01-02T03:04:05.000000Z","lastUsedAt":null,"regionIds":["local"],"sourceSandboxId":null,"sandboxClass":"container"}`
	for _, c := range []struct {
		event engine.Event
		frame string
	}{
		{engine.Event{Type: "sandbox.created", Sandbox: sandbox}, `42["sandbox.created",` + sandboxJSON + `]`},
		{
			engine.Event{Type: "sandbox.state.updated", Sandbox: sandbox, Old: "started", New: "stopping"},
			`42["sandbox.state.updated",{"sandbox":` + sandboxJSON + `,"oldState":"started","newState":"stopping"}]`,
		},
		{
			engine.Event{Type: "sandbox.desired-state.updated", Sandbox: sandbox, Old: "started", New: "stopped"},
			`42["sandbox.desired-state.updated",{"sandbox":` + sandboxJSON + `,"oldDesiredState":"started","newDesiredState":"stopped"}]`,
		},
		{
			engine.Event{Type: engine.EventAccessRequested, Sandbox: sandbox, New: "pending", Access: &engine.AccessRequest{
				ID: "acc-1", OrganizationID: "org", SandboxID: "s1", SandboxName: "one", Host: "x.example", Port: 443, Protocol: "tcp", Rule: "default",
				State: engine.AccessPending, Count: 1, FirstAt: at, LastAt: at,
			}},
			`42["sandbox.access.requested",{"sandbox":` + sandboxJSON + `,"access":{"id":"acc-1","organizationId":"org","sandboxId":"s1","sandboxName":"one",` +
				`"host":"x.example","port":443,"protocol":"tcp","rule":"default","state":"pending","count":1,` +
				`"firstAt":"2026-01-02T03:04:05Z","lastAt":"2026-01-02T03:04:05Z"}}]`,
		},
		{engine.Event{Type: "sandbox.removed", Sandbox: sandbox}, ""}, // the contract has no word for it
		{engine.Event{Type: "snapshot.created", Snapshot: snapshot}, `42["snapshot.created",` + snapshotJSON + `]`},
		{
			engine.Event{Type: "snapshot.state.updated", Snapshot: snapshot, Old: "pulling", New: "active"},
			`42["snapshot.state.updated",{"snapshot":` + snapshotJSON + `,"oldState":"pulling","newState":"active"}]`,
		},
		{engine.Event{Type: "snapshot.removed", Snapshot: snapshot}, `42["snapshot.removed",` + snapshotJSON + `]`},
	} {
		r.changes <- c.event
		if c.frame != "" {
			r.want(ws, c.frame)
		}
	}
	r.send(ws, `42["subscribe",{"any":1}]`) // nobody listens, nobody minds
	r.changes <- engine.Event{Type: "sandbox.created", Sandbox: sandbox}
	r.want(ws, `42["sandbox.created",`+sandboxJSON+`]`)
	r.send(ws, "41")
	r.wantClose(ws, websocket.StatusNormalClosure)
}

func TestConnectIsRefused(t *testing.T) {
	r := newRig(t, events.Limits{})
	for _, c := range []struct{ name, packet, frame string }{
		{"bad token", `40{"token":"bad"}`, `44{"message":"unknown API key"}`},
		{"no token", `40`, `44{"message":"unknown API key"}`},
		{"token of another type", `40{"token":5}`, ""},
		{"other namespace", `40/admin,{"token":"good"}`, `44/admin,{"message":"Invalid namespace"}`},
		{"event first", `42["x"]`, ""},
		{"pong first", `3`, ""},
		{"nothing", ``, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.T = t
			ws := r.dial()
			r.want(ws, open)
			r.send(ws, c.packet)
			if c.frame == "" {
				r.wantClose(ws, websocket.StatusPolicyViolation)
				return
			}
			r.want(ws, c.frame)
			r.wantClose(ws, websocket.StatusNormalClosure)
		})
	}
}

func TestPacketsOfAClient(t *testing.T) {
	r := newRig(t, events.Limits{})
	for _, c := range []struct {
		frame string
		want  websocket.StatusCode
	}{
		{"1", websocket.StatusNormalClosure},
		{"41", websocket.StatusNormalClosure},
		{`40{"token":"good"}`, websocket.StatusPolicyViolation},
		{"451-", websocket.StatusPolicyViolation},
		{"x", websocket.StatusPolicyViolation},
		{strings.Repeat("3", 20<<10), websocket.StatusMessageTooBig},
	} {
		ws := r.connect()
		r.send(ws, c.frame)
		r.wantClose(ws, c.want)
	}
}

func TestHandshakeIsRefused(t *testing.T) {
	r := newRig(t, events.Limits{})
	for _, c := range []struct{ query, body string }{
		{"?EIO=4&transport=polling", `{"code":0,"message":"Transport unknown"}`},
		{"", `{"code":0,"message":"Transport unknown"}`},
		{"?EIO=4&transport=websocket&sid=x", `{"code":1,"message":"Session ID unknown"}`},
		{"?EIO=3&transport=websocket", `{"code":5,"message":"Unsupported protocol version"}`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/api/socket.io/"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest || strings.TrimSpace(string(b)) != c.body {
			t.Errorf("%s: got %d %s, want 400 %s", c.query, res.StatusCode, b, c.body)
		}
	}
}

const tick = 20 * time.Millisecond

func TestPings(t *testing.T) {
	r := newRig(t, events.Limits{PingInterval: tick, PingTimeout: time.Minute})
	ws := r.dial()
	_, _, _ = ws.Read(t.Context())
	r.send(ws, `40{"token":"good"}`)
	r.want(ws, `40{"sid":"SID"}`)
	for range 3 {
		r.want(ws, "2")
		r.send(ws, "3")
	}
}

func TestSilentClientIsCut(t *testing.T) {
	r := newRig(t, events.Limits{PingInterval: tick, PingTimeout: tick})
	ws := r.dial()
	_, _, _ = ws.Read(t.Context())
	r.send(ws, `40{"token":"good"}`)
	r.want(ws, `40{"sid":"SID"}`)
	for {
		_, b, err := ws.Read(t.Context())
		if err != nil {
			if got := websocket.CloseStatus(err); got != websocket.StatusPolicyViolation {
				t.Errorf("got %v, want a close for the ping timeout", err)
			}
			return
		}
		if string(b) != "2" {
			t.Fatalf("got %s, want pings", b)
		}
	}
}

func TestClientWithoutATokenIsCut(t *testing.T) {
	r := newRig(t, events.Limits{Connect: tick})
	ws := r.dial()
	r.want(ws, open)
	r.wantClose(ws, websocket.StatusPolicyViolation)
}

func TestRevokedTokenEndsTheStream(t *testing.T) {
	r := newRig(t, events.Limits{PingInterval: tick})
	calls := 0
	r.valid = func() bool { calls++; return calls == 1 }
	ws := r.dial()
	_, _, _ = ws.Read(t.Context())
	r.send(ws, `40{"token":"good"}`)
	r.want(ws, `40{"sid":"SID"}`)
	r.want(ws, "41")
	r.wantClose(ws, websocket.StatusPolicyViolation)
}

func TestWatcherThatLagsIsClosed(t *testing.T) {
	r := newRig(t, events.Limits{})
	ws := r.connect()
	close(r.changes) // as a source does when its buffer is full
	r.wantClose(ws, websocket.StatusTryAgainLater)
}

// A client that takes nothing fills the buffers of its connection; then the
// server lets go of it.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	r := newRig(t, events.Limits{Write: 50 * tick})
	_, stream := r.connectWatched()
	e := engine.Event{Type: "sandbox.created", Sandbox: &engine.Sandbox{ID: "s", Labels: map[string]string{"x": strings.Repeat("x", 1<<20)}}}
	for sent := 0; ; sent++ {
		select {
		case r.changes <- e:
		case <-stream.Done():
			if sent == 0 {
				t.Error("cut before anything was sent")
			}
			return
		}
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	r := newRig(t, events.Limits{Connections: 1})
	_ = r.connect()
	_, res, err := websocket.Dial(t.Context(), r.url+query, nil)
	if err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %v, want 503", err)
	}
}

func TestCloseSaysGoodbye(t *testing.T) {
	r := newRig(t, events.Limits{})
	ws := r.connect()
	silent := r.dial() // reads nothing and says nothing
	_ = silent
	closed := make(chan error, 1)
	go func() { closed <- r.server.Close(context.Background()) }()
	r.wantClose(ws, websocket.StatusGoingAway)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, res, err := websocket.Dial(t.Context(), r.url+query, nil); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close: got %v, want 503", err)
	}
}
