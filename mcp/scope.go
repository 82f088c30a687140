package mcp

import (
	"context"
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
	sets     []string
	readOnly bool
}

func (sc scope) offers(t tools.Tool) bool {
	if sc.readOnly && !t.Hints.ReadOnly {
		return false
	}
	return slices.Contains(sc.sets, tools.SetAll) || slices.Contains(sc.sets, t.Set)
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

func withPrincipal(ctx context.Context, p engine.Principal) context.Context {
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
	return scope{sets: s.opt.Sets, readOnly: s.opt.ReadOnly}
}

// requestScope reads what an HTTP request asks for: /mcp/x/{set}, or the
// headers X-MCP-Toolsets and X-MCP-Readonly. The server's own options are an
// upper bound for read-only and the default for sets.
func (s *Server) requestScope(r *http.Request) (scope, error) {
	sc := scope{sets: s.opt.Sets, readOnly: s.opt.ReadOnly}
	asked := r.Header.Get("X-MCP-Toolsets")
	if _, set, ok := strings.Cut(r.URL.Path, "/mcp/x/"); ok {
		asked = strings.Trim(set, "/")
	}
	if asked != "" {
		sc.sets = strings.FieldsFunc(asked, func(c rune) bool { return c == ',' || c == ' ' })
		if err := checkSets(sc.sets); err != nil {
			return scope{}, err
		}
	}
	switch strings.ToLower(r.Header.Get("X-MCP-Readonly")) {
	case "1", "true", "yes":
		sc.readOnly = true
	}
	return sc, nil
}

func checkSets(sets []string) error {
	for _, set := range sets {
		if !slices.Contains(tools.Sets(), set) {
			return fmt.Errorf("unknown toolset %q; known: %s", set, strings.Join(tools.Sets(), ", "))
		}
	}
	return nil
}
