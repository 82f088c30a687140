package gateway_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// listen opens a stream of server-sent events and returns its lines.
func listen(t *testing.T, s *gateway.Server, query string) *bufio.Scanner {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() && lines.Text() != ": connected" {
	}
	return lines
}

// types reads the types of the next events, each of which has an id.
func types(t *testing.T, lines *bufio.Scanner, n int) []string {
	t.Helper()
	var out []string
	id := ""
	for len(out) < n && lines.Scan() {
		switch field, value, _ := strings.Cut(lines.Text(), ": "); field {
		case "id":
			id = value
		case "event":
			if id == "" {
				t.Errorf("event %s has no id", value)
			}
			out, id = append(out, value), ""
		}
	}
	return out
}

func TestStreamIsFiltered(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	all, states := listen(t, s, ""), listen(t, s, "?sandbox=b&types=sandbox.state.updated&types=snapshot.*")
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	post(t, s.URL()+"/api/sandbox", `{"name":"b"}`)
	post(t, s.URL()+"/api/sandbox/a/stop", "")
	post(t, s.URL()+"/api/sandbox/b/stop", "")
	if d := cmp.Diff([]string{"sandbox.created", "sandbox.created", "sandbox.state.updated", "sandbox.state.updated"}, types(t, all, 4)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"sandbox.state.updated"}, types(t, states, 1)); d != "" {
		t.Error(d)
	}
	for states.Scan() {
		if data, ok := strings.CutPrefix(states.Text(), "data: "); ok {
			if !strings.Contains(data, `"name":"b"`) {
				t.Errorf("got %s", data)
			}
			break
		}
	}
	for _, bad := range []string{"?types=exploded", "?types=" + strings.Repeat("sandbox.created,", 65), "?sandbox=" + strings.Repeat("a,", 65)} {
		if res, body := request(t, "GET", s.URL()+"/api/events"+bad, key, ""); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40s: got %d %s", bad, res.StatusCode, body)
		}
	}
}

func TestStreamEndsWithItsKey(t *testing.T) {
	e := gatewaytest.New(t)
	var revoked atomic.Bool
	e.Fail = func(call string) error {
		if call == "Authenticate" && revoked.Load() {
			return engine.Errorf(engine.KindUnauthenticated, "the API key was revoked")
		}
		return nil
	}
	s := gatewaytest.Serve(t, e, func(c *gateway.Config) { c.KeepAlive = 5 * time.Millisecond })
	lines := listen(t, s, "")
	for lines.Scan() && lines.Text() != ": alive" {
	}
	revoked.Store(true)
	for lines.Scan() {
	}
	if lines.Err() != nil {
		t.Errorf("the stream broke: %v", lines.Err())
	}
}

func TestStreamEndsWithTheServer(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	lines := listen(t, s, "")
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
	}
	if lines.Err() != nil {
		t.Errorf("the stream broke: %v", lines.Err())
	}
}
