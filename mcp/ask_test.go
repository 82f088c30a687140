package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/mcptest"
)

// asking is a backend whose sandbox is always denied the same, and that notes
// what is approved.
type asking struct {
	refuse error // of Approve

	mu       sync.Mutex
	approved []string
}

func (a *asking) Denied(context.Context, engine.SandboxRef, time.Duration) ([]engine.AccessRequest, error) {
	return []engine.AccessRequest{{ID: "acc-a", SandboxName: "box", Host: "example.test", Port: 443, Rule: "egress/default", State: engine.AccessPending}}, nil
}

func (a *asking) approve(_ context.Context, p engine.Principal, id string, period time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse == nil {
		a.approved = append(a.approved, fmt.Sprint(p.OrganizationID == engine.DefaultOrganization, " ", id, " ", period))
	}
	return a.refuse
}

// dialAsking connects a client with these capabilities, to a server that asks
// or not, and makes a sandbox.
func dialAsking(t *testing.T, a *asking, ask bool, capabilities string) *pipe {
	t.Helper()
	b := mcptest.New(t).Services()
	b.Denials = a
	var opt Options
	if ask {
		opt.Approve = a.approve
	}
	s, err := New(b, opt)
	if err != nil {
		t.Fatal(err)
	}
	p := dialServer(t, s)
	p.send(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":%s,"clientInfo":{"name":"t","version":"1"}}}`, capabilities)
	p.next()
	p.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sandbox_create","arguments":{"name":"box"}}}`)
	p.next()
	return p
}

const execCall = `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"sandbox_exec","arguments":{"id":"box","command":"true"}}}`

func TestUserIsAskedAboutDenials(t *testing.T) {
	const canAsk = `{"elicitation":{}}`
	for _, c := range []struct {
		name         string
		ask          bool
		capabilities string
		refuse       error
		answer       string // to the question; empty: there is none
		want         string // in the result
		approved     int
	}{
		{"yes", true, canAsk, nil, `"result":{"action":"accept","content":{"decision":"allow for an hour"}}`, "it is allowed by now: retry", 1},
		{"no", true, canAsk, nil, `"result":{"action":"accept","content":{"decision":"keep it closed"}}`, "an operator refused it", 0},
		{"declined", true, canAsk, nil, `"result":{"action":"decline"}`, "an operator refused it", 0},
		{"accepted without a choice", true, canAsk, nil, `"result":{"action":"accept"}`, "an operator refused it", 0},
		{"an error", true, canAsk, nil, `"error":{"code":-1,"message":"no"}`, "atoll access approve acc-a", 0},
		{"nonsense", true, canAsk, nil, `"result":[]`, "atoll access approve acc-a", 0},
		{"a key that may not", true, canAsk, engine.Errorf(engine.KindDenied, "no"), `"result":{"action":"accept","content":{"decision":"allow for an hour"}}`, "atoll access approve acc-a", 0},
		{"a client that cannot", true, `{}`, nil, "", "atoll access approve acc-a", 0},
		{"a client for addresses only", true, `{"elicitation":{"url":{}}}`, nil, "", "atoll access approve acc-a", 0},
		{"a server that does not", false, canAsk, nil, "", "atoll access approve acc-a", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &asking{refuse: c.refuse}
			p := dialAsking(t, a, c.ask, c.capabilities)
			p.send(execCall)
			if c.answer != "" {
				if q := p.next(); q.Method != "elicitation/create" || !strings.Contains(q.Params.Message, "box was denied example.test:443") {
					t.Fatalf("got %+v", q)
				} else if id, err := json.Marshal(q.ID); err == nil {
					p.send(`{"jsonrpc":"2.0","id":%s,%s}`, id, c.answer)
				}
			}
			if got := p.next().text(); !strings.Contains(got, c.want) {
				t.Errorf("got %q", got)
			}
			if len(a.approved) != c.approved || c.approved == 1 && a.approved[0] != "true acc-a 1h0m0s" {
				t.Errorf("approved %q", a.approved)
			}
			p.send(execCall)
			if m := p.next(); m.Method != "" {
				t.Errorf("asked again: %+v", m)
			}
		})
	}
}

// An answer that nobody waits for opens nothing.
func TestAnswerWithoutAQuestion(t *testing.T) {
	a := &asking{}
	p := dialAsking(t, a, true, `{}`)
	p.send(`{"jsonrpc":"2.0","id":"atoll-ask-1","result":{"action":"accept","content":{"decision":"allow for an hour"}}}`)
	p.send(execCall)
	if got := p.next().text(); !strings.Contains(got, "atoll access approve acc-a") || len(a.approved) != 0 {
		t.Errorf("got %q, approved %q", got, a.approved)
	}
}
