package wire

import (
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Policy is a policy by name.
type Policy struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Document    string `json:"document" doc:"YAML"`
	Revision    int64  `json:"revision" doc:"counts the changes from 1; 0 for the library's"`
	Library     bool   `json:"library" doc:"of the library that every server has; cannot be changed"`
	CreatedBy   string `json:"createdBy,omitempty" doc:"id of the user"`
	UpdatedBy   string `json:"updatedBy,omitempty"`
	CreatedAt   string `json:"createdAt,omitempty"`
	UpdatedAt   string `json:"updatedAt,omitempty"`
}

// FromPolicy makes the body for p.
func FromPolicy(p engine.NamedPolicy) Policy {
	return Policy{
		Name: p.Name, Description: p.Description, Document: p.Document, Revision: p.Revision, Library: p.Library,
		CreatedBy: p.CreatedBy, UpdatedBy: p.UpdatedBy, CreatedAt: Time(p.CreatedAt), UpdatedAt: Time(p.UpdatedAt),
	}
}

// Policy returns the engine's policy that d was made of.
func (d Policy) Policy() engine.NamedPolicy {
	return engine.NamedPolicy{
		Name: d.Name, Description: d.Description, Document: d.Document, Revision: d.Revision, Library: d.Library,
		CreatedBy: d.CreatedBy, UpdatedBy: d.UpdatedBy, CreatedAt: ParseTime(d.CreatedAt), UpdatedAt: ParseTime(d.UpdatedAt),
	}
}

// PutPolicy is the body that makes or replaces a policy.
type PutPolicy struct {
	Document string `json:"document" doc:"YAML; its name is the one in the path"`
	Revision *int64 `json:"revision,omitempty" doc:"that the change was made from, 0 for a new policy; another is a conflict"`
}

// PolicyTable is the body that tests a policy.
type PolicyTable struct {
	Table string `json:"table" doc:"YAML: cases with what each must come to"`
}

// PolicyResult is what testing a policy found.
type PolicyResult struct {
	Cases    int      `json:"cases"`
	Failures []string `json:"failures" doc:"one line for each case that went otherwise"`
}

// AttachPolicy is the body that puts a sandbox under a policy.
type AttachPolicy struct {
	Policy string `json:"policy" doc:"name; empty takes the sandbox out of its policy"`
}

// SandboxPolicy is what holds for a sandbox: its policy, and beside it its own
// lists. What either denies is denied.
type SandboxPolicy struct {
	Policy           *Policy `json:"policy" doc:"null: the sandbox is under none"`
	NetworkBlockAll  bool    `json:"networkBlockAll"`
	NetworkAllowList string  `json:"networkAllowList,omitempty"`
	DomainAllowList  string  `json:"domainAllowList,omitempty"`
}

// FromSandboxPolicy makes the body for p.
func FromSandboxPolicy(p engine.SandboxPolicy) SandboxPolicy {
	n := p.Sandbox.Network
	d := SandboxPolicy{
		NetworkBlockAll: n.BlockAll, NetworkAllowList: strings.Join(n.AllowCIDRs, ","), DomainAllowList: strings.Join(n.AllowDomains, ","),
	}
	if p.Policy != nil {
		named := FromPolicy(*p.Policy)
		d.Policy = &named
	}
	return d
}

// SandboxPolicy returns the engine's that d was made of, as far as d tells.
func (d SandboxPolicy) SandboxPolicy() engine.SandboxPolicy {
	var out engine.SandboxPolicy
	out.Sandbox.Network = engine.NetworkPolicy{
		BlockAll: d.NetworkBlockAll, AllowCIDRs: SplitList(d.NetworkAllowList), AllowDomains: SplitList(d.DomainAllowList),
	}
	if d.Policy != nil {
		named := d.Policy.Policy()
		out.Policy, out.Sandbox.Policy = &named, named.Name
	}
	return out
}

// PolicyDecision answers one question.
type PolicyDecision struct {
	Allow  bool   `json:"allow"`
	Policy string `json:"policy" doc:"whose rule decided; network stands for the sandbox's own lists"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
	Text   string `json:"text" doc:"all of it as a line"`
}

// FromPolicyDecision makes the body for d.
func FromPolicyDecision(d engine.PolicyDecision) PolicyDecision {
	return PolicyDecision{Allow: d.Allow, Policy: d.Policy, Rule: d.Rule, Reason: d.Reason, Text: d.Text}
}

// Decision returns the engine's decision that d was made of.
func (d PolicyDecision) Decision() engine.PolicyDecision {
	return engine.PolicyDecision{Decision: policies.Decision{Allow: d.Allow, Rule: d.Rule, Reason: d.Reason}, Policy: d.Policy, Text: d.Text}
}
