package mcp

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
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
	return slices.Contains(sc.sets, tools.SetAll) || slices.Contains(sc.sets, t.Set)
}

// offered is the one answer to whether a tool exists for a request, at list
// and at call: what the request asked for, and what its principal's key is
// limited to. Sandboxes that the key does not see are kept from it by the core.
func (s *Server) offered(ctx context.Context, t tools.Tool) bool {
	limits := principalOf(ctx).Scope
	if s.opt.LocalScope != nil {
		limits = s.opt.LocalScope(ctx)
	}
	sc := s.scopeOf(ctx)
	if sc.byDefault && len(limits.Tools) > 0 { // the key says what it is for
		limits.ReadOnly = limits.ReadOnly || sc.readOnly
		return limits.Offers(t.Name, t.Set, t.Hints.ReadOnly)
	}
	return sc.offers(t) && limits.Offers(t.Name, t.Set, t.Hints.ReadOnly)
}

// Names returns what a key can be limited to: all toolsets and tools.
func Names() []string {
	names := slices.DeleteFunc(tools.Sets(), func(set string) bool { return set == tools.SetAll }) // no limit
	for _, t := range tools.New(Backend{}, tools.Options{}).Tools() {
		names = append(names, t.Name)
	}
	return names
}

type (
	scopeKey     struct{}
	principalKey struct{}
)

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

// requestScope reads what an HTTP request asks for: /mcp/x/{set}, or the
// headers X-MCP-Toolsets and X-MCP-Readonly. The server's own options are an
// upper bound for read-only and the default for sets.
func (s *Server) requestScope(r *http.Request) (scope, error) {
	sc := scope{sets: s.opt.Sets, byDefault: s.byDefault, readOnly: s.opt.ReadOnly}
	asked := r.Header.Get("X-MCP-Toolsets")
	if _, set, ok := strings.Cut(r.URL.Path, "/mcp/x/"); ok {
		asked = strings.Trim(set, "/")
	}
	if asked != "" {
		sc.byDefault = false
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
