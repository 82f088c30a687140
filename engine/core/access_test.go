package core_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// operator may do what a key can be allowed in the organization.
var operator = engine.Principal{OrganizationID: org, UserID: "operator", Permissions: engine.Permissions()}

// denied is the record of a name that was not resolved.
func denied(sandbox, host string) engine.ActivityRecord {
	return engine.ActivityRecord{Kind: engine.ActivityDNS, Sandbox: sandbox, Host: host, Verdict: "deny", Rule: "egress/default", Reason: "no rule allows it"}
}

func (r *rig) requests(q engine.AccessQuery) []engine.AccessRequest {
	r.t.Helper()
	q.OrganizationID = org
	all, err := r.Access().Requests(r.t.Context(), q)
	r.ok(err)
	return all
}

// told counts the events of a type.
func (r *rig) told(kind string) int {
	n := 0
	for _, e := range r.bus.Events() {
		if e.Type == kind && e.Access != nil && e.Sandbox != nil {
			n++
		}
	}
	return n
}

func TestDenialsBecomeRequests(t *testing.T) {
	r := newRig(t)
	sb := r.create("box")
	flow := func(host, remote, protocol, rule string) engine.ActivityRecord {
		return engine.ActivityRecord{Kind: engine.ActivityDeny, Sandbox: sb.ID, Host: host, Remote: remote, Protocol: protocol, Rule: rule, Call: "c"}
	}
	inbound := flow("", "192.0.2.9:80", "tcp", "default")
	inbound.Inbound = true
	allowed := denied(sb.ID, "allowed.example")
	allowed.Verdict = "allow"
	for _, c := range []struct {
		record engine.ActivityRecord
		want   string // target; empty: none
	}{
		{denied(sb.ID, "Example.TEST."), "example.test"},
		{flow("example.test", ":443", "tcp", "egress/default"), "example.test:443"},
		{flow("192.0.2.8", "192.0.2.9:80", "tcp", "egress/default"), "192.0.2.9:80"},
		{flow("good.example", "198.51.100.7:9000", "tcp", "default"), "good.example:9000"},
		{flow("", "192.0.2.9:53", "udp", "default"), "192.0.2.9:53/udp"},
		{flow("", "[2001:db8::9]:22", "tcp", "default"), "[2001:db8::9]:22"},
		{flow("", "192.0.2.9", "icmp", "default"), "192.0.2.9 (icmp)"},

		{allowed, ""},
		{inbound, ""},
		{denied("", "example.test"), ""},
		{denied("unknown", "example.test"), ""},
		{denied(sb.ID, "no\nname"), ""},
		{flow("", "169.254.169.254:80", "tcp", "blocked/metadata"), ""},
		{flow("", "169.254.169.254:80", "tcp", "default"), ""},
		{flow("", "10.0.0.1:80", "tcp", "default"), ""},
		{flow("", "192.0.2.9", "", "default"), ""},
		{flow("", "192.0.2.11:443", "udp", ""), ""}, // for what it was, not by a rule
		{flow("", ":443", "tcp", "default"), ""},
		{flow("", "192.0.2.9:0", "tcp", "default"), ""},
		{engine.ActivityRecord{Kind: engine.ActivityConnect, Sandbox: sb.ID, Remote: "192.0.2.10:80", Protocol: "tcp"}, ""},
	} {
		before := r.requests(engine.AccessQuery{})
		r.Observe(c.record)
		var got string
		for _, a := range r.requests(engine.AccessQuery{Sandbox: "box", State: engine.AccessPending}) {
			if !slices.ContainsFunc(before, func(b engine.AccessRequest) bool { return a.ID == b.ID }) {
				got = a.Target()
			}
		}
		if got != c.want {
			t.Errorf("%+v: got %q, want %q", c.record, got, c.want)
		}
	}
	if got, all := r.told(engine.EventAccessRequested), r.requests(engine.AccessQuery{}); got != len(all) {
		t.Errorf("%d events of %d requests", got, len(all))
	}

	// The same again is counted, not told.
	r.Observe(denied(sb.ID, "example.test"))
	first := r.requests(engine.AccessQuery{})[0]
	if first.Target() != "example.test" || first.Count != 2 || first.SandboxName != "box" || first.Rule == "" || !first.LastAt.After(first.FirstAt) {
		t.Errorf("got %+v", first)
	}

	// Whose it was may be known later.
	late := denied(sb.ID, "example.test")
	late.Call = "call-1"
	r.Attribute(late)
	if first = r.requests(engine.AccessQuery{})[0]; first.Call != "call-1" || first.Count != 2 {
		t.Errorf("got %+v", first)
	}
	late.Host = "never-denied.test"
	r.Attribute(late)
	if got := r.requests(engine.AccessQuery{}); slices.ContainsFunc(got, func(a engine.AccessRequest) bool { return a.Host == late.Host }) {
		t.Errorf("got %+v", got)
	}
}

// A hostile sandbox fills neither the database nor an operator's list, and is
// not told to wait for what nobody will see.
func TestDenialFloodIsBounded(t *testing.T) {
	r := newRig(t)
	sb, other := r.create("box"), r.create("other")
	for round := range 10 {
		for i := range 500 {
			r.Observe(denied(sb.ID, fmt.Sprintf("x%d-%d.example", round, i)))
		}
		r.requests(engine.AccessQuery{})
	}
	r.Observe(denied(other.ID, "example.test"))
	if n := len(r.requests(engine.AccessQuery{Sandbox: "box", Limit: 1000})); n != store.MaxAccessPending {
		t.Errorf("%d requests wait", n)
	}
	if n := len(r.requests(engine.AccessQuery{Sandbox: "other"})); n != 1 {
		t.Errorf("another sandbox has %d", n)
	}
	if n := r.told(engine.EventAccessRequested); n != store.MaxAccessPending+1 {
		t.Errorf("%d events", n)
	}
}

func TestApprove(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Network.BlockAll = true })
	r.Observe(denied(sb.ID, "example.test"))
	asked := r.requests(engine.AccessQuery{})[0]

	reader := operator
	reader.Permissions = nil
	for _, decide := range []func() error{
		func() error { _, err := r.Access().Approve(ctx, reader, asked.ID, 0); return err },
		func() error { _, err := r.Access().Deny(ctx, reader, asked.ID, 0); return err },
	} {
		wantKind(t, decide(), engine.KindDenied)
	}
	stranger := operator
	stranger.OrganizationID = "other"
	_, err := r.Access().Approve(ctx, stranger, asked.ID, 0)
	wantKind(t, err, engine.KindNotFound)
	_, err = r.Access().Approve(ctx, operator, asked.ID, -time.Second)
	wantKind(t, err, engine.KindInvalid)
	if len(r.runner.Policy(sb.ID).Grants) != 0 {
		t.Fatal("a refused decision opened something")
	}

	got, err := r.Access().Approve(ctx, operator, asked.ID, time.Hour)
	r.ok(err)
	want := []engine.NetworkGrant{{ID: asked.ID, Host: "example.test", Until: got.Until}}
	if d := cmp.Diff(want, r.runner.Policy(sb.ID).Grants); d != "" || got.State != engine.AccessApproved || got.DecidedBy != "operator" || got.Until.IsZero() {
		t.Errorf("got %+v\n%s", got, d)
	}
	if n := r.told(engine.EventAccessDecided); n != 1 {
		t.Errorf("%d events", n)
	}
	// It lasts over a stop, and the second approval stands in place of the first.
	_, err = r.Sandboxes().Stop(ctx, ref("box"), engine.StopOptions{})
	r.ok(err)
	_, err = r.Access().Approve(ctx, operator, asked.ID, 0)
	r.ok(err)
	_, err = r.Sandboxes().Start(ctx, ref("box"))
	r.ok(err)
	want[0].Until = time.Time{}
	if d := cmp.Diff(want, r.runner.Launched(sb.ID).Network.Grants); d != "" {
		t.Error(d)
	}
	// A fork does not have it.
	child, err := r.Snapshots().Fork(ctx, ref("box"), "child")
	r.ok(err)
	if p := r.runner.Policy(child.ID); len(p.Grants) != 0 || !p.BlockAll {
		t.Errorf("the fork has %+v", p)
	}
	// Denying what was approved closes it, and is remembered.
	_, err = r.Access().Deny(ctx, operator, asked.ID, 0)
	r.ok(err)
	r.Observe(denied(sb.ID, "example.test"))
	if all := r.requests(engine.AccessQuery{}); len(all) != 1 || all[0].State != engine.AccessDenied || len(r.runner.Policy(sb.ID).Grants) != 0 {
		t.Errorf("got %+v and %+v", all, r.runner.Policy(sb.ID))
	}
	r.clock.Advance(2 * time.Hour)
	r.Observe(denied(sb.ID, "example.test"))
	if all := r.requests(engine.AccessQuery{}); len(all) != 1 || all[0].State != engine.AccessPending {
		t.Errorf("got %+v", all)
	}
}

func TestApprovalFailsWhole(t *testing.T) {
	r := newRig(t)
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Network.BlockAll = true })
	r.Observe(denied(sb.ID, "example.test"))
	asked := r.requests(engine.AccessQuery{})[0]
	r.runner.Fail("SetNetwork", engine.Errorf(engine.KindUnavailable, "no"))
	_, err := r.Access().Approve(t.Context(), operator, asked.ID, 0)
	wantKind(t, err, engine.KindUnavailable)
	got, err := r.Sandboxes().Sandbox(t.Context(), ref("box"))
	if err != nil || len(got.Network.Grants) != 0 || r.requests(engine.AccessQuery{})[0].State != engine.AccessPending {
		t.Errorf("got %+v, %v", got.Network, err)
	}
}

// Whoever sets the network means just that: grants end, and the next denial
// asks again.
func TestSettingsEndGrants(t *testing.T) {
	r := newRig(t)
	sb := r.create("box", func(c *engine.CreateSandbox) {
		c.Network = engine.NetworkPolicy{AllowDomains: []string{"example.com"}, Grants: []engine.NetworkGrant{{ID: "smuggled", Host: "x.example"}}, Learn: true}
	})
	if p := r.runner.Policy(sb.ID); len(p.Grants) != 0 || p.Learn {
		t.Fatalf("a caller set %+v", p)
	}
	r.Observe(denied(sb.ID, "example.test"))
	_, err := r.Access().Approve(t.Context(), operator, r.requests(engine.AccessQuery{})[0].ID, 0)
	r.ok(err)
	now, err := r.Sandboxes().Sandbox(t.Context(), ref("box"))
	r.ok(err)
	next := now.Network
	next.BlockAll = true
	_, err = r.Sandboxes().Update(t.Context(), ref("box"), engine.UpdateSandbox{Network: &next})
	r.ok(err)
	if p := r.runner.Policy(sb.ID); len(p.Grants) != 0 || !p.BlockAll || len(r.requests(engine.AccessQuery{})) != 0 {
		t.Errorf("got %+v, requests %+v", p, r.requests(engine.AccessQuery{}))
	}
	r.Observe(denied(sb.ID, "example.test"))
	if all := r.requests(engine.AccessQuery{}); len(all) != 1 || all[0].State != engine.AccessPending {
		t.Errorf("got %+v", all)
	}
}

func TestDeniedWithinACall(t *testing.T) {
	r := newRig(t)
	sb := r.create("box")
	r.Observe(denied(sb.ID, "before.example"))
	r.clock.Advance(time.Minute)
	for _, host := range []string{"b.example", "a.example"} {
		r.Observe(denied(sb.ID, host))
	}
	got, err := r.Access().Denied(t.Context(), ref("box"), 10*time.Second)
	if err != nil || len(got) != 2 || got[0].Host != "b.example" || got[1].Host != "a.example" || got[0].State != engine.AccessPending {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := r.Access().Approve(t.Context(), operator, got[0].ID, time.Hour); err != nil {
		t.Errorf("what was told cannot be approved: %v", err)
	}
	_, err = r.Access().Denied(t.Context(), engine.SandboxRef{OrganizationID: "other", IDOrName: sb.ID}, time.Hour)
	wantKind(t, err, engine.KindNotFound)
}
