package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// Scope narrows what a key reaches, beside what its permissions allow. The
// zero value narrows nothing.
type Scope struct {
	// Tools are names of MCP tools and toolsets; empty: all. REST does not
	// know tools: there the key's permissions count alone.
	Tools []string `json:"tools,omitempty"`
	// Labels select the sandboxes that the key may know of: those that have
	// all of them. Empty: all of the organization.
	Labels map[string]string `json:"labels,omitempty"`
	// ReadOnly keeps the key from changing anything, whoever its user is.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// Limits tells whether the scope narrows anything.
func (s Scope) Limits() bool { return s.ReadOnly || len(s.Tools) > 0 || len(s.Labels) > 0 }

// Sees tells whether a sandbox with the labels is within the scope.
func (s Scope) Sees(labels map[string]string) bool {
	for k, v := range s.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Select adds the scope's labels to those that a caller selects by. It is
// false when no sandbox can have both.
func (s Scope) Select(labels map[string]string) (map[string]string, bool) {
	if len(s.Labels) == 0 {
		return labels, true
	}
	out := maps.Clone(s.Labels)
	for k, v := range labels {
		if want, ok := out[k]; ok && want != v {
			return nil, false
		}
		out[k] = v
	}
	return out, true
}

// Offers tells whether the scope leaves a tool of the set.
func (s Scope) Offers(tool, set string, readOnly bool) bool {
	if s.ReadOnly && !readOnly {
		return false
	}
	return len(s.Tools) == 0 || slices.Contains(s.Tools, tool) || slices.Contains(s.Tools, set)
}

// Grants tells whether a key with the scope can have the permission. What
// reaches beyond the scope's sandboxes goes with no labels, and no limited key
// makes others or administrates.
func (s Scope) Grants(permission string) bool {
	switch {
	case s.Limits() && slices.Contains([]string{ManageKeys, PermissionOwner, PermissionAdmin}, permission):
		return false
	case s.ReadOnly && !strings.HasPrefix(permission, "read:"):
		return false
	case len(s.Labels) > 0:
		return slices.Contains([]string{WriteSandboxes, DeleteSandboxes, ReadLimits, "read:volumes"}, permission)
	}
	return true
}

// Clone returns a copy that shares nothing.
func (s Scope) Clone() Scope {
	s.Tools, s.Labels = slices.Clone(s.Tools), maps.Clone(s.Labels)
	return s
}

// ScopeOf returns the scope of who is behind a call. The server itself has
// none.
func ScopeOf(ctx context.Context) Scope { return CallerOf(ctx).Principal.Scope }
