package gateway_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// socket opens a WebSocket to what listens in the sandbox.
func (b *bench) socket(label string, headers ...string) *websocket.Conn {
	b.t.Helper()
	ws, err := b.dial(label, headers...)
	if err != nil {
		b.t.Fatal(err)
	}
	return ws
}

func (b *bench) dial(label string, headers ...string) (*websocket.Conn, error) {
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ws, _, err := websocket.Dial(b.t.Context(), "ws://"+b.s.Addr().String()+"/ws", &websocket.DialOptions{HTTPHeader: h, Host: b.host(3000, label)})
	if err == nil {
		b.t.Cleanup(func() { ws.CloseNow() })
	}
	return ws, err
}

// brief opens a connection by something that lives long enough for that on a
// machine that is this busy, and little longer.
func (b *bench) brief(dial func(life time.Duration) (*websocket.Conn, error)) *websocket.Conn {
	b.t.Helper()
	for life := time.Second; ; life *= 2 {
		ws, err := dial(life)
		if err == nil {
			return ws
		}
		if life > time.Minute {
			b.t.Fatal(err)
		}
	}
}

func TestPreviewConnectionsEndWithWhatLetThemIn(t *testing.T) {
	b := newBench(t)
	api := b.s.URL() + "/api"
	for _, c := range []struct {
		name string
		open func() *websocket.Conn
		end  func()
	}{
		{"a link that expires", func() *websocket.Conn {
			return b.brief(func(life time.Duration) (*websocket.Conn, error) { return b.dial(b.link(private, 3000, life)) })
		}, func() {}},
		{"a link's token in a header", func() *websocket.Conn {
			return b.brief(func(life time.Duration) (*websocket.Conn, error) {
				return b.dial(private, tokenHeader, b.link(private, 3000, life))
			})
		}, func() {}},
		{"a public sandbox that is made private", func() *websocket.Conn { return b.socket(public) }, func() {
			post(t, api+"/sandbox/"+public+"/public/false", "")
		}},
		{"a public sandbox that is made private behind the gateway", func() *websocket.Conn {
			post(t, api+"/sandbox/"+public+"/public/true", "")
			return b.socket(public)
		}, func() {
			no := false
			if _, err := b.e.Update(t.Context(), gatewaytest.Ref(public), engine.UpdateSandbox{Public: &no}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		ws := c.open()
		c.end()
		if _, _, err := ws.Read(t.Context()); err == nil {
			t.Errorf("%s: the connection goes on", c.name)
		}
	}
}

// A guess costs the guesser. Good tokens of the same address still pass.
func TestPreviewTokensThatAreWrongAreCounted(t *testing.T) {
	b := newBench(t)
	last := 0
	for range 40 {
		res, _ := b.visit(3000, private, "/", tokenHeader, "wrong")
		last = res.StatusCode
		if last == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("got %d after 40 wrong tokens, want 429", last)
	}
	for name, ask := range map[string]func() (*http.Response, []byte){
		"a link that never was": func() (*http.Response, []byte) { return b.visit(3000, "abcdefgh12345678", "/") },
		"a key that is no more": func() (*http.Response, []byte) {
			return b.visit(3000, private, "/", "Authorization", "Bearer atl_gone")
		},
		"a wrong signature": func() (*http.Response, []byte) {
			return request(t, "GET", b.s.URL()+"/toolbox/"+private+"/files/download?path=x&expires=0&signature=v1_x", "", "")
		},
	} {
		if res, body := ask(); res.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%s: got %d %s, want 429", name, res.StatusCode, body)
		}
	}
	if res, body := b.visit(3000, private, "/", tokenHeader, tokenOf(private)); res.StatusCode != http.StatusOK {
		t.Errorf("the right token: got %d %s", res.StatusCode, body)
	}
	if res, _ := b.visit(3000, private, "/"); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("no token at all: got %d, want 401", res.StatusCode)
	}
}

// apiKey makes a key through the API.
func (b *bench) apiKey(name, more string) string {
	b.t.Helper()
	var made struct{ Value string }
	if err := json.Unmarshal(post(b.t, b.s.URL()+"/api/api-keys", `{"name":"`+name+`"`+more+`}`), &made); err != nil {
		b.t.Fatal(err)
	}
	return made.Value
}

func TestPreviewConnectionsEndWithTheirKey(t *testing.T) {
	b := newBench(t)
	revoked := b.socket(private, "Authorization", "Bearer "+b.apiKey("a", `,"permissions":["write:sandboxes"]`))
	if res, body := request(t, "DELETE", b.s.URL()+"/api/api-keys/a", key, ""); res.StatusCode >= 300 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	expires := b.brief(func(life time.Duration) (*websocket.Conn, error) {
		soon := time.Now().Add(life).UTC().Format(time.RFC3339Nano)
		return b.dial(private, "Authorization", "Bearer "+b.apiKey("b"+life.String(), `,"permissions":["write:sandboxes"],"expiresAt":"`+soon+`"`))
	})
	for name, ws := range map[string]*websocket.Conn{"revoked": revoked, "expired": expires} {
		if _, _, err := ws.Read(t.Context()); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
	}
}

// What a service does is done in its sandbox: a key that may only look may look.
func TestPreviewAsksForPermissions(t *testing.T) {
	b := newBench(t)
	reader := []string{"Authorization", "Bearer " + b.apiKey("reader", `,"permissions":["read:limits"]`)}
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	for _, c := range []struct {
		name, method, label string
		headers             []string
		status              int
	}{
		{"looking", "GET", private, nil, 200},
		{"a HEAD", "HEAD", private, nil, 200},
		{"driving", "POST", private, nil, 403},
		{"an upgrade", "GET", private, upgrade, 403},
		{"driving with the token", "POST", private, []string{tokenHeader, tokenOf(private)}, 200},
		{"driving what is public", "POST", public, nil, 200},
	} {
		if res, body := b.do(c.method, 3000, c.label, "/", "", append(c.headers, reader...)...); res.StatusCode != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, res.StatusCode, body, c.status)
		}
	}
	for _, path := range []string{"/ports/3000/preview-url", "/ports/3000/signed-preview-url", "/signing-key"} {
		if res, body := request(t, "GET", b.s.URL()+"/api/sandbox/"+private+path, "", "", reader...); res.StatusCode != 403 {
			t.Errorf("%s, which opens more than looking: got %d %s, want 403", path, res.StatusCode, body)
		}
	}
}
