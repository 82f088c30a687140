package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Policies returns the server's policies.
func (c *Client) Policies() engine.Policies { return policyService{c} }

type policyService struct{ c *Client }

func policyPath(name string) (string, error) {
	if name == "" {
		return "", engine.Errorf(engine.KindInvalid, "the name of a policy is missing")
	}
	return "/api/policies/" + escape(name), nil
}

func (s policyService) List(ctx context.Context, _ string) ([]engine.NamedPolicy, error) {
	var all []wire.Policy
	if err := s.c.do(ctx, call{method: http.MethodGet, path: "/api/policies", out: &all}); err != nil {
		return nil, err
	}
	out := make([]engine.NamedPolicy, len(all))
	for i, d := range all {
		out[i] = d.Policy()
	}
	return out, nil
}

func (s policyService) Policy(ctx context.Context, _, name string) (engine.NamedPolicy, error) {
	path, err := policyPath(name)
	if err != nil {
		return engine.NamedPolicy{}, err
	}
	var d wire.Policy
	err = s.c.do(ctx, call{method: http.MethodGet, path: path, out: &d})
	return d.Policy(), err
}

func (s policyService) Put(ctx context.Context, _ engine.Principal, req engine.PutPolicy) (engine.NamedPolicy, error) {
	path, err := policyPath(req.Name)
	if err != nil {
		return engine.NamedPolicy{}, err
	}
	var d wire.Policy
	err = s.c.do(ctx, call{method: http.MethodPut, path: path, in: wire.PutPolicy{Document: req.Document, Revision: req.Revision}, out: &d})
	return d.Policy(), err
}

func (s policyService) Delete(ctx context.Context, _ engine.Principal, name string) error {
	path, err := policyPath(name)
	if err != nil {
		return err
	}
	return s.c.do(ctx, call{method: http.MethodDelete, path: path})
}

func (s policyService) Test(ctx context.Context, _, name, table string) (engine.PolicyResult, error) {
	path, err := policyPath(name)
	if err != nil {
		return engine.PolicyResult{}, err
	}
	var d wire.PolicyResult
	err = s.c.do(ctx, call{method: http.MethodPost, path: path + "/test", in: wire.PolicyTable{Table: table}, out: &d})
	return engine.PolicyResult(d), err
}

func (s policyService) Of(ctx context.Context, ref engine.SandboxRef) (engine.SandboxPolicy, error) {
	path, err := sandboxPath(ref, "/policy")
	if err != nil {
		return engine.SandboxPolicy{}, err
	}
	var d wire.SandboxPolicy
	err = s.c.do(ctx, call{method: http.MethodGet, path: path, out: &d})
	return d.SandboxPolicy(), err
}

func (s policyService) Explain(ctx context.Context, ref engine.SandboxRef, kind, subject string) (engine.PolicyDecision, error) {
	path, err := sandboxPath(ref, "/policy/explain")
	if err != nil {
		return engine.PolicyDecision{}, err
	}
	var d wire.PolicyDecision
	err = s.c.do(ctx, call{method: http.MethodGet, path: path, query: url.Values{"question": {kind}, "subject": {subject}}, out: &d})
	return d.Decision(), err
}
