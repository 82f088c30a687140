package core

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

type history struct{ *Core }

// History is what sandboxes used. It is on the runner that holds them.
func (c *Core) History() engine.History { return history{c} }

// Samples asks the sandbox's runner. A sandbox that never ran has none.
func (h history) Samples(ctx context.Context, ref engine.SandboxRef, from, to time.Time) ([]engine.Sample, error) {
	if to.Before(from) {
		return nil, invalid("to is before from")
	}
	sb, err := h.find(ctx, ref)
	if err != nil {
		return nil, public(err)
	}
	if sb.Runner == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, limitInspect)
	defer cancel()
	list, err := h.Cluster.Client(sb.Runner).Samples(ctx, engine.SampleQuery{Sandbox: sb.ID, From: from, To: to})
	if engine.KindOf(err) == engine.KindNotFound { // it is being made
		return nil, nil
	}
	return list, public(err)
}
