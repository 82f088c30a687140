package tools_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// recorder notes the requests to a toolbox and can answer in its place.
type recorder struct {
	engine.Toolboxes
	answer func(*http.Request) (*http.Response, error) // nil: the toolbox answers

	mu    sync.Mutex
	asked []string
}

func (r *recorder) Toolbox(ctx context.Context, ref engine.SandboxRef) (http.RoundTripper, error) {
	rt, err := r.Toolboxes.Toolbox(ctx, ref)
	if err != nil {
		return nil, err
	}
	return transport(func(req *http.Request) (*http.Response, error) {
		r.mu.Lock()
		r.asked = append(r.asked, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		if r.answer != nil {
			return r.answer(req)
		}
		return rt.RoundTrip(req)
	}), nil
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.asked = nil }()
	return slices.Clone(r.asked)
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// recorded replaces the bench's tools with ones whose requests are recorded.
func recorded(b *bench) *recorder {
	services := b.backend.Services()
	r := &recorder{Toolboxes: services.Toolboxes}
	services.Toolboxes = r
	kit := tools.New(services, tools.Options{})
	b.t.Cleanup(func() { r.answer = nil; kit.Close(context.WithoutCancel(b.t.Context())) })
	for _, tool := range kit.Tools() {
		b.tools[tool.Name] = tool
	}
	return r
}

func TestCommandsTakeOneRoundTrip(t *testing.T) {
	b := newBench(t, tools.Options{})
	r := recorded(b)
	b.ok("sandbox_exec", `{"id":"box","command":"true"}`)
	first := r.take()
	if len(first) != 2 || first[0] != "POST /process/session" {
		t.Errorf("the first command asked %q, want a session and the command", first)
	}
	b.ok("sandbox_exec", `{"id":"box","command":"exit 3","cwd":"/","env":{"A":"b"}}`)
	if d := cmp.Diff(first[1:], r.take()); d != "" {
		t.Errorf("the second command (-want +got):\n%s", d)
	}
}

func TestBrokenToolboxes(t *testing.T) {
	b := newBench(t, tools.Options{})
	r := recorded(b)
	reply := func(status int, body string) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		}
	}
	for name, c := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		want   []string
	}{
		"gone":       {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, []string{"sandbox box does not answer", "sandbox_list"}},
		"not JSON":   {reply(200, "<html>"), []string{"sandbox box sent an answer that cannot be read"}},
		"broken off": {reply(200, `{"exitCode":`), []string{"sandbox box does not answer"}},
		"the engine's": {func(*http.Request) (*http.Response, error) {
			return nil, engine.Errorf(engine.KindExhausted, "too much").WithHint("wait")
		}, []string{"too much. Wait."}},
		"a server between, with a hint": {
			reply(409, `{"message":"Sandbox box is stopped: start it","kind":"conflict","hint":"start it","source":"DAYTONA_API"}`),
			[]string{"Sandbox box is stopped.", `sandbox_control {"id":"box","action":"start"}`},
		},
		"a server between, without": {reply(404, `{"message":"Sandbox box not found"}`), []string{"Sandbox box not found.", "call sandbox_list"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.answer = c.answer
			defer func() { r.answer = nil }()
			got := b.fails("sandbox_exec", `{"id":"box","command":"true"}`)
			wantParts(t, got, c.want...)
			if strings.Contains(got, "http://") || strings.Contains(got, "refused") {
				t.Errorf("the cause shows: %q", got)
			}
		})
	}
}
