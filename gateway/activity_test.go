package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// records asks for a sandbox's activity.
func records(t *testing.T, w *world, key, sandbox, query string) wire.ActivityPage {
	t.Helper()
	res, body := request(t, "GET", w.url+"/api/sandbox/"+sandbox+"/activity"+query, key, "")
	var page wire.ActivityPage
	if err := json.Unmarshal(body, &page); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %d %s", res.StatusCode, body)
	}
	return page
}

func TestActivityOfCalls(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	for _, c := range []struct{ method, path, body, operation, detail string }{
		{"POST", "/process/execute", `{"command":"make all"}`, "exec", "make all"},
		{"POST", "/process/code-run", `{"code":"print(1)"}`, "code.run", "print(1)"},
		{"POST", "/process/session/s1/exec", `{"command":"ls"}`, "exec", "ls"},
		{"GET", "/internal/exec?command=ls+-l", "", "exec.stream", "ls -l"},
		{"DELETE", "/files?path=/tmp/x", "", "file.delete", "/tmp/x"},
		{"POST", "/files/upload?path=/tmp/y", "bytes", "file.write", "/tmp/y"},
		{"GET", "/files/download?path=/etc/passwd", "", "file.read", "/etc/passwd"},
		{"POST", "/files/move?source=/a&destination=/b", "", "file.move", "/a → /b"},
		{"POST", "/git/clone", `{"url":"https://me:hunter2@git.example.com/r","path":"/r"}`, "git.clone", "https://git.example.com/r"},
		{"GET", "/files?path=/", "", "", ""},
		{"GET", "/git/status?path=/", "", "", ""},
	} {
		before := records(t, w, h.owner, h.sandbox, "?newest=true&limit=1").Next
		request(t, c.method, w.url+"/toolbox/"+h.sandbox+c.path, h.owner, c.body)
		items := records(t, w, h.owner, h.sandbox, "?kind=call&after="+jsonText(before)).Items
		if c.operation == "" {
			if len(items) != 0 {
				t.Errorf("%s %s: looking was recorded: %+v", c.method, c.path, items)
			}
			continue
		}
		if len(items) != 1 || items[0].Operation != c.operation || items[0].Detail != c.detail || items[0].Door != "api" || items[0].Call == "" || items[0].Actor != h.ownerID {
			t.Errorf("%s %s: got %+v", c.method, c.path, items)
		}
	}
}

func jsonText(v any) string { b, _ := json.Marshal(v); return string(b) }

func TestActivityBadInput(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	for _, query := range []string{
		"?kind=nonsense", "?since=yesterday", "?after=-1", "?limit=0", "?limit=1001", "?limit=x", "?newest=maybe", "?follow=maybe", "?format=xml",
		"?since=2026-01-02T03:04:05Z&until=2026-01-01T03:04:05Z", "/verify?sequence=1", "/verify?hash=ab",
	} {
		if res, body := request(t, "GET", w.url+"/api/sandbox/"+h.sandbox+"/activity"+query, h.owner, ""); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d %s", query, res.StatusCode, body)
		}
	}
}

func TestActivityOutlivesTheSandbox(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	w.demolish(h)
	page := records(t, w, h.owner, h.sandbox, "?kind=lifecycle")
	if n := len(page.Items); n < 2 || page.Items[n-1].Operation != "deleted" || page.Items[0].Operation != "created" {
		t.Errorf("got %+v", page.Items)
	}
	for _, key := range []string{w.stranger} {
		if res, body := request(t, "GET", w.url+"/api/sandbox/"+h.sandbox+"/activity", key, ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("a stranger: got %d %s", res.StatusCode, body)
		}
	}
}

func TestActivityForms(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	request(t, "POST", w.url+"/toolbox/"+h.sandbox+"/process/execute", h.owner, `{"command":"<script>alert(1)</script>"}`)
	res, body := request(t, "GET", w.url+"/api/sandbox/"+h.sandbox+"/activity?format=ocsf&kind=call", h.owner, "")
	var events []struct {
		Class int `json:"class_uid"`
		Type  int `json:"type_uid"`
		API   struct{ Operation string }
	}
	if err := json.Unmarshal(body, &events); err != nil || res.StatusCode != http.StatusOK || len(events) != 1 || events[0].Class != 6003 || events[0].Type != 600399 || events[0].API.Operation != "exec" {
		t.Errorf("OCSF: %d %s", res.StatusCode, body)
	}
	res, body = request(t, "GET", w.url+"/api/sandbox/"+h.sandbox+"/activity/report", h.owner, "")
	if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || !strings.Contains(csp, "sandbox") {
		t.Errorf("policy of the report: %q", csp)
	}
	if text := string(body); strings.Contains(text, "<script") || !strings.Contains(text, "&lt;script&gt;") || !strings.Contains(text, "The ledger is whole") {
		t.Errorf("report: %s", text)
	}
	c, err := client.New(w.url, h.owner, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref := engine.SandboxRef{IDOrName: h.name}
	proof, err := c.Activity().Verify(t.Context(), ref, nil)
	if err != nil || proof.Fault != nil || proof.Records == 0 {
		t.Errorf("got %+v, %v", proof, err)
	}
	proof, err = c.Activity().Verify(t.Context(), ref, &engine.ActivityHead{Sequence: 1, Hash: strings.Repeat("0", 64)})
	if err != nil || proof.Fault == nil || proof.Fault.Sequence != 1 {
		t.Errorf("another head: got %+v, %v", proof, err)
	}
	page, err := c.Activity().Records(t.Context(), ref, engine.ActivityQuery{Kinds: []engine.ActivityKind{engine.ActivityCall}})
	if err != nil || len(page.Items) != 1 || page.Items[0].Operation != "exec" {
		t.Errorf("got %+v, %v", page, err)
	}
}

func TestActivityFollow(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	after := records(t, w, h.owner, h.sandbox, "?newest=true").Next
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/api/sandbox/"+h.sandbox+"/activity?follow=true&after="+jsonText(after), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.owner)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("got %d %s", res.StatusCode, got)
	}
	request(t, "POST", w.url+"/toolbox/"+h.sandbox+"/process/execute", h.owner, `{"command":"date"}`)
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if !strings.Contains(data, `"detail":"date"`) {
				t.Errorf("got %s", data)
			}
			return
		}
	}
	t.Error("the stream ended")
}
