package core

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/policies"
)

const (
	followAtOnce = 16
	followWait   = 2 * time.Second       // that a change of a policy waits for its sandboxes
	followLimit  = 2 * time.Minute       // after which a sandbox that is changed all the time is given up
	followEvery  = 20 * time.Millisecond // between tries while another change is under way
)

// followable refuses a document whose rules about programs and files a runner
// of its sandboxes cannot enforce: it would hold for some and not for others.
func (c *Core) followable(ctx context.Context, organizationID string, doc *policies.Policy) error {
	if !doc.Confines() || doc.BestEffort {
		return nil
	}
	use, err := c.Store.PolicyUse(ctx, organizationID, doc.Name)
	if err != nil {
		return err
	}
	able := map[string]bool{}
	for _, r := range c.Cluster.Runners(ctx) {
		able[r.ID] = r.Confines
	}
	i := slices.IndexFunc(use.Sandboxes, func(sb store.Sandbox) bool { return sb.State == engine.StateStarted && !able[sb.Runner] })
	if i < 0 {
		return nil
	}
	return engine.Errorf(engine.KindUnsupported, "the host of sandbox %s cannot enforce rules about programs and files", use.Sandboxes[i].Name).
		WithHint("add enforcement: best-effort to the policy, or stop the sandbox")
}

// follow has the running sandboxes under a policy follow its change. Those that
// another change keeps busy follow after it; what is left when the server ends
// is applied at its next start.
func (c *Core) follow(ctx context.Context, organizationID, name string) {
	ctx = context.WithoutCancel(ctx)
	use, err := c.Store.PolicyUse(ctx, organizationID, name)
	if err != nil {
		c.Log.Error("sandboxes of a changed policy not found", "policy", name, "error", err)
		return
	}
	done := make(chan struct{})
	c.later(ctx, "follow policy "+name, followLimit, func(ctx context.Context) error {
		defer close(done)
		var g errgroup.Group
		g.SetLimit(followAtOnce)
		for _, sb := range use.Sandboxes {
			g.Go(func() error {
				if err := c.followOne(ctx, sb.ID); err != nil {
					c.Log.Error("a sandbox does not follow its policy", "sandbox", sb.ID, "policy", name, "error", err)
				}
				return nil
			})
		}
		return g.Wait()
	})
	select {
	case <-done:
	case <-time.After(followWait):
	}
}

// followOne applies a sandbox's policy as soon as no other change is under way.
func (c *Core) followOne(ctx context.Context, id string) error {
	for {
		opctx, end, err := c.ops.begin(ctx, id, opUpdate, limitResize)
		if engine.KindOf(err) != engine.KindConflict {
			if err != nil {
				return err
			}
			defer end()
			return c.applyPolicy(opctx, id)
		}
		select {
		case <-ctx.Done():
			return engine.AsError(ctx.Err())
		case <-time.After(followEvery):
		}
	}
}

func (c *Core) applyPolicy(ctx context.Context, id string) error {
	sb, err := c.Store.SandboxByID(ctx, id)
	if engine.KindOf(err) == engine.KindNotFound || err == nil && sb.State != engine.StateStarted {
		return nil // its next start takes the policy as it is then
	}
	if err != nil {
		return err
	}
	f, err := c.forceOf(ctx, &sb)
	if err == nil {
		err = c.apply(ctx, &sb, f)
	}
	if err != nil || len(sb.Secrets) == 0 {
		return err
	}
	return c.tellTravels(ctx, &sb)
}
