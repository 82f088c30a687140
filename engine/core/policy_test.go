package core_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
	"github.com/atoll-sh/atoll/policies"
)

// owner is the principal that changes policies of org.
func owner() engine.Principal {
	return engine.Principal{OrganizationID: org, UserID: "u", Role: engine.RoleOwner, Unrestricted: true, Permissions: engine.Permissions()}
}

// bound is the context of a caller whose key is bound to a policy.
func bound(ctx context.Context, policy string) context.Context {
	return engine.WithCaller(ctx, engine.Caller{Door: "api", Principal: engine.Principal{OrganizationID: org, Policy: policy}})
}

func (r *rig) put(name, rest string) engine.NamedPolicy {
	r.t.Helper()
	p, err := r.Policies().Put(r.t.Context(), owner(), engine.PutPolicy{Name: name, Document: "name: " + name + "\n" + rest})
	r.ok(err)
	return p
}

func under(policy string) func(*engine.CreateSandbox) {
	return func(req *engine.CreateSandbox) { req.Policy = policy }
}

// allows asks what the runner enforces for a sandbox.
func (r *rig) allows(id, host string) bool {
	r.t.Helper()
	n := r.runner.Policy(id)
	lists, err := policies.FromLists(n.BlockAll, n.AllowCIDRs, n.AllowDomains)
	r.ok(err)
	if n.Policy == nil {
		return policies.Decide(lists, policies.LookupRequest{Name: host}).Allow
	}
	return policies.Decide(&policies.Policy{Egress: policies.Both(n.Policy.Egress, lists.Egress)}, policies.LookupRequest{Name: host}).Allow
}

func wantDenied(t *testing.T, err error, rule string) {
	t.Helper()
	wantKind(t, err, engine.KindDenied)
	if err != nil && !strings.Contains(err.Error(), rule) {
		t.Errorf("got %q, which does not name %s", err, rule)
	}
}

const mirrors = "egress: {rules: [{name: mirrors, allow: [a.example.com, b.example.com]}]}"

func TestPolicyHoldsBesideTheLists(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	plain := r.create("plain", under("build"))
	label := r.create("label", func(req *engine.CreateSandbox) { req.Labels = map[string]string{engine.LabelPolicy: "build"} })
	listed := r.create("listed", under("build"), func(req *engine.CreateSandbox) {
		req.Network.AllowDomains = []string{"b.example.com", "c.example.com"}
	})
	closed := r.create("closed", under("build"), func(req *engine.CreateSandbox) { req.Network.BlockAll = true })
	for _, tt := range []struct {
		sb      engine.Sandbox
		a, b, c bool
	}{{plain, true, true, false}, {label, true, true, false}, {listed, false, true, false}, {closed, false, false, false}} {
		if tt.sb.Policy != "build" {
			t.Errorf("%s is under %q", tt.sb.Name, tt.sb.Policy)
		}
		for host, want := range map[string]bool{"a.example.com": tt.a, "b.example.com": tt.b, "c.example.com": tt.c} {
			if got := r.allows(tt.sb.ID, host); got != want {
				t.Errorf("%s: %s is allowed: %v", tt.sb.Name, host, got)
			}
		}
	}
	// A change of the lists keeps the policy.
	_, err := r.Sandboxes().Update(t.Context(), ref("closed"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{}})
	r.ok(err)
	if !r.allows(closed.ID, "a.example.com") || r.allows(closed.ID, "c.example.com") {
		t.Errorf("got %+v", r.runner.Policy(closed.ID))
	}
	for _, tt := range []struct {
		host, policy, rule string
		allow              bool
	}{
		{"a.example.com", "network", "egress/default", false},
		{"b.example.com", "build", "mirrors", true},
		{"c.example.com", "build", "egress/default", false},
		{"169.254.169.254:80", "build", "blocked/metadata", false},
	} {
		d, err := r.Policies().Explain(t.Context(), ref("listed"), "connect", tt.host)
		r.ok(err)
		if d.Allow != tt.allow || d.Policy != tt.policy || d.Rule != tt.rule || !strings.Contains(d.Text, tt.rule) {
			t.Errorf("%s: got %+v", tt.host, d)
		}
	}
}

func TestPolicyEditsReachSandboxes(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	sb := r.create("one", under("build"))
	free := r.create("free")
	r.put("build", "egress: {rules: [{name: mirrors, allow: [c.example.com]}]}")
	if r.allows(sb.ID, "a.example.com") || !r.allows(sb.ID, "c.example.com") {
		t.Errorf("got %+v", r.runner.Policy(sb.ID))
	}
	if r.runner.Policy(free.ID).Policy != nil {
		t.Error("a sandbox under no policy got one")
	}
	// One that another change keeps busy follows after it.
	release := make(chan struct{})
	r.runner.Hook("Resize", func(context.Context) error { <-release; return nil })
	resized := make(chan error, 1)
	go func() {
		_, err := r.Sandboxes().Resize(t.Context(), ref("one"), engine.Resources{CPU: 2})
		resized <- err
	}()
	r.until(func() bool { return r.state("one") == engine.StateResizing })
	put := make(chan error, 1)
	go func() {
		_, err := r.Policies().Put(t.Context(), owner(), engine.PutPolicy{Name: "build", Document: "name: build\n" + mirrors})
		put <- err
	}()
	r.until(func() bool {
		p, err := r.Policies().Policy(t.Context(), org, "build")
		return err == nil && p.Revision == 3
	})
	close(release)
	r.ok(<-resized)
	r.ok(<-put)
	r.until(func() bool { return r.allows(sb.ID, "a.example.com") && !r.allows(sb.ID, "c.example.com") })
}

// until waits for what must come.
func (r *rig) until(done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("it did not come")
		}
	}
}

func TestPolicyIsAttachedLive(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors+"\nlifecycle: {autoStop: 10m}")
	sb := r.create("one")
	name, none := "build", ""
	got, err := r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Policy: &name})
	r.ok(err)
	if got.Policy != "build" || got.Lifecycle.AutoStop != 10*time.Minute || r.allows(sb.ID, "c.example.com") || !r.allows(sb.ID, "a.example.com") {
		t.Errorf("got %+v, %+v", got, r.runner.Policy(sb.ID))
	}
	// A runner that fails leaves the old one, in the row and on the runner.
	offline := "offline"
	r.runner.Fail("SetNetwork", engine.Errorf(engine.KindUnavailable, "no"))
	_, err = r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Policy: &offline})
	wantKind(t, err, engine.KindUnavailable)
	if now, err := r.Sandboxes().Sandbox(t.Context(), ref("one")); err != nil || now.Policy != "build" || !r.allows(sb.ID, "a.example.com") {
		t.Errorf("got %+v, %v", now, err)
	}
	r.put("shell", "exec: {deny: ['/usr/bin/nc*']}\nenforcement: best-effort\nlifecycle: {autoStop: 10m}")
	shell := "shell"
	r.runner.Fail("SetNetwork", engine.Errorf(engine.KindUnavailable, "no"))
	_, err = r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Policy: &shell})
	wantKind(t, err, engine.KindUnavailable)
	if rules := r.runner.Launched(sb.ID).Rules; rules != nil {
		t.Errorf("rules of the policy that was not attached hold: %+v", rules)
	}
	got, err = r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Policy: &none})
	r.ok(err)
	if got.Policy != "" || !r.allows(sb.ID, "c.example.com") {
		t.Errorf("got %+v", got)
	}
	wrong := "none"
	_, err = r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Policy: &wrong})
	wantKind(t, err, engine.KindInvalid)
}

func TestPolicyIsInherited(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	r.create("one", under("build"))
	fork, err := r.Snapshots().Fork(t.Context(), ref("one"), "fork")
	r.ok(err)
	sn, err := r.Snapshots().Save(t.Context(), ref("one"), "cut")
	r.ok(err)
	from := r.create("from", func(req *engine.CreateSandbox) { req.Snapshot = "cut" })
	for _, sb := range []engine.Sandbox{fork, from} {
		if sb.Policy != "build" || r.allows(sb.ID, "c.example.com") {
			t.Errorf("%s is under %q", sb.Name, sb.Policy)
		}
	}
	if sn.Policy != "build" {
		t.Errorf("the snapshot is under %q", sn.Policy)
	}
	other := r.create("other", under("open"), func(req *engine.CreateSandbox) { req.Snapshot = "cut" })
	if other.Policy != "open" {
		t.Errorf("got %q", other.Policy)
	}
	_, err = r.Sandboxes().Create(bound(t.Context(), "offline"), engine.CreateSandbox{OrganizationID: org, Snapshot: "cut"})
	wantDenied(t, err, "offline")
}

func TestPolicyInUseStays(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	r.create("one", under("build"))
	err := r.Policies().Delete(t.Context(), owner(), "build")
	wantKind(t, err, engine.KindConflict)
	if err == nil || !strings.Contains(err.Error(), "sandboxes one") {
		t.Errorf("got %v", err)
	}
	_, err = r.Sandboxes().Delete(t.Context(), ref("one"))
	r.ok(err)
	r.ok(r.Policies().Delete(t.Context(), owner(), "build"))
	wantKind(t, r.Policies().Delete(t.Context(), owner(), "build"), engine.KindNotFound)
	wantKind(t, r.Policies().Delete(t.Context(), owner(), "open"), engine.KindDenied)
}

func TestPolicyBoundsResourcesAndTimers(t *testing.T) {
	r := newRig(t)
	r.put("small", "resources: {cpu: 0.5, memory: 512Mi, disk: 2Gi, pids: 100, sandboxes: 2}\nlifecycle: {autoStop: 5m, ttl: 1h}")
	got := r.create("one", under("small"))
	want := engine.Resources{CPU: 0.5, MemoryMiB: 512, DiskMiB: 2048, PIDs: 100}
	if got.Resources != want || got.Lifecycle.AutoStop != 5*time.Minute || got.Lifecycle.TTL != time.Hour {
		t.Errorf("got %+v, %+v", got.Resources, got.Lifecycle)
	}
	for rule, change := range map[string]func(*engine.CreateSandbox){
		"resources/cpu":      func(q *engine.CreateSandbox) { q.Resources.CPU = 1 },
		"resources/memory":   func(q *engine.CreateSandbox) { q.Resources.MemoryMiB = 1024 },
		"resources/disk":     func(q *engine.CreateSandbox) { q.Resources.DiskMiB = 8192 },
		"resources/pids":     func(q *engine.CreateSandbox) { q.Resources.PIDs = 200 },
		"lifecycle/autoStop": func(q *engine.CreateSandbox) { q.Lifecycle = &engine.Lifecycle{AutoStop: 0, AutoDelete: -1} },
		"lifecycle/ttl": func(q *engine.CreateSandbox) {
			q.Lifecycle = &engine.Lifecycle{AutoStop: time.Minute, AutoDelete: -1, TTL: 2 * time.Hour}
		},
	} {
		q := engine.CreateSandbox{OrganizationID: org, Policy: "small"}
		change(&q)
		_, err := r.Sandboxes().Create(t.Context(), q)
		wantDenied(t, err, rule)
	}
	hour := 3 * time.Hour
	_, err := r.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{TTL: &hour})
	wantDenied(t, err, "lifecycle/ttl")
	_, err = r.Sandboxes().Resize(t.Context(), ref("one"), engine.Resources{CPU: 1})
	wantDenied(t, err, "resources/cpu")
	// A policy that got tighter keeps nobody from changing something else.
	r.put("tight", "egress: {default: allow}")
	r.create("loose", under("tight"))
	r.put("tight", "resources: {cpu: 0.5}\nlifecycle: {ttl: 1h}")
	minute := time.Minute
	_, err = r.Sandboxes().Update(t.Context(), ref("loose"), engine.UpdateSandbox{AutoStop: &minute})
	r.ok(err)
	_, err = r.Sandboxes().Update(t.Context(), ref("loose"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{BlockAll: true}})
	r.ok(err)
	_, err = r.Sandboxes().Resize(t.Context(), ref("loose"), engine.Resources{CPU: 2})
	wantDenied(t, err, "resources/cpu")

	r.create("big")
	small := "small"
	_, err = r.Sandboxes().Update(t.Context(), ref("big"), engine.UpdateSandbox{Policy: &small})
	wantDenied(t, err, "resources/cpu")
	// Of many at once, as many succeed as there may be.
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Policy: "small"})
			errs <- err
		}()
	}
	made := 0
	for range cap(errs) {
		if err := <-errs; err == nil {
			made++
		} else {
			wantDenied(t, err, "resources/sandboxes")
		}
	}
	if made != 1 {
		t.Errorf("%d were made beside the one, want 1", made)
	}
	_, err = r.Snapshots().Fork(t.Context(), ref("one"), "fork")
	wantDenied(t, err, "resources/sandboxes")
}

func TestPolicySaysWhichSecrets(t *testing.T) {
	r, _ := newSecretRig(t)
	r.secret("ci-token", "v", "a.example.com")
	r.secret("prod-token", "v", "a.example.com")
	r.put("ci", "egress: {default: allow}\nsecrets: {allow: ['ci-*']}")
	sb := r.create("one", under("ci"), func(q *engine.CreateSandbox) { q.Secrets = map[string]string{"TOKEN": "ci-token"} })
	_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Policy: "ci", Secrets: map[string]string{"TOKEN": "prod-token"}})
	wantDenied(t, err, "secrets/default")
	_, err = r.Secrets().Attach(t.Context(), ref("one"), map[string]string{"TOKEN": "prod-token"})
	wantDenied(t, err, "secrets/default")
	if got := r.resolved(sb.ID); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	// What the policy comes to deny is not sent any more.
	r.put("ci", "egress: {default: allow}")
	if got := r.resolved(sb.ID); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestKeyBoundToAPolicy(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	r.create("open")
	ctx := bound(t.Context(), "build")
	mine, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "mine"})
	r.ok(err)
	if mine.Policy != "build" {
		t.Errorf("it is under %q", mine.Policy)
	}
	for _, q := range []engine.CreateSandbox{{Policy: "open"}, {Labels: map[string]string{engine.LabelPolicy: "open"}}} {
		q.OrganizationID = org
		_, err := r.Sandboxes().Create(ctx, q)
		wantDenied(t, err, "build")
	}
	name, none := "open", ""
	for _, u := range []engine.UpdateSandbox{{Policy: &name}, {Policy: &none}} {
		_, err := r.Sandboxes().Update(ctx, ref("mine"), u)
		wantDenied(t, err, "build")
	}
	// The network can be closed further, and not opened: the policy stays.
	_, err = r.Sandboxes().Update(ctx, ref("mine"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{}})
	r.ok(err)
	if r.allows(mine.ID, "c.example.com") {
		t.Error("it was opened")
	}
	// A sandbox under another policy, or none, is out of reach, whatever is done.
	for what, err := range map[string]error{
		"see":    second(r.Sandboxes().Sandbox(ctx, ref("open"))),
		"stop":   second(r.Sandboxes().Stop(ctx, ref("open"), engine.StopOptions{})),
		"delete": second(r.Sandboxes().Delete(ctx, ref("open"))),
		"fork":   second(r.Snapshots().Fork(ctx, ref("open"), "")),
		"save":   second(r.Snapshots().Save(ctx, ref("open"), "cut")),
	} {
		if engine.KindOf(err) != engine.KindDenied {
			t.Errorf("%s: got %v", what, err)
		}
	}
	page, err := r.Sandboxes().List(ctx, engine.SandboxQuery{OrganizationID: org})
	r.ok(err)
	if len(page.Items) != 1 || page.Items[0].Name != "mine" {
		t.Errorf("it sees %+v", page.Items)
	}
	p := owner()
	p.Policy = "build"
	_, err = r.Policies().Put(ctx, p, engine.PutPolicy{Name: "build", Document: "name: build\negress: {default: allow}"})
	wantDenied(t, err, "build")
}

func TestKeysStayBound(t *testing.T) {
	r := newPeople(t)
	p := r.owner
	_, err := r.Core.Policies().Put(t.Context(), p, engine.PutPolicy{Name: "ci", Document: "name: ci\ntools: {allow: ['sandbox_*'], deny: [sandbox_delete]}"})
	r.ok(err)
	keys := r.Accounts.Keys
	_, secret, err := keys.Create(t.Context(), p, engine.CreateKey{Name: "agent", Policy: "ci"})
	r.ok(err)
	agent := r.who(secret)
	if agent.Policy != "ci" || agent.Tools == nil || agent.Admin {
		t.Fatalf("got %+v", agent)
	}
	if err := engine.AuthorizeTool(agent, policies.ToolRequest{Tool: "sandbox_exec", Changes: true}); err != nil {
		t.Error(err)
	}
	wantDenied(t, engine.AuthorizeTool(agent, policies.ToolRequest{Tool: "sandbox_delete", Changes: true}), "tools/deny")
	wantDenied(t, engine.AuthorizeTool(agent, policies.ToolRequest{Tool: "DELETE /x", Also: []string{"sandbox_delete"}}), "tools/deny")
	wantDenied(t, engine.AuthorizeTool(agent, policies.ToolRequest{Tool: "PUT /policies/{name}"}), "tools/default")
	wantDenied(t, engine.Authorize(agent, engine.PermissionOwner, ""), "ci")

	for _, other := range []string{"open", "none"} {
		_, _, err = keys.Create(t.Context(), agent, engine.CreateKey{Name: "out", Policy: other})
		wantDenied(t, err, "ci")
	}
	_, secret, err = keys.Create(t.Context(), agent, engine.CreateKey{Name: "child"})
	r.ok(err)
	if got := r.who(secret).Policy; got != "ci" {
		t.Errorf("the key of a bound key is bound to %q", got)
	}
	_, _, err = keys.Create(t.Context(), p, engine.CreateKey{Name: "wrong", Policy: "none"})
	wantKind(t, err, engine.KindInvalid)

	// A change of the document counts for the next call.
	_, err = r.Policies().Put(t.Context(), p, engine.PutPolicy{Name: "ci", Document: "name: ci\ntools: {readOnly: true}"})
	r.ok(err)
	wantDenied(t, engine.AuthorizeTool(r.who(secret), policies.ToolRequest{Tool: "sandbox_exec", Changes: true}), "tools/readOnly")
	wantKind(t, r.Policies().Delete(t.Context(), p, "ci"), engine.KindConflict)
}

func TestPolicyRulesGoToTheRunner(t *testing.T) {
	r := newRig(t)
	r.put("shell", "egress: {default: allow}\nexec: {deny: ['/usr/bin/nc*']}\nfiles: {write: {deny: ['/etc/**']}}\nenforcement: best-effort")
	sb := r.create("one", under("shell"))
	rules := r.runner.Launched(sb.ID).Rules
	if rules == nil || !rules.BestEffort || rules.Policy != "shell" || !slices.Equal(rules.Exec.Deny, []string{"/usr/bin/nc*"}) || !slices.Equal(rules.Write.Deny, []string{"/etc/**"}) {
		t.Errorf("got %+v", rules)
	}
	// What no host enforces is not put where it would have to hold.
	_, err := r.Policies().Put(t.Context(), owner(), engine.PutPolicy{Name: "shell", Document: "name: shell\nexec: {deny: ['/usr/bin/nc*']}"})
	wantKind(t, err, engine.KindUnsupported)
	r.put("shell", "egress: {default: allow}")
	if rules := r.runner.Launched(sb.ID).Rules; rules != nil {
		t.Errorf("got %+v", rules)
	}
}

func TestPutPolicyRefuses(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	revision := int64(7)
	member := owner()
	member.Role = engine.RoleMember
	for _, tt := range []struct {
		p    engine.Principal
		q    engine.PutPolicy
		kind engine.Kind
	}{
		{owner(), engine.PutPolicy{Name: "open", Document: "name: open"}, engine.KindDenied},
		{member, engine.PutPolicy{Name: "x", Document: "name: x"}, engine.KindDenied},
		{engine.Principal{OrganizationID: org}, engine.PutPolicy{Name: "x", Document: "name: x"}, engine.KindDenied},
		{owner(), engine.PutPolicy{Name: "x", Document: "name: y"}, engine.KindInvalid},
		{owner(), engine.PutPolicy{Name: "x", Document: "name: x\negress: {default: maybe}"}, engine.KindInvalid},
		{owner(), engine.PutPolicy{Name: "x", Document: ""}, engine.KindInvalid},
		{owner(), engine.PutPolicy{Name: "build", Document: "name: build", Revision: &revision}, engine.KindConflict},
		{owner(), engine.PutPolicy{Name: "x", Document: "name: x\negress: {rules: [{name: r, allow: ['${UNKNOWN}']}]}"}, engine.KindUnavailable},
	} {
		_, err := r.Policies().Put(t.Context(), tt.p, tt.q)
		wantKind(t, err, tt.kind)
	}
	if p, err := r.Policies().Policy(t.Context(), org, "build"); err != nil || p.Revision != 1 {
		t.Errorf("got %+v, %v", p, err)
	}
	_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Policy: "none"})
	wantKind(t, err, engine.KindInvalid)
	_, err = r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: "other", Policy: "build"})
	wantKind(t, err, engine.KindInvalid)
}

// The hosts of presets come from the operator, else from the tools of the
// default snapshot, asked once and without a network.
func TestPolicyHosts(t *testing.T) {
	var ran []string
	r, _ := newToolboxRig(t, func(w http.ResponseWriter, q *http.Request) {
		var x wire.ExecuteRequest
		_ = json.NewDecoder(q.Body).Decode(&x)
		ran = append(ran, x.Command)
		_ = json.NewEncoder(w).Encode(wire.ExecuteResponse{Stdout: "PYTHON_INDEX_HOSTS https://index.example.com/simple\n" +
			"PYTHON_INDEX_HOSTS https://files.example.com\nPYTHON_INDEX_HOSTS http://plain.example.com/\nPYTHON_INDEX_HOSTS https://192.0.2.1/\nOTHER https://x.example.com\n"})
	})
	var network []engine.NetworkPolicy
	r.runner.Hook("Remove", func(context.Context) error {
		instances, _ := r.runner.Held()
		for id := range instances {
			network = append(network, r.runner.Policy(id))
		}
		return nil
	})
	for range 2 {
		sb := r.create("", under("python-packages"))
		for host, want := range map[string]bool{"index.example.com": true, "files.example.com": true, "plain.example.com": false, "x.example.com": false} {
			if got := r.allows(sb.ID, host); got != want {
				t.Errorf("%s is allowed: %v", host, got)
			}
		}
	}
	if len(ran) != 1 || len(network) != 1 || !network[0].BlockAll {
		t.Errorf("ran %d scripts under %+v", len(ran), network)
	}
	if instances, _ := r.runner.Held(); len(instances) != 2 {
		t.Errorf("left: %v", instances)
	}
	// The tools say nothing of this one.
	_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Policy: "node-packages"})
	wantKind(t, err, engine.KindUnavailable)

	set := newRig(t, func(c *core.Config) {
		c.PolicyHosts = map[string][]string{policies.NodeIndexHosts: {"registry.example.com"}}
	})
	if sb := set.create("", under("node-packages")); !set.allows(sb.ID, "registry.example.com") {
		t.Errorf("got %+v", set.runner.Policy(sb.ID))
	}
}

func TestPolicyTestTable(t *testing.T) {
	r := newRig(t)
	r.put("build", mirrors)
	got, err := r.Policies().Test(t.Context(), org, "build", "cases: [{lookup: a.example.com, expect: allow, rule: mirrors}, {lookup: c.example.com, expect: allow}]")
	r.ok(err)
	if got.Cases != 2 || len(got.Failures) != 1 || !strings.Contains(got.Failures[0], "c.example.com") {
		t.Errorf("got %+v", got)
	}
	_, err = r.Policies().Test(t.Context(), org, "build", "cases: []")
	wantKind(t, err, engine.KindInvalid)
	_, err = r.Policies().Test(t.Context(), org, "none", "cases: [{lookup: a, expect: deny}]")
	wantKind(t, err, engine.KindNotFound)
	all, err := r.Policies().List(t.Context(), org)
	r.ok(err)
	if len(all) != 7 || !slices.IsSortedFunc(all, func(a, b engine.NamedPolicy) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("got %+v", all)
	}
}

// Who holds a key that is bound to a policy is told of what is under it alone.
func TestBoundKeyWatches(t *testing.T) {
	r := newRig(t)
	ch, err := r.Events().Watch(bound(t.Context(), "offline"), org)
	r.ok(err)
	r.create("other")
	r.create("mine", under("offline"))
	for {
		select {
		case e := <-ch:
			if e.Sandbox == nil || e.Sandbox.Name != "mine" {
				t.Fatalf("told of %+v", e)
			}
			if e.Sandbox.State == engine.StateStarted {
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("told of nothing")
		}
	}
}
