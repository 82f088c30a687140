package mcp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
	"github.com/atoll-sh/atoll/policies"
)

// scope is what one request may see: the sets it asked for within what the
// server offers, and whether it may change anything.
type scope struct {
	sets      []string
	byDefault bool // sets were not asked for
	readOnly  bool
}

func (sc scope) offers(t tools.Tool) bool {
	if sc.readOnly && !t.Hints.ReadOnly {
		return false
	}
	return t.In(sc.sets)
}

// offered is the one answer to whether a tool exists for a request, at list
// and at call: what the request asked for, and what its principal's key is
// limited to. Sandboxes that the key does not see are kept from it by the core.
func (s *Server) offered(ctx context.Context, t tools.Tool) bool {
	limits := s.limits(ctx)
	sc := s.scopeOf(ctx)
	if sc.byDefault && len(limits.Tools) > 0 { // the key says what it is for
		limits.ReadOnly = limits.ReadOnly || sc.readOnly
		return limits.Offers(t.Name, t.Set, t.Hints.ReadOnly)
	}
	return sc.offers(t) && limits.Offers(t.Name, t.Set, t.Hints.ReadOnly)
}

// limits is what the caller's key is limited to.
func (s *Server) limits(ctx context.Context) engine.Scope {
	if s.opt.LocalScope != nil {
		return s.opt.LocalScope(ctx)
	}
	return principalOf(ctx).Scope
}

// mayShow refuses resources to keys that may not use the tool of which they are
// another form, by their limits or by the policy that they are bound to.
func (s *Server) mayShow(ctx context.Context) error {
	const tool = "sandbox_read"
	if !s.limits(ctx).Offers(tool, tools.SetCore, true) {
		return engine.Errorf(engine.KindDenied, "the key is limited to tools without %s, and resources need that one", tool)
	}
	return engine.AuthorizeTool(principalOf(ctx), policies.ToolRequest{Tool: tool})
}

// Names returns what a key can be limited to: all toolsets and tools.
func Names() []string {
	names := slices.DeleteFunc(tools.Sets(), func(set string) bool { return set == tools.SetAll }) // no limit
	for _, t := range tools.New(Backend{}, tools.Options{}).Tools() {
		names = append(names, t.Name)
	}
	return names
}

// toolRequest is a tool in the words of a policy.
func toolRequest(t tools.Tool) policies.ToolRequest {
	return policies.ToolRequest{Tool: t.Name, Changes: !t.Hints.ReadOnly}
}

type (
	scopeKey     struct{}
	principalKey struct{}
	listingKey   struct{}
)

// listing tells whether the request asks for the list of tools.
func listing(ctx context.Context) bool {
	on, _ := ctx.Value(listingKey{}).(bool)
	return on
}

// withPrincipal says who the request speaks for, to us and to the services
// that its tools call.
func withPrincipal(ctx context.Context, p engine.Principal) context.Context {
	ctx = engine.WithCaller(ctx, engine.Caller{Door: "mcp", Principal: p})
	return context.WithValue(ctx, principalKey{}, p)
}

// principalOf returns who the request speaks for. Without one it is nobody,
// whose organization has no sandboxes.
func principalOf(ctx context.Context) engine.Principal {
	p, _ := ctx.Value(principalKey{}).(engine.Principal)
	return p
}

// scopeOf returns the request's scope. One that was not set, as on stdio, is
// what the server was started with.
func (s *Server) scopeOf(ctx context.Context) scope {
	if sc, ok := ctx.Value(scopeKey{}).(scope); ok {
		return sc
	}
	return scope{sets: s.opt.Sets, byDefault: s.byDefault, readOnly: s.opt.ReadOnly}
}

// requestScope reads what an HTTP request asks for: /mcp/x/{set}[,set], or the
// header X-MCP-Toolsets, which the path goes before; /mcp/readonly,
// /mcp/x/{set}/readonly or the header X-MCP-Readonly. The server's own options
// are an upper bound for read-only and the default for sets.
func (s *Server) requestScope(r *http.Request) (scope, error) {
	sc := scope{sets: s.opt.Sets, byDefault: s.byDefault, readOnly: s.opt.ReadOnly || asks(r.Header.Get("X-MCP-Readonly"))}
	asked := r.Header.Get("X-MCP-Toolsets")
	_, rest, _ := strings.Cut(r.URL.Path, "/mcp")
	switch parts := strings.Split(strings.Trim(rest, "/"), "/"); {
	case len(parts) == 1 && parts[0] == "": // plain
	case len(parts) == 1 && parts[0] == "readonly":
		sc.readOnly = true
	case len(parts) == 2 && parts[0] == "x":
		asked = parts[1]
	case len(parts) == 3 && parts[0] == "x" && parts[2] == "readonly":
		asked, sc.readOnly = parts[1], true
	default:
		return scope{}, fmt.Errorf("there is nothing at %s; use /mcp, /mcp/x/{toolset}, or /readonly behind either", r.URL.Path)
	}
	if asked != "" {
		sc.byDefault = false
		sc.sets = strings.FieldsFunc(asked, func(c rune) bool { return c == ',' || c == ' ' })
		if err := checkSets(sc.sets); err != nil {
			return scope{}, err
		}
		if slices.Contains(sc.sets, tools.SetLocal) {
			return scope{}, errors.New("the toolset local works over stdio only; start the server with: atoll mcp --toolsets local")
		}
	}
	return sc, nil
}

// asks tells whether a header asks for something. One that is not understood
// does, because the something is a restriction.
func asks(header string) bool {
	switch strings.ToLower(strings.TrimSpace(header)) {
	case "", "0", "false", "no":
		return false
	}
	return true
}

func checkSets(sets []string) error {
	if len(sets) == 0 {
		return fmt.Errorf("no toolset is named; known: %s", strings.Join(tools.Sets(), ", "))
	}
	for _, set := range sets {
		if !slices.Contains(tools.Sets(), set) {
			return fmt.Errorf("unknown toolset %q; known: %s", set, strings.Join(tools.Sets(), ", "))
		}
	}
	return nil
}
