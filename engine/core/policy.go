package core

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/policies"
	"github.com/atoll-sh/atoll/policies/library"
)

// PolicyStore keeps policies.
type PolicyStore interface {
	Policies(ctx context.Context, organizationID string) ([]engine.NamedPolicy, error)
	Policy(ctx context.Context, organizationID, name string) (engine.NamedPolicy, error)
	PutPolicy(ctx context.Context, p engine.NamedPolicy, expect *int64) (engine.NamedPolicy, error)
	DeletePolicy(ctx context.Context, organizationID, name string) (bool, error)
	PolicyUse(ctx context.Context, organizationID, name string) (store.PolicyUse, error)
	CountPolicySandboxes(ctx context.Context, organizationID, name string) (int, error)
}

const maxPolicies = 1000 // of one organization

type policyService struct{ *Core }

// Policies is the policies of organizations.
func (c *Core) Policies() engine.Policies { return policyService{c} }

// List returns the library and the organization's own policies.
func (s policyService) List(ctx context.Context, organizationID string) ([]engine.NamedPolicy, error) {
	all, err := s.Store.Policies(ctx, organizationID)
	if err != nil {
		return nil, public(err)
	}
	for _, name := range library.Names() {
		if p, ok := ofLibrary(name); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b engine.NamedPolicy) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Policy returns one policy.
func (s policyService) Policy(ctx context.Context, organizationID, name string) (engine.NamedPolicy, error) {
	p, err := s.named(ctx, organizationID, name)
	return p, public(err)
}

func ofLibrary(name string) (engine.NamedPolicy, bool) {
	text, ok := library.Document(name)
	if !ok {
		return engine.NamedPolicy{}, false
	}
	p, ok := library.Policy(name)
	if !ok {
		return engine.NamedPolicy{}, false
	}
	return engine.NamedPolicy{Name: name, Description: p.Description, Document: string(text), Library: true}, true
}

// named finds a policy by name. The library's names are never an organization's.
func (c *Core) named(ctx context.Context, organizationID, name string) (engine.NamedPolicy, error) {
	if p, ok := ofLibrary(name); ok {
		return p, nil
	}
	if name == "" {
		return engine.NamedPolicy{}, invalid("policy name is empty")
	}
	return c.Store.Policy(ctx, organizationID, name)
}

// document returns a policy by name with its variables filled in.
func (c *Core) document(ctx context.Context, organizationID, name string) (*policies.Policy, error) {
	named, err := c.named(ctx, organizationID, name)
	if err != nil {
		return nil, err
	}
	p, err := c.documents.parse(named.Document)
	if err != nil {
		return nil, engine.Errorf(engine.KindInternal, "policy %q cannot be read", name).Wrap(err)
	}
	return c.expand(ctx, p)
}

// expand fills in the variables of a policy.
func (c *Core) expand(ctx context.Context, p *policies.Policy) (*policies.Policy, error) {
	names := p.Variables()
	if len(names) == 0 {
		return p, nil
	}
	values, why := c.policyHosts(ctx, names)
	full, err := p.Expand(values)
	if err == nil {
		return full, nil
	}
	e := engine.Errorf(engine.KindUnavailable, "policy %q: %v", p.Name, err).Wrap(why)
	return nil, e.WithHint("name the hosts to the server in ATOLL_POLICY_HOSTS, as %s=a.example.com", names[0])
}

// documents remembers policies that were read, by their text.
type documents struct {
	mu sync.Mutex
	m  map[string]*policies.Policy
}

func (d *documents) parse(text string) (*policies.Policy, error) {
	d.mu.Lock()
	p := d.m[text]
	d.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := policies.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil || len(d.m) >= 100 {
		d.m = map[string]*policies.Policy{}
	}
	d.m[text] = p
	return p, nil
}

// Put stores a policy and has the sandboxes under it follow.
func (s policyService) Put(ctx context.Context, p engine.Principal, req engine.PutPolicy) (engine.NamedPolicy, error) {
	if err := s.mayChange(p, req.Name); err != nil {
		return engine.NamedPolicy{}, err
	}
	doc, err := policies.Parse([]byte(req.Document))
	if err != nil {
		return engine.NamedPolicy{}, invalid("the document is not sound: %v", err).WithHint("atoll policy check reads a file and names its faults")
	}
	if doc.Name != req.Name {
		return engine.NamedPolicy{}, invalid("the document is of policy %q", doc.Name).WithHint("give it the name that it is put under")
	}
	if _, err := s.expand(ctx, doc); err != nil {
		return engine.NamedPolicy{}, err
	}
	if err := s.roomForPolicy(ctx, p.OrganizationID, req.Name); err != nil {
		return engine.NamedPolicy{}, public(err)
	}
	if err := s.followable(ctx, p.OrganizationID, doc); err != nil {
		return engine.NamedPolicy{}, public(err)
	}
	stored, err := s.Store.PutPolicy(ctx, engine.NamedPolicy{
		OrganizationID: p.OrganizationID, Name: doc.Name, Description: doc.Description, Document: req.Document,
		UpdatedBy: p.UserID, UpdatedAt: s.Now().UTC(),
	}, req.Revision)
	if err != nil {
		return engine.NamedPolicy{}, public(err)
	}
	s.principals.forget()
	s.follow(ctx, p.OrganizationID, doc.Name)
	return stored, nil
}

// mayChange lets owners change policies that are not the library's.
func (s policyService) mayChange(p engine.Principal, name string) error {
	if err := engine.Authorize(p, engine.PermissionOwner, ""); err != nil {
		return err
	}
	if err := engine.Unbound(p, "change policies"); err != nil {
		return err
	}
	if !p.Admin && p.Role != engine.RoleOwner {
		return engine.Errorf(engine.KindDenied, "only owners of the organization change policies").WithHint("ask one of them")
	}
	if _, ok := library.Document(name); ok {
		return engine.Errorf(engine.KindDenied, "policy %q is of the library and stays as it is", name).
			WithHint("copy it under another name and change that")
	}
	return nil
}

func (s policyService) roomForPolicy(ctx context.Context, organizationID, name string) error {
	all, err := s.Store.Policies(ctx, organizationID)
	if err != nil || len(all) < maxPolicies || slices.ContainsFunc(all, func(p engine.NamedPolicy) bool { return p.Name == name }) {
		return err
	}
	return engine.Errorf(engine.KindExhausted, "the organization has %d policies", len(all)).WithHint("delete those that nothing uses")
}

// Delete removes a policy that nothing is under.
func (s policyService) Delete(ctx context.Context, p engine.Principal, name string) error {
	if err := s.mayChange(p, name); err != nil {
		return err
	}
	removed, err := s.Store.DeletePolicy(ctx, p.OrganizationID, name)
	if err != nil || removed {
		return public(err)
	}
	if _, err := s.Store.Policy(ctx, p.OrganizationID, name); err != nil {
		return public(err)
	}
	use, err := s.Store.PolicyUse(ctx, p.OrganizationID, name)
	if err != nil {
		return public(err)
	}
	return inUse(name, use)
}

// shownUsers bounds how many names of each kind a message tells.
const shownUsers = 20

func inUse(name string, use store.PolicyUse) error {
	sandboxes := make([]string, len(use.Sandboxes))
	for i, sb := range use.Sandboxes {
		sandboxes[i] = sb.Name
	}
	all := map[string][]string{"sandboxes": sandboxes, "snapshots": use.Snapshots, "API keys": use.Keys}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		names := all[kind]
		if len(names) == 0 {
			continue
		}
		more := ""
		if len(names) > shownUsers {
			names, more = names[:shownUsers], ", …"
		}
		parts = append(parts, kind+" "+strings.Join(names, ", ")+more)
	}
	return engine.Errorf(engine.KindConflict, "policy %q is in use by %s", name, strings.Join(parts, "; ")).
		WithHint("put them under another policy or delete them first")
}

// Test decides a table of cases.
func (s policyService) Test(ctx context.Context, organizationID, name, table string) (engine.PolicyResult, error) {
	named, err := s.named(ctx, organizationID, name)
	if err != nil {
		return engine.PolicyResult{}, public(err)
	}
	t, err := policies.ParseTable([]byte(table))
	if err != nil {
		return engine.PolicyResult{}, invalid("the table is not sound: %v", err)
	}
	p, err := s.documents.parse(named.Document)
	if err != nil {
		return engine.PolicyResult{}, public(err)
	}
	if len(t.Variables) == 0 {
		p, err = s.expand(ctx, p)
	} else if p, err = p.Expand(t.Variables); err != nil {
		err = invalid("%v", err).WithHint("name its hosts below variables in the table")
	}
	if err != nil {
		return engine.PolicyResult{}, public(err)
	}
	r := engine.PolicyResult{Cases: len(t.Cases), Failures: []string{}}
	for _, f := range policies.Check(p, t.Cases) {
		r.Failures = append(r.Failures, f.String())
	}
	return r, nil
}

// Of returns what holds for a sandbox.
func (s policyService) Of(ctx context.Context, ref engine.SandboxRef) (engine.SandboxPolicy, error) {
	sb, err := s.find(ctx, ref)
	if err != nil {
		return engine.SandboxPolicy{}, public(err)
	}
	out := engine.SandboxPolicy{Sandbox: s.view(&sb)}
	if sb.Policy == "" {
		return out, nil
	}
	p, err := s.named(ctx, sb.OrganizationID, sb.Policy)
	out.Policy = &p
	return out, public(err)
}

// Explain decides a question about a sandbox: by its policy first, then, for
// the network, by its own lists. The first that denies is told.
func (s policyService) Explain(ctx context.Context, ref engine.SandboxRef, kind, subject string) (engine.PolicyDecision, error) {
	sb, err := s.find(ctx, ref)
	if err != nil {
		return engine.PolicyDecision{}, public(err)
	}
	q, err := policies.ParseQuestion(kind, subject)
	if err != nil {
		return engine.PolicyDecision{}, invalid("%v", err)
	}
	var asked []*policies.Policy
	if sb.Policy != "" {
		p, err := s.document(ctx, sb.OrganizationID, sb.Policy)
		if err != nil {
			return engine.PolicyDecision{}, public(err)
		}
		asked = append(asked, p)
	}
	if kind == "connect" || kind == "lookup" {
		n := sb.Network
		lists, err := policies.FromLists(n.BlockAll, n.AllowCIDRs, n.AllowDomains)
		if err != nil {
			return engine.PolicyDecision{}, invalid("%v", err)
		}
		asked = append(asked, lists)
	}
	for _, p := range asked {
		if d := policies.Decide(p, q); !d.Allow {
			return engine.PolicyDecision{Decision: d, Policy: p.Name, Text: policies.Explain(p, q)}, nil
		}
	}
	if len(asked) == 0 {
		return engine.PolicyDecision{
			Decision: policies.Decision{Allow: true, Rule: "default", Reason: "the sandbox is under no policy"},
			Text:     kind + " " + subject + ": allowed: the sandbox is under no policy",
		}, nil
	}
	return engine.PolicyDecision{Decision: policies.Decide(asked[0], q), Policy: asked[0].Name, Text: policies.Explain(asked[0], q)}, nil
}
