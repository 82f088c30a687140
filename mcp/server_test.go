package mcp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
)

func TestMain(m *testing.M) {
	mcptest.Desktop()
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const (
	legacy = "2025-11-25"
	modern = "2026-07-28"
)

// byKey makes the bearer key the organization.
func byKey(r *http.Request) (engine.Principal, bool) {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return engine.Principal{OrganizationID: key, KeyID: key, Permissions: engine.Permissions()}, ok && key != "bad"
}

func open(t *testing.T, list []tools.Tool, opt Options) (*Server, *httptest.Server) {
	t.Helper()
	return openAs(t, list, opt, engine.Scope{})
}

// openAs serves keys that are limited to the scope.
func openAs(t *testing.T, list []tools.Tool, opt Options, scope engine.Scope) (*Server, *httptest.Server) {
	t.Helper()
	opt.Principal = func(r *http.Request) (engine.Principal, bool) {
		p, ok := byKey(r)
		p.Scope = scope
		return p, ok
	}
	s, err := newServer(list, opt)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		web.Close()
	})
	return s, web
}

// agent is a client of one era over HTTP.
type agent struct {
	t       *testing.T
	url     string
	key     string
	era     string
	session string
	header  map[string]string // sent with every request

	mu sync.Mutex
	id int
}

func newAgent(t *testing.T, url, key, era string) *agent {
	t.Helper()
	a := &agent{t: t, url: url, key: key, era: era}
	if era == legacy {
		res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": map[string]any{
			"protocolVersion": legacy, "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "t", "version": "1"},
		}}, nil)
		res.Body.Close()
		if a.session = res.Header.Get(sessionHeader); a.session == "" {
			t.Fatalf("initialize: status %d, no session id", res.StatusCode)
		}
	}
	return a
}

func (a *agent) post(ctx context.Context, msg map[string]any, header http.Header) *http.Response {
	a.t.Helper()
	if a.era == modern {
		params, _ := msg["params"].(map[string]any)
		if params == nil {
			params = map[string]any{}
			msg["params"] = params
		}
		meta, _ := params["_meta"].(map[string]any)
		if meta == nil {
			meta = map[string]any{}
			params["_meta"] = meta
		}
		meta["io.modelcontextprotocol/protocolVersion"] = modern
		meta["io.modelcontextprotocol/clientInfo"] = map[string]any{"name": "t", "version": "1"}
		if meta["io.modelcontextprotocol/clientCapabilities"] == nil {
			meta["io.modelcontextprotocol/clientCapabilities"] = map[string]any{}
		}
	}
	body, err := json.Marshal(msg)
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Authorization", "Bearer "+a.key)
	if a.era == modern {
		req.Header.Set("Mcp-Protocol-Version", modern)
		req.Header.Set("Mcp-Method", msg["method"].(string))
		if p, ok := msg["params"].(map[string]any); ok && p["name"] != nil {
			req.Header.Set("Mcp-Name", fmt.Sprint(p["name"]))
		}
	}
	if a.session != "" {
		req.Header.Set(sessionHeader, a.session)
	}
	for k, v := range a.header {
		req.Header.Set(k, v)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		a.t.Error(err)
		return nil
	}
	return res
}

// answer is one decoded response with the notifications that came before it.
type answer struct {
	Result struct {
		Content []struct{ Type, Text string } `json:"content"`
		IsError bool                          `json:"isError"`
		Tools   []struct {
			Name        string
			Annotations map[string]bool
		} `json:"tools"`
	} `json:"result"`
	Error *struct {
		Code    int
		Message string
	} `json:"error"`
	Params   struct{ Message string } `json:"params"`
	Method   string                   `json:"method"`
	ID       any                      `json:"id"`
	progress []string
}

func (a answer) text() string {
	if len(a.Result.Content) == 0 {
		return ""
	}
	return a.Result.Content[0].Text
}

func (a *agent) request(method string, params map[string]any) answer {
	a.t.Helper()
	a.mu.Lock()
	a.id++
	id := a.id
	a.mu.Unlock()
	res := a.post(a.t.Context(), map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params}, nil)
	if res == nil {
		return answer{}
	}
	defer res.Body.Close()
	return decode(a.t, res)
}

func decode(t *testing.T, res *http.Response) (last answer) {
	t.Helper()
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		if err := json.NewDecoder(res.Body).Decode(&last); err != nil {
			t.Errorf("status %d: %v", res.StatusCode, err)
		}
		return last
	}
	var progress []string
	scan := bufio.NewScanner(res.Body)
	scan.Buffer(nil, 1<<22)
	for scan.Scan() {
		data, ok := strings.CutPrefix(scan.Text(), "data: ")
		if !ok {
			continue
		}
		var m answer
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			t.Errorf("frame %q: %v", data, err)
		}
		if m.Method == "notifications/progress" {
			progress = append(progress, m.Params.Message)
			continue
		}
		last = m
	}
	last.progress = progress
	return last
}

func (a *agent) call(tool string, args map[string]any, token any) answer {
	a.t.Helper()
	params := map[string]any{"name": tool, "arguments": args}
	if token != nil {
		params["_meta"] = map[string]any{"progressToken": token}
	}
	return a.request("tools/call", params)
}

const noArgs = `{"type":"object","properties":{}}`

// testTools are tools whose behaviour the transports are tested with.
func testTools() []tools.Tool {
	return []tools.Tool{
		{
			Name: "count", Set: tools.SetCore, Schema: `{"type":"object","properties":{"n":{"type":"integer"},"tag":{"type":"string"}}}`,
			Handler: func(_ context.Context, a tools.Args) (tools.Result, error) {
				for i := range a.Int("n", 5) {
					a.Progress(fmt.Sprintf("%s%d", a.Str("tag"), i))
				}
				return tools.Text("counted"), nil
			},
		},
		{Name: "panic", Set: tools.SetCore, Schema: noArgs, Handler: func(context.Context, tools.Args) (tools.Result, error) { panic("secret detail") }},
		{
			Name: "sleep", Set: tools.SetCore, Schema: `{"type":"object","properties":{"ms":{"type":"integer"}}}`, Hints: tools.Hints{ReadOnly: true},
			Handler: func(ctx context.Context, a tools.Args) (tools.Result, error) {
				select {
				case <-time.After(time.Duration(a.Int("ms", 0)) * time.Millisecond):
					return tools.Text("slept"), nil
				case <-ctx.Done():
					return tools.Result{}, ctx.Err()
				}
			},
		},
	}
}

func wantProgress(tag string, n int) []string {
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%s%d", tag, i))
	}
	return want
}

func TestProgressIsCompleteAndInOrder(t *testing.T) {
	_, web := open(t, testTools(), Options{})
	for _, era := range []string{legacy, modern} {
		t.Run(era, func(t *testing.T) {
			a := newAgent(t, web.URL+"/mcp", "org", era)
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := range 25 {
						tag := fmt.Sprintf("%d-%d-", w, i)
						got := a.call("count", map[string]any{"n": 5, "tag": tag}, tag)
						if d := cmp.Diff(wantProgress(tag, 5), got.progress); d != "" || got.text() != "counted" {
							t.Errorf("call %s: %q, progress (-want +got):\n%s", tag, got.text(), d)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestNobodyCancelsAnothersCall(t *testing.T) {
	_, web := open(t, testTools(), Options{})
	for _, era := range []string{legacy, modern} {
		t.Run(era, func(t *testing.T) {
			victim := newAgent(t, web.URL+"/mcp", "victim", era)
			stranger := newAgent(t, web.URL+"/mcp", "stranger", era)
			done := make(chan answer)
			go func() { done <- victim.call("sleep", map[string]any{"ms": 400}, nil) }()
			for range 20 {
				for id := range 5 {
					res := stranger.post(t.Context(), map[string]any{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": map[string]any{"requestId": id}}, nil)
					if res.StatusCode != http.StatusAccepted {
						t.Fatalf("cancel: status %d, want 202", res.StatusCode)
					}
					res.Body.Close()
				}
				time.Sleep(5 * time.Millisecond)
			}
			if got := <-done; got.text() != "slept" {
				t.Errorf("the victim's call ended with %q, want slept", got.text())
			}
		})
	}
}

func TestOwnCancellation(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	list := append(testTools(), tools.Tool{
		Name: "hang", Set: tools.SetCore, Schema: noArgs,
		Handler: func(ctx context.Context, _ tools.Args) (tools.Result, error) {
			begun <- struct{}{}
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return tools.Result{}, ctx.Err()
		},
	})
	s, web := open(t, list, Options{})

	t.Run("legacy by notification", func(t *testing.T) {
		a := newAgent(t, web.URL+"/mcp", "org", legacy)
		go a.call("hang", nil, nil)
		waitFor(t, func() bool {
			res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": map[string]any{"requestId": 1}}, nil)
			res.Body.Close()
			return len(ended) == 1
		})
		<-begun
		<-ended
	})
	t.Run("legacy survives a lost connection", func(t *testing.T) {
		a := newAgent(t, web.URL+"/mcp", "org", legacy)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		a.post(ctx, map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": "hang"}}, nil)
		select {
		case err := <-ended:
			t.Fatalf("the call ended with its connection: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	})
	t.Run("modern by closing the stream", func(t *testing.T) {
		a := newAgent(t, web.URL+"/mcp", "org", modern)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		a.post(ctx, map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": "hang"}}, nil)
		<-ended
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != tools.ErrShutdown {
		t.Errorf("the forgotten call ended with %v, want %v", err, tools.ErrShutdown)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited a minute in vain")
		}
	}
}

func TestHTTPProbes(t *testing.T) {
	_, web := open(t, testTools(), Options{MaxBody: 1 << 20, AllowedOrigins: []string{"https://app.example"}})
	mine := newAgent(t, web.URL+"/mcp", "me", legacy)
	other := newAgent(t, web.URL+"/mcp", "other", legacy)
	ended := newAgent(t, web.URL+"/mcp", "me", legacy)
	del, _ := http.NewRequestWithContext(t.Context(), http.MethodDelete, web.URL+"/mcp", nil)
	del.Header.Set("Authorization", "Bearer me")
	del.Header.Set(sessionHeader, ended.session)
	if res, err := http.DefaultClient.Do(del); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("delete session: %v %v", res.StatusCode, err)
	}
	list := `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	init := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`
	for _, c := range []struct {
		name, method, path, body string
		header                   map[string]string
		want                     int
	}{
		{"initialize", "POST", "/mcp", init, nil, 200},
		{"foreign origin", "POST", "/mcp", init, map[string]string{"Origin": "http://evil.example"}, 403},
		{"origin that looks local", "POST", "/mcp", init, map[string]string{"Origin": "http://localhost.evil.example"}, 403},
		{"broken origin", "POST", "/mcp", init, map[string]string{"Origin": "null"}, 403},
		{"local origin", "POST", "/mcp", init, map[string]string{"Origin": "http://localhost:6274"}, 200},
		{"allowed origin", "POST", "/mcp", init, map[string]string{"Origin": "https://app.example"}, 200},
		{"foreign host", "POST", "/mcp", init, map[string]string{"Host": "evil.example"}, 403},
		{"no key", "POST", "/mcp", init, map[string]string{"Authorization": ""}, 401},
		{"unknown key", "POST", "/mcp", init, map[string]string{"Authorization": "Bearer bad"}, 401},
		{"no session", "POST", "/mcp", list, nil, 400},
		{"invented session", "POST", "/mcp", list, map[string]string{sessionHeader: "mcp-session-00000000-0000-4000-8000-000000000000"}, 404},
		{"another's session", "POST", "/mcp", list, map[string]string{sessionHeader: other.session}, 404},
		{"another's stream", "GET", "/mcp", "", map[string]string{sessionHeader: other.session}, 404},
		{"another's end", "DELETE", "/mcp", "", map[string]string{sessionHeader: other.session}, 404},
		{"ended session", "POST", "/mcp", list, map[string]string{sessionHeader: ended.session}, 404},
		{"own session", "POST", "/mcp", list, map[string]string{sessionHeader: mine.session}, 200},
		{"unknown toolset", "POST", "/mcp/x/nonsense", list, map[string]string{sessionHeader: mine.session}, 404},
		{"known toolset", "POST", "/mcp/x/core", list, map[string]string{sessionHeader: mine.session}, 200},
		{"large body", "POST", "/mcp", `{"a":"` + strings.Repeat("x", 2<<20) + `"}`, nil, 413},
		{"not JSON", "POST", "/mcp", "nonsense", map[string]string{sessionHeader: mine.session}, 400},
		{"method", "PUT", "/mcp", init, nil, 405},
		{"modern without session", "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`, map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/list"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, _ := http.NewRequestWithContext(t.Context(), c.method, web.URL+c.path, strings.NewReader(c.body))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Accept", "application/json, text/event-stream")
			req.Header.Set("Authorization", "Bearer me")
			for k, v := range c.header {
				req.Header.Set(k, v)
			}
			if h := c.header["Host"]; h != "" {
				req.Host = h
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != c.want {
				body, _ := io.ReadAll(res.Body)
				t.Errorf("status %d, want %d: %s", res.StatusCode, c.want, body)
			}
		})
	}
	if got := other.request("tools/list", nil); len(got.Result.Tools) == 0 {
		t.Error("the other's session was harmed")
	}
}

func TestSessionsSurviveARestartWithTheirKey(t *testing.T) {
	key := []byte("a key that lasts")
	_, one := open(t, testTools(), Options{SessionKey: key})
	_, two := open(t, testTools(), Options{SessionKey: key})
	a := newAgent(t, one.URL+"/mcp", "org", legacy)
	a.url = two.URL + "/mcp"
	if got := a.call("count", nil, "x"); got.text() != "counted" || len(got.progress) != 5 {
		t.Errorf("got %q with %d frames, want counted with 5", got.text(), len(got.progress))
	}
}

func TestKeepAlive(t *testing.T) {
	_, web := open(t, testTools(), Options{KeepAlive: 20 * time.Millisecond})
	for _, era := range []string{legacy, modern} {
		a := newAgent(t, web.URL+"/mcp", "org", era)
		res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 150}}}, nil)
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(body), ":\n\n"); n < 2 || !strings.Contains(string(body), "slept") {
			t.Errorf("%s: %d comments in %q, want some and the answer", era, n, body)
		}
		if got := res.Header.Get("X-Accel-Buffering"); got != "no" {
			t.Errorf("%s: X-Accel-Buffering is %q, want no", era, got)
		}
	}
}

func TestPanicBecomesToolError(t *testing.T) {
	_, web := open(t, testTools(), Options{})
	got := newAgent(t, web.URL+"/mcp", "org", modern).call("panic", nil, nil)
	if !got.Result.IsError || strings.Contains(got.text(), "secret") {
		t.Errorf("got %+v, want a tool error without the panic's text", got)
	}
}

// Both revisions list unknown tools among the protocol errors, apart from what
// goes wrong inside a tool.
func TestUnknownToolsAreProtocolErrors(t *testing.T) {
	_, web := open(t, testTools(), Options{})
	for _, era := range []string{legacy, modern} {
		got := newAgent(t, web.URL+"/mcp", "org", era).call("sandbox_run", nil, nil)
		if got.Error == nil || got.Error.Code != -32602 || !strings.Contains(got.Error.Message, "sandbox_run") || got.ID != 1.0 {
			t.Errorf("%s: got %+v, want error -32602 that names the tool, with the request's id", era, got)
		}
	}
}

func TestReadOnlyIsAnUpperBound(t *testing.T) {
	_, web := open(t, testTools(), Options{ReadOnly: true})
	a := newAgent(t, web.URL+"/mcp", "org", modern)
	if got := a.request("tools/list", nil).Result.Tools; len(got) != 1 || got[0].Name != "sleep" {
		t.Errorf("listed %v, want only sleep", got)
	}
	if got := a.call("count", nil, nil); got.Error == nil {
		t.Errorf("a changing tool ran: %+v", got)
	}
	res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, http.Header{"X-Mcp-Readonly": {"false"}})
	defer res.Body.Close()
	if got := decode(t, res).Result.Tools; len(got) != 1 {
		t.Errorf("a header widened the list: %v", got)
	}
}

func TestAnnotationsAndOrder(t *testing.T) {
	b := mcptest.New(t)
	_, web := open(t, tools.New(b.Services(), tools.Options{}).Tools(), Options{})
	list := newAgent(t, web.URL+"/mcp", "one", legacy).request("tools/list", nil).Result.Tools
	if len(list) != 13 {
		t.Errorf("%d tools, want 13", len(list))
	}
	var names []string
	for _, tool := range list {
		names = append(names, tool.Name)
		if len(tool.Annotations) != 4 {
			t.Errorf("%s sets %v, want all four annotations", tool.Name, tool.Annotations)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not sorted: %v", names)
	}
}

func TestInstructionsAreShort(t *testing.T) {
	if n := len(strings.Fields(Instructions)); n > 80 {
		t.Errorf("%d words, at most 80", n)
	}
}
