package engine

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/policies"
)

// LabelPolicy is the label that names the policy of a new sandbox, for clients
// that cannot send the field. It counts when the sandbox is made; a later
// change of the label changes nothing.
const LabelPolicy = "atoll.policy"

// NamedPolicy is a policy of an organization, or of the library that every
// server has.
type NamedPolicy struct {
	OrganizationID string // empty for the library's
	Name           string
	Description    string
	Document       string // YAML, as it was put
	Revision       int64  // counts the changes from 1; 0 for the library's
	Library        bool   // can be read and attached, not changed
	CreatedBy      string // id of the user; empty for the library's, as the rest
	UpdatedBy      string
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// PutPolicy makes or replaces a policy.
type PutPolicy struct {
	Name     string
	Document string
	// Revision is the one that the change was made from: 0 for a policy that
	// must not exist yet. Another is a conflict. nil replaces whatever is there.
	Revision *int64
}

// PolicyResult is what testing a policy found.
type PolicyResult struct {
	Cases    int
	Failures []string // one line each; empty: all went as expected
}

// SandboxPolicy is what holds for a sandbox.
type SandboxPolicy struct {
	Sandbox Sandbox
	Policy  *NamedPolicy // nil: the sandbox is under none
}

// PolicyDecision answers one question about a sandbox.
type PolicyDecision struct {
	policies.Decision
	Policy string // whose rule it is: a policy's name, or "network" for the sandbox's own lists
	Text   string // the question and its answer as a line
}

// Policies is the policies of organizations. The gateway calls it. Whose key is
// bound to a policy changes none.
type Policies interface {
	// List returns the library and the organization's own, by name.
	List(ctx context.Context, organizationID string) ([]NamedPolicy, error)
	Policy(ctx context.Context, organizationID, name string) (NamedPolicy, error)
	// Put is for owners. Sandboxes under the policy follow at once.
	Put(ctx context.Context, p Principal, req PutPolicy) (NamedPolicy, error)
	// Delete is for owners. A policy that is in use is a conflict, which names
	// what uses it.
	Delete(ctx context.Context, p Principal, name string) error
	// Test decides the cases of a table, in YAML. The policy that the table
	// names does not matter.
	Test(ctx context.Context, organizationID, name, table string) (PolicyResult, error)
	// Of returns the policy of a sandbox.
	Of(ctx context.Context, ref SandboxRef) (SandboxPolicy, error)
	// Explain decides a question as policies.ParseQuestion reads it.
	Explain(ctx context.Context, ref SandboxRef, kind, subject string) (PolicyDecision, error)
}

// ExecFileRules says which programs may run in a sandbox and which files may
// be read and written there. It is carried to the runner.
type ExecFileRules struct {
	Policy string         `json:"policy"` // name, for denials
	Exec   policies.Paths `json:"exec"`
	Read   policies.Paths `json:"read"`
	Write  policies.Paths `json:"write"`
	// BestEffort lets the sandbox run where the host cannot enforce them.
	BestEffort bool `json:"bestEffort,omitempty"`
}

// RulesOf returns what a policy says of programs and files; nil: nothing.
func RulesOf(p *policies.Policy) *ExecFileRules {
	if p == nil || !p.Confines() {
		return nil
	}
	return &ExecFileRules{Policy: p.Name, Exec: p.Exec, Read: p.Files.Read, Write: p.Files.Write, BestEffort: p.BestEffort}
}
