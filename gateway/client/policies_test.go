package client_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest/coretest"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/client"
)

// serveCore is a server on a real core, and a client with its administrator's key.
func serveCore(t *testing.T) (*coretest.Rig, *gateway.Server, *client.Client) {
	t.Helper()
	r := coretest.New(t)
	s, err := gateway.Open(t.Context(), gateway.Config{
		Listen: "127.0.0.1:0", Sandboxes: r.Sandboxes(), Snapshots: r.Snapshots(), Toolboxes: r.Toolboxes(), Events: r.Events(),
		Keys: r.Keys(), Inspector: r.Inspector(), Accounts: r.Accounts(), Previews: r.Previews(),
		Services: engine.Services{Policies: r.Policies(), Secrets: r.Secrets(), Registries: r.Registries(), Catalog: r.Catalog(), WarmPools: r.WarmPools(), History: r.History()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.WithoutCancel(t.Context())) })
	return r, s, clientOf(t, s, coretest.AdminSecret)
}

func clientOf(t *testing.T, s *gateway.Server, key string) *client.Client {
	t.Helper()
	c, err := client.New(s.URL(), key, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPolicies(t *testing.T) {
	_, _, c := serveCore(t)
	ctx, p := t.Context(), c.Policies()
	const text = "name: build\ndescription: what it needs\negress: {rules: [{name: mirrors, allow: [a.example.com]}]}\n"
	put, err := p.Put(ctx, engine.Principal{}, engine.PutPolicy{Name: "build", Document: text})
	if err != nil || put.Revision != 1 || put.Document != text || put.Description != "what it needs" || put.CreatedBy == "" || put.UpdatedAt.IsZero() {
		t.Fatalf("got %+v, %v", put, err)
	}
	got, err := p.Policy(ctx, "", "build")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(put, got); d != "" {
		t.Error(d)
	}
	all, err := p.List(ctx, "")
	if err != nil || len(all) != 7 || !all[len(all)-1].Library {
		t.Errorf("got %+v, %v", all, err)
	}
	if r, err := p.Test(ctx, "", "build", "cases: [{lookup: a.example.com, expect: deny}]"); err != nil || r.Cases != 1 || len(r.Failures) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := c.Sandboxes().Create(ctx, engine.CreateSandbox{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	name := "build"
	if sb, err := c.Sandboxes().Update(ctx, engine.SandboxRef{IDOrName: "one"}, engine.UpdateSandbox{Policy: &name}); err != nil || sb.Policy != "build" {
		t.Errorf("got %+v, %v", sb, err)
	}
	of, err := p.Of(ctx, engine.SandboxRef{IDOrName: "one"})
	if err != nil || of.Policy == nil || of.Policy.Name != "build" || of.Sandbox.Policy != "build" {
		t.Errorf("got %+v, %v", of, err)
	}
	d, err := p.Explain(ctx, engine.SandboxRef{IDOrName: "one"}, "connect", "b.example.com")
	if err != nil || d.Allow || d.Rule != "egress/default" || d.Policy != "build" || !strings.Contains(d.Text, "b.example.com") {
		t.Errorf("got %+v, %v", d, err)
	}
	stale := int64(0)
	_, err = p.Put(ctx, engine.Principal{}, engine.PutPolicy{Name: "build", Document: text, Revision: &stale})
	for what, got := range map[engine.Kind]error{
		engine.KindConflict: p.Delete(ctx, engine.Principal{}, "build"),
		engine.KindNotFound: p.Delete(ctx, engine.Principal{}, "none"),
		engine.KindDenied:   p.Delete(ctx, engine.Principal{}, "open"),
		engine.KindInvalid:  p.Delete(ctx, engine.Principal{}, ""),
	} {
		if engine.KindOf(got) != what {
			t.Errorf("got %v, want %s", got, what)
		}
	}
	if engine.KindOf(err) != engine.KindConflict {
		t.Errorf("got %v", err)
	}
	none := ""
	if _, err := c.Sandboxes().Update(ctx, engine.SandboxRef{IDOrName: "one"}, engine.UpdateSandbox{Policy: &none}); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(ctx, engine.Principal{}, "build"); err != nil {
		t.Error(err)
	}
}

// A key that is bound to a policy calls what the policy allows, over REST as
// over MCP, and gets to no sandbox but those under it.
func TestBoundKeyOverREST(t *testing.T) {
	_, s, c := serveCore(t)
	ctx := t.Context()
	const text = "name: agent\negress: {default: allow}\ntools: {allow: ['sandbox_*'], deny: [sandbox_delete]}\n"
	if _, err := c.Policies().Put(ctx, engine.Principal{}, engine.PutPolicy{Name: "agent", Document: text}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sandboxes().Create(ctx, engine.CreateSandbox{Name: "open"}); err != nil {
		t.Fatal(err)
	}
	k, secret, err := c.Keys().Create(ctx, engine.Principal{}, engine.CreateKey{Name: "agent", Policy: "agent"})
	if err != nil || k.Policy != "agent" {
		t.Fatalf("got %+v, %v", k, err)
	}
	agent := clientOf(t, s, secret)
	sb, err := agent.Sandboxes().Create(ctx, engine.CreateSandbox{Name: "mine"})
	if err != nil || sb.Policy != "agent" {
		t.Fatalf("got %+v, %v", sb, err)
	}
	mine, open, offline := engine.SandboxRef{IDOrName: "mine"}, engine.SandboxRef{IDOrName: "open"}, "offline"
	if _, err := agent.Sandboxes().Stop(ctx, mine, engine.StopOptions{}); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"delete":       second(agent.Sandboxes().Delete(ctx, mine)),
		"another":      second(agent.Sandboxes().Stop(ctx, open, engine.StopOptions{})),
		"other policy": second(agent.Sandboxes().Create(ctx, engine.CreateSandbox{Policy: "open"})),
		"detach":       second(agent.Sandboxes().Update(ctx, mine, engine.UpdateSandbox{Policy: &offline})),
		"put":          second(agent.Policies().Put(ctx, engine.Principal{}, engine.PutPolicy{Name: "agent", Document: text})),
		"free key":     second(agent.Policies().List(ctx, "")),
	} {
		if engine.KindOf(err) != engine.KindDenied || !strings.Contains(err.Error(), "agent") {
			t.Errorf("%s: got %v, which should be denied and name the policy", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
