package core

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/policies"
	"github.com/atoll-sh/atoll/policies/library"
)

// This file is what it means for a sandbox to be under a policy.

// reachable is engine.Reaches for whoever is behind a call.
func reachable(ctx context.Context, sb *store.Sandbox) error {
	return engine.Reaches(engine.CallerOf(ctx).Principal, sb.Sandbox)
}

// choosePolicy returns the policy of a new sandbox: the one that the caller's
// key is bound to, else the one that the request names, else the one of what it
// is made from.
func choosePolicy(ctx context.Context, req engine.CreateSandbox, inherited string) (string, error) {
	label := req.Labels[engine.LabelPolicy]
	if req.Policy != "" && label != "" && req.Policy != label {
		return "", invalid("policy is %s, and label %s is %s", quote(req.Policy), engine.LabelPolicy, quote(label)).WithHint("set one of them")
	}
	named := cmp.Or(req.Policy, label)
	bound := engine.CallerOf(ctx).Principal.Policy
	if bound == "" {
		return cmp.Or(named, inherited), nil
	}
	for _, other := range []string{named, inherited} {
		if other != "" && other != bound {
			return "", engine.Errorf(engine.KindDenied, "this API key is bound to policy %s and cannot make a sandbox under %s", bound, quote(other)).
				WithHint("leave the policy out, and use a snapshot that is under the key's own")
		}
	}
	return bound, nil
}

// inheritable returns the policy that sandboxes made from a snapshot are under.
// Another organization's own policies mean nothing here.
func inheritable(sn engine.Snapshot, organizationID string) string {
	if _, general := library.Document(sn.Policy); general || sn.OrganizationID == organizationID {
		return sn.Policy
	}
	return ""
}

// govern puts a new sandbox under its policy, if any. What the request left open
// is made to fit; what it asks for and may not have is denied.
func (c *Core) govern(ctx context.Context, b *birth, req engine.CreateSandbox, inherited string) error {
	name, err := choosePolicy(ctx, req, inherited)
	if err != nil || name == "" {
		return err
	}
	row := &b.row
	row.Policy = name
	p, err := c.policyFor(ctx, row.OrganizationID, row.Policy)
	if err != nil {
		return err
	}
	fit(row, p, req, c.Lifecycle.AutoStop)
	if most := p.Resources.DiskMiB; most > 0 && req.Resources.DiskMiB == 0 && b.disk == "" {
		row.Resources.DiskMiB = min(row.Resources.DiskMiB, most) // a saved disk cannot shrink
	}
	return firstError(permits(p, ask(row, 0)), c.permitsSecrets(ctx, row, p))
}

// policyFor is document for a policy that a request names.
func (c *Core) policyFor(ctx context.Context, organizationID, name string) (*policies.Policy, error) {
	p, err := c.document(ctx, organizationID, name)
	if engine.KindOf(err) == engine.KindNotFound {
		return nil, invalid("policy %s does not exist", quote(name)).WithHint("list the policies that there are")
	}
	return p, err
}

// fit lowers defaults to what a policy allows.
func fit(row *store.Sandbox, p *policies.Policy, req engine.CreateSandbox, autoStop time.Duration) {
	most := p.Resources
	if req.Resources.CPU == 0 && most.CPU > 0 {
		row.Resources.CPU = min(row.Resources.CPU, most.CPU)
	}
	if req.Resources.MemoryMiB == 0 && most.MemoryMiB > 0 {
		row.Resources.MemoryMiB = min(row.Resources.MemoryMiB, most.MemoryMiB)
	}
	if req.Resources.PIDs == 0 && most.PIDs > 0 {
		row.Resources.PIDs = min(cmp.Or(row.Resources.PIDs, most.PIDs), most.PIDs)
	}
	l := &row.Lifecycle
	l.TTL = cmp.Or(l.TTL, p.Lifecycle.TTL)
	if most := p.Lifecycle.AutoStop; most > 0 && (req.Lifecycle == nil || l.AutoStop == autoStop) && (l.AutoStop == 0 || l.AutoStop > most) {
		l.AutoStop = most
	}
}

// ask is what a sandbox asks of its policy, beside others that exist.
func ask(row *store.Sandbox, others int) policies.SandboxRequest {
	r := row.Resources
	return policies.SandboxRequest{
		Resources: policies.Resources{CPU: r.CPU, MemoryMiB: r.MemoryMiB, DiskMiB: r.DiskMiB, PIDs: r.PIDs, Sandboxes: others},
		Lifecycle: policies.Lifecycle{AutoStop: row.Lifecycle.AutoStop, TTL: row.Lifecycle.TTL},
	}
}

// permits makes an error of a decision to deny.
func permits(p *policies.Policy, q policies.Request) error {
	d := policies.Decide(p, q)
	if d.Allow {
		return nil
	}
	return engine.Errorf(engine.KindDenied, "denied by %s of policy %s: %s", d.Rule, p.Name, d.Reason).
		WithHint("ask for less, or for another policy")
}

// permitsSecrets denies secrets that a policy does not let a sandbox have.
func (c *Core) permitsSecrets(ctx context.Context, row *store.Sandbox, p *policies.Policy) error {
	rows, err := c.secretsOf(ctx, row)
	if err != nil {
		return err
	}
	for _, sec := range rows {
		if d := policies.Decide(p, policies.SecretRequest{Name: sec.Name}); !d.Allow {
			return engine.Errorf(engine.KindDenied, "secret %s: denied by %s of policy %s: %s", sec.Name, d.Rule, p.Name, d.Reason)
		}
	}
	return nil
}

// secretsOf returns the secrets that are attached to a sandbox.
func (c *Core) secretsOf(ctx context.Context, sb *store.Sandbox) ([]store.Secret, error) {
	if len(sb.Secrets) == 0 {
		return nil, nil
	}
	return c.Store.SecretsByID(ctx, sb.OrganizationID, slices.Compact(slices.Sorted(maps.Values(sb.Secrets))))
}

// allowedSecrets is secretsOf without those that the sandbox's policy has come
// to deny: they are not sent anywhere.
func (c *Core) allowedSecrets(ctx context.Context, sb *store.Sandbox) ([]store.Secret, error) {
	rows, err := c.secretsOf(ctx, sb)
	if err != nil || len(rows) == 0 || sb.Policy == "" {
		return rows, err
	}
	p, err := c.document(ctx, sb.OrganizationID, sb.Policy)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r store.Secret) bool {
		return !policies.Decide(p, policies.SecretRequest{Name: r.Name}).Allow
	}), nil
}

// withinPolicy refuses one more sandbox than a policy allows. Others wait until
// end is called, so that two do not take the last place.
func (c *Core) withinPolicy(ctx context.Context, row *store.Sandbox) (end func(), err error) {
	if row.Policy == "" {
		return func() {}, nil
	}
	p, err := c.document(ctx, row.OrganizationID, row.Policy)
	if err != nil {
		return nil, err
	}
	if p.Resources.Sandboxes == 0 {
		return func() {}, permits(p, ask(row, 0))
	}
	end, err = c.ops.keys.lock(ctx, "policy\x00"+row.OrganizationID+"\x00"+row.Policy)
	if err != nil {
		return nil, err
	}
	n, err := c.Store.CountPolicySandboxes(ctx, row.OrganizationID, row.Policy)
	if err == nil {
		err = permits(p, ask(row, n))
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// permitsChange asks the policy of a sandbox about what it would become. Only
// what changes is asked about: the rest may be from before the policy said so.
func (c *Core) permitsChange(ctx context.Context, sb *store.Sandbox, change func(*store.Sandbox)) error {
	row := *sb
	change(&row)
	asked, had := ask(&row, 0), ask(sb, 0)
	if sb.Policy == "" || asked == had {
		return nil
	}
	p, err := c.document(ctx, sb.OrganizationID, sb.Policy)
	if err != nil {
		return err
	}
	if asked.Resources == had.Resources {
		asked.Resources = policies.Resources{}
	}
	if asked.Lifecycle.AutoStop == had.Lifecycle.AutoStop {
		asked.Lifecycle.AutoStop = p.Lifecycle.AutoStop
	}
	if asked.Lifecycle.TTL == had.Lifecycle.TTL {
		asked.Lifecycle.TTL = p.Lifecycle.TTL
	}
	return permits(p, asked)
}

// force is what a runner makes hold for a sandbox.
type force struct {
	network engine.NetworkPolicy
	rules   *engine.ExecFileRules
}

// forceOf returns what holds for a sandbox: its own lists, and its policy.
func (c *Core) forceOf(ctx context.Context, sb *store.Sandbox) (force, error) {
	f := force{network: sb.EnforcedNetwork(c.Now())}
	if sb.Policy == "" {
		return f, nil
	}
	p, err := c.document(ctx, sb.OrganizationID, sb.Policy)
	if err != nil {
		return force{}, err
	}
	f.network.Policy = &policies.Policy{Name: p.Name, Egress: p.Egress}
	f.rules = engine.RulesOf(p)
	return f, nil
}

// apply has the runner make f hold. The rules come first: they are what it may
// refuse.
func (c *Core) apply(ctx context.Context, sb *store.Sandbox, f force) error {
	r := c.Cluster.Client(sb.Runner)
	if err := r.SetRules(ctx, sb.ID, f.rules); err != nil {
		return err
	}
	return r.SetNetwork(ctx, sb.ID, f.network)
}
