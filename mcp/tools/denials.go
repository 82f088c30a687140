package tools

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Denials tells what a sandbox's network policy denied it. It cannot decide
// about that: no tool can, whatever its arguments say.
type Denials interface {
	Denied(ctx context.Context, ref engine.SandboxRef, within time.Duration) ([]engine.AccessRequest, error)
}

// shownDenials is how many get a line; a sandbox could fill a result with them.
const shownDenials = 3

// denied returns what the sandbox was denied since a call began. A server that
// cannot tell tells nothing: the call itself went well.
func (k *kit) denied(ctx context.Context, a Args, began time.Time) []engine.AccessRequest {
	if k.Denials == nil {
		return nil
	}
	all, err := k.Denials.Denied(ctx, a.ref(), time.Since(began))
	if err != nil {
		return nil
	}
	for i, r := range all {
		if k.opt.Ask != nil && r.State == engine.AccessPending {
			all[i].State = k.opt.Ask(ctx, r)
			break // one question for a call is enough
		}
	}
	return all
}

// denialLines tells a model what happened and whom to ask; empty without
// denials. Targets are proper names or addresses, so they are no words of the
// sandbox's own.
func denialLines(all []engine.AccessRequest) string {
	var b strings.Builder
	ask := false
	for i, r := range all {
		if i == shownDenials {
			fmt.Fprintf(&b, "\negress: denied %d more; atoll access list shows them", len(all)-i)
			break
		}
		fmt.Fprintf(&b, "\negress: denied %s (rule %s); %s", r.Target(), r.Rule, denialAdvice(r))
		ask = ask || r.State == engine.AccessPending
	}
	if ask {
		b.WriteString("\nAsk your user to have that done, then retry; you cannot do it yourself.")
	}
	return b.String()
}

func denialAdvice(r engine.AccessRequest) string {
	switch r.State {
	case engine.AccessPending:
		return "an operator can allow it: atoll access approve " + r.ID + " --for 1h"
	case engine.AccessApproved:
		return "it is allowed by now: retry"
	case engine.AccessDenied:
		return "an operator refused it: do without"
	}
	return "too many other requests wait for an operator"
}

// denialMeta is the same for machines.
func denialMeta(meta map[string]any, all []engine.AccessRequest) {
	if len(all) == 0 {
		return
	}
	list := make([]map[string]any, len(all))
	for i, r := range all {
		list[i] = map[string]any{"id": r.ID, "target": r.Target(), "rule": r.Rule, "state": string(r.State)}
	}
	meta[metaDenied] = list
}
