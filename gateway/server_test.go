package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/wire"
)

const key = gatewaytest.AdminKey

func TestErrorBodies(t *testing.T) {
	e := gatewaytest.New(t)
	s := gatewaytest.Serve(t, e)
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		message                  string
	}{
		{"unknown sandbox", "GET", "/api/sandbox/nope", "", 404, "Sandbox with ID or name nope not found"},
		{"duplicate name", "POST", "/api/sandbox", `{"name":"a"}`, 409, "Sandbox with name a already exists: choose another name"},
		{"wrong type", "POST", "/api/sandbox", `{"name":5}`, 400, "name: expected string, got 5"},
		{"broken JSON", "POST", "/api/sandbox", `{"name"`, 400, "unexpected end of JSON input"},
		{"two faults", "GET", "/api/sandbox?limit=0&order=up", "", 400, "order: expected value to be one of"},
		{"bad state", "GET", "/api/sandbox?states=flying", "", 400, `"flying" is no state`},
		{"bad labels", "GET", "/api/sandbox?labels=x", "", 400, "labels is not a JSON object"},
		{"snapshot and limits", "POST", "/api/sandbox", `{"snapshot":"x","cpu":2}`, 400, "Cannot specify Sandbox resources when using a snapshot"},
		{"snapshot and build", "POST", "/api/sandbox", `{"snapshot":"x","buildInfo":{"dockerfileContent":"FROM a:1"}}`, 400, "exclude each other"},
		{"build", "POST", "/api/sandbox", `{"buildInfo":{"dockerfileContent":"FROM a:1\nRUN x"}}`, 501, "not built yet"},
		{"volumes", "POST", "/api/sandbox", `{"volumes":[{"volumeId":"v","mountPath":"/v"}]}`, 501, "volumes is not built yet"},
		{"no CIDR", "POST", "/api/sandbox", `{"networkAllowList":"10.0.0.0"}`, 400, `"10.0.0.0" is no CIDR`},
		{"auto-pause", "POST", "/api/sandbox/a/autopause/5", "", 422, "cannot be paused"},
		{"memory snapshot", "POST", "/api/sandbox/a/snapshot", `{"name":"x","includeMemory":true}`, 422, "no memory snapshots"},
		{"interval", "POST", "/api/sandbox/a/autostop/-5", "", 400, "interval must be"},
		{"interval that is none", "POST", "/api/sandbox/a/autostop/soon", "", 400, "interval: invalid float, got soon"},
		{"empty resize", "POST", "/api/sandbox/a/resize", `{}`, 400, "at least one of"},
		{"recover", "POST", "/api/sandbox/a/recover", "", 400, "only a recoverable error"},
		{"untagged image", "POST", "/api/snapshots", `{"name":"x","imageName":"debian:latest"}`, 400, "no tag or digest"},
		{"image and build", "POST", "/api/snapshots", `{"name":"x"}`, 400, "exactly one of imageName and buildInfo"},
		{"no volume", "GET", "/api/volumes/by-name/x", "", 404, "Volume x not found"},
		{"no route", "GET", "/api/nope", "", 404, "Cannot GET /api/nope"},
		{"no method", "PATCH", "/api/sandbox", "", 405, "Cannot PATCH /api/sandbox"},
		{"no page", "GET", "/nope", "", 404, "Cannot GET /nope"},
		{"no MCP", "POST", "/mcp", "{}", 501, "MCP over HTTP"},
		{"large body", "POST", "/api/sandbox", `{"name":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "request body is too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := request(t, c.method, s.URL()+c.path, key, c.body)
			var p wire.Problem
			if err := json.Unmarshal(body, &p); err != nil {
				t.Fatalf("%v in %s", err, body)
			}
			if res.StatusCode != c.status || p.StatusCode != c.status || p.Reason != http.StatusText(c.status) {
				t.Errorf("got status %d, body %+v, want %d", res.StatusCode, p, c.status)
			}
			if !strings.Contains(p.Message, c.message) {
				t.Errorf("got message %q, want %q in it", p.Message, c.message)
			}
			path, _, _ := strings.Cut(c.path, "?")
			if p.Path != path || p.Timestamp == "" || res.Header.Get("Content-Type") != "application/json" {
				t.Errorf("got %+v as %s", p, res.Header.Get("Content-Type"))
			}
		})
	}
}

// The requests of published clients, as they were recorded.
func TestRecordedRequests(t *testing.T) {
	e := gatewaytest.New(t)
	s := gatewaytest.Serve(t, e)
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for _, c := range []struct {
		method, path, body string
		headers            []string
		status             int
	}{
		{"POST", "/sandbox", `{"env":{},"labels":{"code-toolbox-language":"python"},"name":"a"}`, nil, 200},
		{"POST", "/sandbox", `{"buildInfo":{"dockerfileContent":"FROM debian:12\n"},"env":{},"labels":{},"cpu":2,"memory":4,"disk":8}`, nil, 200},
		{"POST", "/sandbox", `{"name":"cli","autoArchiveInterval":10080,"autoDeleteInterval":-1,"networkBlockAll":false,"spot":false,"gpuType":[],"kvm":true}`, nil, 200},
		{"GET", "/sandbox?limit=5&labels=%7B%22env%22%3A%22dev%22%7D&states=started&states=stopped&sort=createdAt&order=asc", "", nil, 200},
		{"GET", "/sandbox/paginated?page=1&limit=10&sort=name&order=asc", "", nil, 200},
		{"POST", "/sandbox/a/stop?force=false", "", form, 200},
		{"POST", "/sandbox/a/start", "", form, 200},
		{"PUT", "/sandbox/a/labels", `{"labels":{"a":"b"}}`, nil, 200},
		{"POST", "/sandbox/a/autostop/10", "", form, 200},
		{"POST", "/sandbox/a/autoarchive/20", "", form, 200},
		{"POST", "/sandbox/a/autodelete/-1", "", form, 200},
		{"POST", "/sandbox/a/autopause/0", "", form, 200},
		{"POST", "/sandbox/a/ttl/60", "", form, 200},
		{"POST", "/sandbox/a/network-settings", `{"networkBlockAll":true}`, nil, 200},
		{"POST", "/sandbox/a/resize", `{"cpu":2,"memory":2}`, nil, 200},
		{"POST", "/sandbox/a/last-activity", `{}`, nil, 201},
		{"POST", "/sandbox/a/last-activity", "", form, 201},
		{"POST", "/sandbox/a/fork", `{}`, nil, 200},
		{"POST", "/sandbox/a/fork", "", form, 200},
		{"POST", "/sandbox/a/snapshot", `{"name":"snap"}`, nil, 200},
		{"POST", "/snapshots", `{"name":"img","imageName":"alpine:3.20","entrypoint":["sleep","infinity"],"cpu":1,"memory":1,"disk":3}`, nil, 200},
		{"GET", "/snapshots?page=1&limit=10", "", nil, 200},
		{"GET", "/snapshots?sort=name&order=asc&sourceSandboxId=x", "", nil, 200},
		{"GET", "/snapshots/img/build-logs?follow=true", "", nil, 200},
		{"DELETE", "/snapshots/img", "", nil, 200},
		{"GET", "/volumes", "", nil, 200},
		{"GET", "/sandbox/a?verbose=true", "", nil, 200},
		{"GET", "/sandbox/a/forks", "", nil, 200},
		{"GET", "/sandbox/a/ancestors", "", nil, 200},
		{"GET", "/sandbox/a/build-logs?follow=true", "", nil, 200},
		{"GET", "/sandbox/a/organization", "", nil, 200},
		{"GET", "/organizations/" + engine.DefaultOrganization, "", nil, 200},
		{"GET", "/regions/local", "", nil, 200},
		{"GET", "/health", "", nil, 200},
		{"GET", "/openapi.json", "", nil, 200},
		{"DELETE", "/sandbox/a", "", nil, 200},
	} {
		res, body := request(t, c.method, s.URL()+"/api"+c.path, key, c.body, c.headers...)
		if res.StatusCode != c.status {
			t.Errorf("%s %s: got %d %s, want %d", c.method, c.path, res.StatusCode, body, c.status)
		}
	}
	created := e.Created()
	if got, want := created[1].Image, "debian:12"; got != want {
		t.Errorf("FROM line: got image %q, want %q", got, want)
	}
	want := &engine.Lifecycle{AutoStop: 15 * time.Minute, AutoArchive: 7 * 24 * time.Hour, AutoDelete: -time.Minute}
	if diff := cmp.Diff(want, created[2].Lifecycle); diff != "" {
		t.Errorf("timers that were left out (-want +got):\n%s", diff)
	}
	if e.Touched() != 2 {
		t.Errorf("last-activity: got %d touches, want 2", e.Touched())
	}
}

func TestKeys(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	for _, c := range []struct {
		name, header string
		status       int
	}{
		{"none", "", 401}, {"basic", "Basic eDp5", 401}, {"empty", "Bearer ", 401}, {"unknown", "Bearer x", 401}, {"good", "Bearer " + key, 200},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL()+"/api/sandbox", nil)
		if c.header != "" {
			req.Header.Set("Authorization", c.header)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: got %d, want %d", c.name, res.StatusCode, c.status)
		}
	}
	for range 40 {
		request(t, "GET", s.URL()+"/api/sandbox", "wrong", "")
	}
	res, _ := request(t, "GET", s.URL()+"/api/sandbox", "wrong", "")
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" || res.Header.Get("X-RateLimit-Remaining-failed-auth") != "0" {
		t.Errorf("after many failures: got %d %v", res.StatusCode, res.Header)
	}
	if res, _ := request(t, "GET", s.URL()+"/api/sandbox", key, ""); res.StatusCode != http.StatusOK {
		t.Errorf("a good key after many failures: got %d", res.StatusCode)
	}
}

func TestBrowsers(t *testing.T) {
	mcp := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	s := gatewaytest.Serve(t, gatewaytest.New(t), func(c *gateway.Config) {
		c.PublicURL, c.MCP = "https://atoll.example/", mcp
	})
	addr := "http://" + s.Addr().String()
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
	}{
		{"no browser, any name", "/api/sandbox", []string{"Host", "evil.example"}, 200},
		{"rebound name", "/api/sandbox", []string{"Host", "evil.example", "Origin", "http://evil.example"}, 403},
		{"rebound name, same origin", "/healthz", []string{"Host", "evil.example:80", "Sec-Fetch-Site", "same-origin"}, 403},
		{"public name", "/api/sandbox", []string{"Host", "atoll.example", "Origin", "https://atoll.example"}, 200},
		{"foreign page with a key", "/api/sandbox", []string{"Origin", "https://app.example"}, 200},
		{"foreign page to MCP", "/mcp", []string{"Origin", "https://app.example"}, 403},
		{"page of a neighbour to MCP", "/mcp", []string{"Origin", "http://192.0.2.9"}, 403},
		{"null origin to MCP", "/mcp", []string{"Origin", "null"}, 403},
		{"local page to MCP", "/mcp", []string{"Origin", "http://localhost:6274"}, 200},
		{"no browser to MCP", "/mcp/x/files", nil, 200},
	} {
		res, body := request(t, "GET", addr+c.path, key, "", c.headers...)
		if res.StatusCode != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, res.StatusCode, body, c.status)
		}
	}
	res, _ := request(t, "OPTIONS", addr+"/toolbox/a/process/execute", "", "", "Origin", "https://app.example",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-daytona-source")
	h := res.Header
	if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" ||
		h.Get("Access-Control-Allow-Headers") != "authorization,x-daytona-source" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: got %d %v", res.StatusCode, h)
	}
}

func TestToolboxPaths(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	for _, c := range []struct {
		path   string
		status int
	}{
		{"/toolbox/a/echo", 200},
		{"/api/toolbox/a/toolbox/echo", 200},
		{"/toolbox/nope/echo", 404},
		{"/toolbox/a/internal/status", 403},
		{"/toolbox/a/internal", 403},
		{"/toolbox/a/internal/", 403},
		{"/toolbox/a/INTERNAL/status", 403},
		{"/toolbox/a/%69nternal/status", 403},
		{"/toolbox/a/internal%2Fstatus", 403},
		{"/toolbox/a/internal/identity", 403},
		{"/toolbox/a/internal/exec/x", 403},
		{"/toolbox/a/internal%2Fexec", 403},
		{"/api/toolbox/a/toolbox/internal/status", 403},
		{"/toolbox/a//internal/status", 400},
		{"/toolbox/a/./internal/status", 400},
		{"/toolbox/a/%2e/internal/status", 400},
		{"/toolbox/a/echo/../internal/status", 400},
		{"/toolbox/a/echo/%2e%2e/internal/status", 400},
		{"/toolbox/a/echo/..%2finternal/status", 400},
		{"/toolbox/a/%2Finternal/status", 400},
		{"/toolbox/a/x%5c..%5cinternal", 400},
		{"/toolbox/a/internal;x/status", 400},
		{"/toolbox/a%2Finternal/status", 400},
		{"/toolbox//internal/status", 400},
		{"/toolbox/", 400},
	} {
		if got := raw(t, s, c.path); got != c.status {
			t.Errorf("%s: got %d, want %d", c.path, got, c.status)
		}
	}
}

// raw sends a path byte by byte, as no client library would.
func raw(t *testing.T, s *gateway.Server, path string) int {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+key+"\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

func TestToolboxKeepsSecretsAndDistrusts(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	res, body := request(t, "POST", s.URL()+"/toolbox/a/echo?q=1&DAYTONA_SANDBOX_AUTH_KEY=k", key, "text",
		"Cookie", "c=1", "X-Daytona-Preview-Token", "t", "X-Daytona-SDK-Version", "0.200.0", "Origin", "https://app.example")
	var got gatewaytest.Echo
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if got.Path != "/echo" || got.Query != "q=1" || got.Body != "text" || got.Header.Get("X-Daytona-Sdk-Version") != "0.200.0" {
		t.Errorf("got %+v", got)
	}
	for _, h := range []string{"Authorization", "Cookie", "X-Daytona-Preview-Token"} {
		if got.Header.Get(h) != "" {
			t.Errorf("the sandbox was told %s", h)
		}
	}
	if res.Header.Get("Set-Cookie") != "" || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the sandbox's headers passed: %v", res.Header)
	}
	if res, _ := request(t, "GET", s.URL()+"/toolbox/a/redirect", key, ""); res.StatusCode != http.StatusBadGateway || res.Header.Get("Location") != "" {
		t.Errorf("redirect: got %d %v", res.StatusCode, res.Header)
	}
	post(t, s.URL()+"/api/sandbox/a/stop", "")
	res, body = request(t, "GET", s.URL()+"/toolbox/a/echo", key, "")
	if res.StatusCode != http.StatusConflict || !strings.Contains(string(body), wire.SourceProxy) {
		t.Errorf("stopped: got %d %s", res.StatusCode, body)
	}
}

// The answer's first part must come while the request is still being sent.
func TestToolboxStreamsBothWays(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	r, w := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL()+"/toolbox/a/reverse", r)
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 16)
	for _, part := range []string{"one", "two"} {
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
		n, err := res.Body.Read(buf)
		if got, want := string(buf[:n]), strings.ToUpper(part); got != want || err != nil {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	w.Close()
}

func TestCloseEndsStreams(t *testing.T) {
	e := gatewaytest.New(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := gatewaytest.Serve(t, e)
	c := gatewaytest.Client(t, s)
	if _, err := c.Sandboxes().Create(t.Context(), engine.CreateSandbox{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	events, err := c.Events().Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	rt, err := c.Toolboxes().Toolbox(t.Context(), gatewaytest.Ref("a"))
	if err != nil {
		t.Fatal(err)
	}
	ws, _, err := websocket.Dial(t.Context(), "ws://x/internal/exec", &websocket.DialOptions{HTTPClient: &http.Client{Transport: rt}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"command":"echo x; exec sleep 60"}`)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := ws.Read(t.Context()); err != nil || string(b) != "\x01x\n" {
		t.Fatalf("got %q, %v", b, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	for range events {
	}
	if _, _, err := ws.Read(t.Context()); err == nil {
		t.Error("the stream goes on after Close")
	}
	if err := s.Close(ctx); err != nil {
		t.Errorf("second Close: %v", err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

type panics struct{ *gatewaytest.Engine }

func (panics) Sandbox(context.Context, engine.SandboxRef) (engine.Sandbox, error) { panic("oh") }

func TestPanicIsAnError(t *testing.T) {
	e := gatewaytest.New(t)
	s := gatewaytest.Serve(t, e, func(c *gateway.Config) { c.Sandboxes = panics{e} })
	res, body := request(t, "GET", s.URL()+"/api/sandbox/a", key, "")
	if res.StatusCode != 500 || !bytes.Contains(body, []byte(`"statusCode":500`)) || bytes.Contains(body, []byte("oh")) {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

func TestProbesAndMetrics(t *testing.T) {
	e := gatewaytest.New(t)
	var notReady error = engine.Errorf(engine.KindUnavailable, "containerd is starting")
	down := make(chan struct{})
	s := gatewaytest.Serve(t, e, func(c *gateway.Config) {
		c.Ready = func() error { return notReady }
		c.Shutdown = func() { close(down) }
	})
	if res, _ := request(t, "GET", s.URL()+"/healthz", "", ""); res.StatusCode != 200 {
		t.Errorf("healthz: got %d", res.StatusCode)
	}
	res, body := request(t, "GET", s.URL()+"/readyz", "", "")
	if res.StatusCode != 503 || !bytes.Contains(body, []byte("containerd is starting")) {
		t.Errorf("readyz: got %d %s", res.StatusCode, body)
	}
	notReady = nil
	if res, _ := request(t, "GET", s.URL()+"/readyz", "", ""); res.StatusCode != 200 {
		t.Errorf("readyz: got %d", res.StatusCode)
	}
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	_, body = request(t, "GET", s.URL()+"/metrics", "", "")
	for _, want := range []string{
		`atoll_sandboxes{state="started"} 1`,
		`atoll_sandbox_create_duration_seconds_count{start="warm"} 1`,
		`atoll_sandbox_create_stage_duration_seconds_count{stage="claim",start="warm"} 1`,
		`atoll_http_request_duration_seconds_count{code="200",method="POST",route="/api/sandbox"} 1`,
	} {
		if !bytes.Contains(body, []byte(want)) {
			t.Errorf("metrics lack %s in\n%s", want, body)
		}
	}
	if res, _ := request(t, "GET", s.URL()+"/metrics", "", "", "X-Forwarded-For", "198.51.100.1"); res.StatusCode != 401 {
		t.Errorf("metrics through a proxy: got %d", res.StatusCode)
	}
	for k, want := range map[string]int{gatewaytest.ReaderKey: 403, key: 200} {
		if res, _ := request(t, "GET", s.URL()+"/metrics", k, "", "X-Forwarded-For", "198.51.100.1"); res.StatusCode != want {
			t.Errorf("metrics with a key: got %d, want %d", res.StatusCode, want)
		}
	}
	if res, _ := request(t, "POST", s.URL()+"/api/admin/shutdown", gatewaytest.ReaderKey, ""); res.StatusCode != 403 {
		t.Errorf("shutdown with a poor key: got %d", res.StatusCode)
	}
	if res, _ := request(t, "POST", s.URL()+"/api/admin/shutdown", key, ""); res.StatusCode != 202 {
		t.Errorf("shutdown: got %d", res.StatusCode)
	}
	<-down
}

func TestAddressInUse(t *testing.T) {
	e := gatewaytest.New(t)
	s := gatewaytest.Serve(t, e)
	_, err := gateway.Open(t.Context(), gateway.Config{Listen: s.Addr().String(), Sandboxes: e})
	var known *engine.Error
	if !errors.As(err, &known) || known.Kind != engine.KindUnavailable || known.Hint == "" {
		t.Errorf("got %v", err)
	}
}

func BenchmarkToolbox(b *testing.B) {
	e := gatewaytest.New(b)
	s := gatewaytest.Serve(b, e)
	c := gatewaytest.Client(b, s)
	if _, err := c.Sandboxes().Create(b.Context(), engine.CreateSandbox{Name: "a"}); err != nil {
		b.Fatal(err)
	}
	direct, _ := e.Toolbox(b.Context(), gatewaytest.Ref("a"))
	through, _ := c.Toolboxes().Toolbox(b.Context(), gatewaytest.Ref("a"))
	for name, rt := range map[string]http.RoundTripper{"direct": direct, "gateway": through} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				req, _ := http.NewRequestWithContext(b.Context(), "GET", "http://x/echo", nil)
				res, err := rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}
