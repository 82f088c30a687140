package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerPolicies() {
	handle(a, "GET", "/policies", "List policies: the library's and the organization's own", a.policies)
	handle(a, "GET", "/policies/{name}", "One policy", a.policy)
	handle(a, "PUT", "/policies/{name}", "Make or replace a policy; sandboxes under it follow at once", a.putPolicy)
	handleEmpty(a, "DELETE", "/policies/{name}", "Delete a policy that nothing uses", http.StatusNoContent, a.deletePolicy)
	handle(a, "POST", "/policies/{name}/test", "Decide a table of cases", a.testPolicy)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/policy", "What holds for a sandbox", a.sandboxPolicy)
	handle(a, "PUT", "/sandbox/{sandboxIdOrName}/policy", "Put a sandbox under a policy, or take it out of one", a.attachPolicy)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/policy/explain", "Decide one question about a sandbox, with the rule that decides", a.explainPolicy)
}

// PolicyPath names a policy.
type PolicyPath struct {
	Name string `path:"name" maxLength:"63"`
}

func (a *API) policies(ctx context.Context, _ *struct{}) ([]wire.Policy, error) {
	all, err := a.Services.Policies.List(ctx, auth.Organization(ctx))
	return each(all, wire.FromPolicy), err
}

func (a *API) policy(ctx context.Context, in *PolicyPath) (wire.Policy, error) {
	p, err := a.Services.Policies.Policy(ctx, auth.Organization(ctx), in.Name)
	return wire.FromPolicy(p), err
}

type putPolicyInput struct {
	PolicyPath
	Body wire.PutPolicy
}

func (a *API) putPolicy(ctx context.Context, in *putPolicyInput) (wire.Policy, error) {
	p, err := a.Services.Policies.Put(ctx, caller(ctx), engine.PutPolicy{Name: in.Name, Document: in.Body.Document, Revision: in.Body.Revision})
	return wire.FromPolicy(p), err
}

func (a *API) deletePolicy(ctx context.Context, in *PolicyPath) error {
	return a.Services.Policies.Delete(ctx, caller(ctx), in.Name)
}

type testPolicyInput struct {
	PolicyPath
	Body wire.PolicyTable
}

func (a *API) testPolicy(ctx context.Context, in *testPolicyInput) (wire.PolicyResult, error) {
	r, err := a.Services.Policies.Test(ctx, auth.Organization(ctx), in.Name, in.Body.Table)
	return wire.PolicyResult(r), err
}

func (a *API) sandboxPolicy(ctx context.Context, in *SandboxPath) (wire.SandboxPolicy, error) {
	p, err := a.Services.Policies.Of(ctx, ref(ctx, in.Sandbox))
	return wire.FromSandboxPolicy(p), err
}

type attachPolicyInput struct {
	SandboxPath
	Body wire.AttachPolicy
}

func (a *API) attachPolicy(ctx context.Context, in *attachPolicyInput) (wire.Sandbox, error) {
	return a.update(ctx, in.Sandbox, engine.UpdateSandbox{Policy: &in.Body.Policy})
}

type explainPolicyInput struct {
	SandboxPath
	Question string `query:"question" default:"connect" doc:"connect, lookup, tool, exec, read, write or secret"`
	Subject  string `query:"subject" doc:"what it is about, as example.com or example.com:443/tcp"`
}

func (a *API) explainPolicy(ctx context.Context, in *explainPolicyInput) (wire.PolicyDecision, error) {
	d, err := a.Services.Policies.Explain(ctx, ref(ctx, in.Sandbox), in.Question, in.Subject)
	return wire.FromPolicyDecision(d), err
}
