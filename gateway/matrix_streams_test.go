package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest/coretest"
)

// status sends a request and returns what came of it, without the body.
func (w *world) status(method, path, key string, headers ...string) int {
	w.Helper()
	res, _ := request(w.T, method, w.url+path, key, "", headers...)
	return res.StatusCode
}

// Toolboxes have no table: looking takes a key, anything else a permission.
func TestToolboxesInTheMatrix(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	reader := w.Key(t, h.principal, "reader", []string{})
	writer := w.Key(t, h.principal, "writer", []string{engine.WriteSandboxes})
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	for _, name := range []string{h.sandbox, h.name} {
		for _, path := range []string{"/toolbox/" + name + "/files", "/api/toolbox/" + name + "/toolbox/files"} {
			for why, key := range w.bad {
				for _, method := range []string{"GET", "POST"} {
					if got := w.status(method, path, key); got != http.StatusUnauthorized {
						t.Errorf("%s, %s %s: got %d", why, method, path, got)
					}
				}
			}
			for _, c := range []struct {
				who, key, method string
				headers          []string
				want             int
			}{
				{"a reader", reader, "GET", nil, 200},
				{"a reader", reader, "HEAD", nil, 200},
				{"a reader", reader, "POST", nil, 403},
				{"a reader", reader, "DELETE", nil, 403},
				{"a reader", reader, "GET", upgrade, 403},
				{"a writer", writer, "POST", nil, 200},
				{"a member", h.member, "POST", nil, 200},
				{"a stranger", w.stranger, "GET", nil, 404},
				{"a stranger", w.stranger, "POST", nil, 404},
				{"the administrator", coretest.AdminSecret, "POST", nil, 404},
			} {
				if got := w.status(c.method, path, c.key, c.headers...); got != c.want {
					t.Errorf("%s, %s %s %v: got %d, want %d", c.who, c.method, path, c.headers, got, c.want)
				}
			}
		}
	}
}

// call calls a tool over MCP and returns the status and the answer.
func (w *world) call(key, tool, args string) (int, string) {
	w.Helper()
	return w.ask(key, "tools/call", `{"name":"`+tool+`","arguments":`+args+`}`)
}

// ask sends a request over MCP and returns the status and the answer.
func (w *world) ask(key, method, params string) (int, string) {
	w.Helper()
	send := func(body string, headers ...string) (*http.Response, []byte) {
		headers = append(headers, "Accept", "application/json, text/event-stream")
		return request(w.T, "POST", w.url+"/mcp", key, body, headers...)
	}
	res, body := send(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, string(body)
	}
	res, body = send(`{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`,
		"Mcp-Session-Id", res.Header.Get("Mcp-Session-Id"))
	return res.StatusCode, string(body)
}

func TestAgentsInTheMatrix(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	for why, key := range w.bad {
		if got, body := w.call(key, "sandbox_list", `{}`); got != http.StatusUnauthorized {
			t.Errorf("%s: got %d %s", why, got, body)
		}
	}
	reader := w.Key(t, h.principal, "reader", []string{})
	writer := w.Key(t, h.principal, "writer", []string{engine.WriteSandboxes})
	for _, c := range []struct{ who, key, tool, args, want string }{
		{"a reader", reader, "sandbox_list", `{}`, h.name},
		{"a reader", reader, "sandbox_create", `{}`, "lacks the permission write:sandboxes"},
		{"a reader", reader, "sandbox_exec", `{"id":"` + h.name + `","command":"id"}`, "lacks the permission write:sandboxes"},
		{"a reader", reader, "sandbox_control", `{"id":"` + h.name + `","action":"stop"}`, "lacks the permission write:sandboxes"},
		{"a writer", writer, "sandbox_delete", `{"id":"` + h.name + `"}`, "lacks the permission delete:sandboxes"},
		{"a stranger", w.stranger, "sandbox_delete", `{"id":"` + h.name + `"}`, "not found"},
		{"a stranger", w.stranger, "sandbox_delete", `{"id":"` + h.sandbox + `"}`, "not found"},
		{"a stranger", w.stranger, "sandbox_read", `{"id":"` + h.sandbox + `","path":"/etc/passwd"}`, "not found"},
		{"the administrator", coretest.AdminSecret, "sandbox_control", `{"id":"` + h.sandbox + `","action":"stop"}`, "not found"},
	} {
		if _, got := w.call(c.key, c.tool, c.args); !strings.Contains(got, c.want) {
			t.Errorf("%s, %s %s: got %s, want %q", c.who, c.tool, c.args, got, c.want)
		}
	}
	if _, got := w.call(w.stranger, "sandbox_list", `{}`); strings.Contains(got, h.name) || strings.Contains(got, h.sandbox) {
		t.Errorf("a stranger is told of others: %s", got)
	}
	if sb, err := w.Sandboxes().Sandbox(t.Context(), engine.SandboxRef{OrganizationID: h.organization, IDOrName: h.name}); err != nil || sb.State != engine.StateStarted {
		t.Errorf("after all that: got %+v, %v", sb, err)
	}
	if _, got := w.call(w.Key(t, h.principal, "deleter", []string{engine.DeleteSandboxes}), "sandbox_delete", `{"id":"`+h.name+`"}`); strings.Contains(got, `"isError":true`) {
		t.Errorf("one who may: got %s", got)
	}
}

func (w *world) socket(token string) (*websocket.Conn, string) {
	w.Helper()
	ws, _, err := websocket.Dial(w.Context(), w.url+"/api/socket.io/?source=x&EIO=4&transport=websocket", nil)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { ws.CloseNow() })
	if _, _, err := ws.Read(w.Context()); err != nil {
		w.Fatal(err)
	}
	if err := ws.Write(w.Context(), websocket.MessageText, []byte(`40{"token":"`+token+`"}`)); err != nil {
		w.Fatal(err)
	}
	return ws, frame(w.T, ws)
}

// events opens the stream of server-sent events.
func (w *world) events(key string) (*bufio.Reader, func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/api/events", nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { cancel(); res.Body.Close() })
	r := bufio.NewReader(res.Body)
	if line, err := r.ReadString('\n'); err != nil || line != ": connected\n" {
		w.Fatalf("got %q, %v", line, err)
	}
	return r, cancel
}

// next returns the data of the next event.
func (w *world) next(r *bufio.Reader) string {
	w.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			w.Fatal(err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return data
		}
	}
}

// What happens in one organization is told there alone: the first that a
// stranger hears of is their own.
func TestEventsInTheMatrix(t *testing.T) {
	w := newWorld(t)
	for why, key := range w.bad {
		if _, hello := w.socket(key); !strings.HasPrefix(hello, `44{"message":`) {
			t.Errorf("%s: got %s", why, hello)
		}
	}
	h := w.house()
	mine, _ := w.socket(w.Key(t, h.principal, "reader", []string{}))
	theirs, _ := w.socket(w.stranger)
	feed, _ := w.events(w.stranger)
	w.create(h.organization, "secret")
	w.create(w.strange.OrganizationID, "known")
	if got := frame(t, mine); !strings.Contains(got, `"name":"secret"`) {
		t.Errorf("a reader: got %s", got)
	}
	if got := frame(t, theirs); !strings.Contains(got, `"name":"known"`) {
		t.Errorf("a stranger: got %s", got)
	}
	if got := w.next(feed); !strings.Contains(got, `"name":"known"`) {
		t.Errorf("a stranger's feed: got %s", got)
	}
}

func (w *world) create(organization, name string) {
	w.Helper()
	if _, err := w.Sandboxes().Create(w.Context(), engine.CreateSandbox{OrganizationID: organization, Name: name}); err != nil {
		w.Fatal(err)
	}
}

// A key that ends takes its open streams with it, at once.
func TestRevocationEndsStreams(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	box := w.endless()
	for name, end := range map[string]func(key string){
		"revoked": func(string) {
			if err := w.Accounts().Keys.Revoke(t.Context(), h.principal, "", "streams"); err != nil {
				t.Fatal(err)
			}
		},
		"its user removed": func(string) {
			if err := w.Accounts().Members.Remove(t.Context(), h.principal, h.organization, h.memberID); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inner := *w
			inner.T = t
			key := h.member
			if name == "revoked" {
				key = w.Key(t, h.principal, "streams", nil)
			}
			ws, hello := inner.socket(key)
			if !strings.HasPrefix(hello, "40") {
				t.Fatal(hello)
			}
			feed, _ := inner.events(key)
			terminal := inner.stream(key, "/toolbox/"+h.name+box)
			end(key)
			if got := frame(t, ws); got != "41" {
				t.Errorf("socket: got %s, want a disconnect", got)
			}
			for _, r := range []io.Reader{feed, terminal} {
				_, _ = io.Copy(io.Discard, r) // hangs if the stream goes on
			}
			if got := inner.status("GET", "/api/users/me", key); got != http.StatusUnauthorized {
				t.Errorf("a request: got %d", got)
			}
		})
	}
}

// endless makes every toolbox answer without an end, and returns the path.
func (w *world) endless() string {
	box := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write([]byte("begin\n"))
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}))
	w.Cleanup(box.Close)
	w.Core.Dialer = dialer(box.Listener.Addr().String())
	return "/process/session/s/command/c/logs"
}

// open begins a request whose answer may have no end.
func (w *world) open(key, path string) *http.Response {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), "GET", w.url+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { res.Body.Close() })
	return res
}

func (w *world) stream(key, path string) io.Reader {
	w.Helper()
	r := bufio.NewReader(w.open(key, path).Body)
	if line, err := r.ReadString('\n'); err != nil || line != "begin\n" {
		w.Fatalf("got %q, %v", line, err)
	}
	return r
}

// An expiry ends a stream as a revocation does.
func TestExpiryEndsStreams(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	var secret string
	// The key lives long enough to open a stream on a machine that is this busy.
	for life := 300 * time.Millisecond; ; life *= 2 {
		var err error
		_, secret, err = w.Accounts().Keys.Create(t.Context(), h.principal, engine.CreateKey{Name: "brief" + life.String(), ExpiresAt: time.Now().Add(life)})
		if err != nil {
			t.Fatal(err)
		}
		res := w.open(secret, "/api/events")
		if res.StatusCode == http.StatusUnauthorized && life < time.Minute {
			continue
		}
		if res.StatusCode != http.StatusOK {
			t.Fatalf("the stream: %s", res.Status)
		}
		_, _ = io.Copy(io.Discard, res.Body) // hangs if the stream goes on
		break
	}
	if got := w.status("GET", "/api/users/me", secret); got != http.StatusUnauthorized {
		t.Errorf("a request: got %d", got)
	}
}
