package core

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// visible is where the scope of who calls meets a sandbox: one outside of it
// does not exist, like one of another organization.
func (c *Core) visible(ctx context.Context, sb *store.Sandbox, ref engine.SandboxRef) error {
	if engine.ScopeOf(ctx).Sees(sb.Labels) {
		return reachable(ctx, sb)
	}
	return engine.Errorf(engine.KindNotFound, "sandbox %q not found", ref.IDOrName).
		WithHint("use the id or name of one that exists in your organization")
}

// labelled returns the labels of a new sandbox, which those of the scope are
// added to.
func labelled(scope engine.Scope, labels map[string]string) (map[string]string, error) {
	all, ok := scope.Select(labels)
	if !ok {
		return nil, outside(scope)
	}
	return all, nil
}

// staysWithin refuses new labels of a sandbox that would take it out of the
// scope. nil keeps the labels.
func staysWithin(scope engine.Scope, labels *map[string]string) error {
	if labels == nil || scope.Sees(*labels) {
		return nil
	}
	return outside(scope)
}

// outside refuses what would take a sandbox out of the scope.
func outside(scope engine.Scope) error {
	var want []string
	for _, k := range slices.Sorted(maps.Keys(scope.Labels)) {
		want = append(want, k+"="+scope.Labels[k])
	}
	return engine.Errorf(engine.KindDenied, "this API key works with sandboxes that are labelled %s only", strings.Join(want, ", ")).
		WithHint("keep these labels")
}

// undivided refuses callers who know of some of the organization's sandboxes
// only.
func undivided(ctx context.Context) error {
	if len(engine.ScopeOf(ctx).Labels) == 0 {
		return nil
	}
	return engine.Errorf(engine.KindDenied, "this API key works with some sandboxes only, and this is about all").
		WithHint("use a key that is not limited to labels")
}

// seen passes on the events that the scope leaves. The channel closes with
// all or with ctx.
func seen(ctx context.Context, scope engine.Scope, all <-chan engine.Event) <-chan engine.Event {
	if len(scope.Labels) == 0 {
		return all
	}
	out := make(chan engine.Event)
	go func() { // ends with all, which ends with ctx
		defer close(out)
		for e := range all {
			if e.Sandbox != nil && !scope.Sees(e.Sandbox.Labels) {
				continue
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Bounds of a scope.
const maxScope = 64

// checkScope refuses a scope that cannot be kept or that the key's permissions
// do not go with.
func (k Keys) checkScope(s engine.Scope, permissions []string) error {
	if !s.Limits() {
		return nil
	}
	if len(s.Tools) > maxScope {
		return invalid("tools has %d entries", len(s.Tools)).WithHint("use at most %d; a toolset stands for its tools", maxScope)
	}
	for _, t := range s.Tools {
		if len(k.Tools) > 0 && !slices.Contains(k.Tools, t) {
			return invalid("tool %s is not known", quote(t)).WithHint("use some of %s", strings.Join(k.Tools, ", "))
		}
	}
	if permissions == nil {
		return invalid("a key that is limited cannot be unrestricted").WithHint("name its permissions, or none for one that only reads")
	}
	for _, p := range permissions {
		if !s.Grants(p) {
			return invalid("the permission %s does not go with these limits", quote(p)).WithHint("leave it out")
		}
	}
	return checkLabels(s.Labels)
}
