package tools_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// deniedTo are denials of the sandbox named box.
type deniedTo []engine.AccessRequest

func (d deniedTo) Denied(_ context.Context, ref engine.SandboxRef, within time.Duration) ([]engine.AccessRequest, error) {
	if ref != (engine.SandboxRef{OrganizationID: "org", IDOrName: "box"}) || within <= 0 {
		return nil, fmt.Errorf("asked for %+v within %v", ref, within)
	}
	return d, nil
}

func newDeniedBench(t *testing.T, d tools.Denials) *bench {
	b := &bench{t: t, backend: mcptest.New(t), tools: map[string]tools.Tool{}}
	services := b.backend.Services()
	services.Denials = d
	kit := tools.New(services, tools.Options{})
	t.Cleanup(func() { kit.Close(context.WithoutCancel(t.Context())) })
	for _, tool := range kit.Tools() {
		b.tools[tool.Name] = tool
	}
	b.ok("sandbox_create", `{"name":"box"}`)
	return b
}

func TestExecTellsOfDenials(t *testing.T) {
	request := engine.AccessRequest{ID: "acc-a", Host: "example.test", Port: 443, Protocol: "tcp", Rule: "egress/default", State: engine.AccessPending}
	refused, allowed, dropped := request, request, request
	refused.State, allowed.State, dropped.State = engine.AccessDenied, engine.AccessApproved, ""
	for _, c := range []struct {
		name   string
		denied deniedTo
		want   string // after the status
	}{
		{"nothing", nil, "\nhi"},
		{"one", deniedTo{request}, `
egress: denied example.test:443 (rule egress/default); an operator can allow it: atoll access approve acc-a --for 1h
Ask your user to have that done, then retry; you cannot do it yourself.
hi`},
		{"decided ones", deniedTo{refused, allowed, dropped}, `
egress: denied example.test:443 (rule egress/default); an operator refused it: do without
egress: denied example.test:443 (rule egress/default); it is allowed by now: retry
egress: denied example.test:443 (rule egress/default); too many other requests wait for an operator
hi`},
	} {
		b := newDeniedBench(t, c.denied)
		r := b.call(t.Context(), "sandbox_exec", `{"id":"box","command":"echo hi"}`)
		_, rest, _ := strings.Cut(r.Text, "\n")
		if diff := cmp.Diff(c.want, "\n"+rest); diff != "" || r.IsError || !strings.HasPrefix(r.Text, "exit 0 ") {
			t.Errorf("%s: %q (-want +got):\n%s", c.name, r.Text, diff)
		}
		if _, told := r.Meta["sh.atoll/denied"]; told != (len(c.denied) > 0) {
			t.Errorf("%s: got %v", c.name, r.Meta)
		}
	}
}

// However much was denied, the result stays short and the output is in it.
func TestManyDenialsStayShort(t *testing.T) {
	var many deniedTo
	for i := range 50 {
		many = append(many, engine.AccessRequest{ID: fmt.Sprint("acc-", i), Host: strings.Repeat("a.", 120) + "test", Port: 443, State: engine.AccessPending})
	}
	got := newDeniedBench(t, many).ok("sandbox_exec", `{"id":"box","command":"seq 9999; echo the end"}`)
	if n := strings.Count(got, "egress: "); n != 4 || !strings.Contains(got, "denied 47 more") || !strings.HasSuffix(got, "the end") {
		t.Errorf("%d lines in:\n%s", n, got)
	}
}

// No tool can decide about access, whatever it is given.
func TestNoToolDecides(t *testing.T) {
	for name, tool := range newBench(t, tools.Options{}).tools {
		for _, word := range []string{"approve", "grant", "unblock", "learn"} {
			if strings.Contains(strings.ToLower(name+tool.Schema), word) {
				t.Errorf("%s speaks of %s: %s", name, word, tool.Schema)
			}
		}
	}
}
