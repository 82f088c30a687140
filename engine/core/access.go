package core

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// AccessStore keeps requests for access.
type AccessStore interface {
	RecordAccess(ctx context.Context, sandboxID string, denials []engine.AccessRequest, now time.Time) ([]engine.AccessRequest, error)
	DecideAccess(ctx context.Context, r engine.AccessRequest) error
	DropGrants(ctx context.Context, sandboxID string) error
	Access(ctx context.Context, organizationID, id string) (engine.AccessRequest, error)
	ListAccess(ctx context.Context, q engine.AccessQuery) ([]engine.AccessRequest, error)
	PurgeAccess(ctx context.Context, now, before time.Time) error
}

const (
	maxPeriod    = 366 * 24 * time.Hour
	denyPeriod   = time.Hour      // for which a refusal is remembered
	staleRequest = 24 * time.Hour // without a denial, after which nobody waits for an answer any more
	maxGrants    = 64             // of one sandbox
)

type access struct{ *Core }

// Access is what sandboxes were denied, and who decides about it.
func (c *Core) Access() engine.AccessRequests { return access{c} }

// Requests returns what was asked for, the latest denial first.
func (a access) Requests(ctx context.Context, q engine.AccessQuery) ([]engine.AccessRequest, error) {
	states := []engine.AccessState{"", engine.AccessPending, engine.AccessApproved, engine.AccessDenied}
	switch {
	case !slices.Contains(states, q.State):
		return nil, invalid("state %s is not known", quote(string(q.State))).WithHint("use one of pending, approved, denied")
	case q.Limit < 0 || q.Limit > 1000:
		return nil, invalid("limit is %d", q.Limit).WithHint("use 1 to 1000")
	case q.Limit == 0:
		q.Limit = 100
	}
	if q.Sandbox != "" {
		sb, err := a.find(ctx, engine.SandboxRef{OrganizationID: q.OrganizationID, IDOrName: q.Sandbox})
		if err != nil {
			return nil, public(err)
		}
		q.Sandbox = sb.ID
	}
	a.keepDenials(ctx)
	p := engine.CallerOf(ctx).Principal
	if len(engine.ScopeOf(ctx).Labels) == 0 && p.Policy == "" {
		all, err := a.Store.ListAccess(ctx, q)
		return all, public(err)
	}
	limit := q.Limit
	q.Limit = 1 << 16
	all, err := a.Store.ListAccess(ctx, q)
	if err != nil {
		return nil, public(err)
	}
	all, err = a.visibleRequests(ctx, all)
	return all[:min(limit, len(all))], public(err)
}

// visibleRequests keeps those of sandboxes that the caller's key may see.
func (a access) visibleRequests(ctx context.Context, all []engine.AccessRequest) ([]engine.AccessRequest, error) {
	seen := map[string]bool{}
	kept := []engine.AccessRequest{}
	for _, r := range all {
		may, known := seen[r.SandboxID]
		if !known {
			_, err := a.find(ctx, engine.SandboxRef{OrganizationID: r.OrganizationID, IDOrName: r.SandboxID})
			if err != nil && engine.KindOf(err) != engine.KindNotFound {
				return nil, err
			}
			may = err == nil
			seen[r.SandboxID] = may
		}
		if may {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// Denied returns what a sandbox was denied within the given time.
func (a access) Denied(ctx context.Context, ref engine.SandboxRef, within time.Duration) ([]engine.AccessRequest, error) {
	sb, err := a.route(ctx, ref)
	if err != nil {
		return nil, public(err)
	}
	found := a.denials.since(sb.ID, a.Now().Add(-within))
	if len(found) == 0 {
		return nil, nil
	}
	a.keepDenials(ctx)
	kept, err := a.Store.ListAccess(ctx, engine.AccessQuery{OrganizationID: sb.OrganizationID, Sandbox: sb.ID, Limit: store.MaxAccess})
	if err != nil {
		return nil, public(err)
	}
	for i, r := range found {
		at := slices.IndexFunc(kept, func(k engine.AccessRequest) bool { return k.ID == r.ID })
		if at >= 0 {
			r = kept[at]
		}
		r.OrganizationID, r.SandboxName = sb.OrganizationID, sb.Name
		found[i] = r
	}
	return found, nil
}

// Approve adds a grant to the sandbox's network settings. The row of the
// sandbox comes first: after a crash in between the request waits still, and
// approving it once more is the same.
func (a access) Approve(ctx context.Context, p engine.Principal, id string, period time.Duration) (engine.AccessRequest, error) {
	r, ctx, sb, end, err := a.decide(ctx, p, id, period)
	if err != nil {
		return r, public(err)
	}
	defer end()
	r.State, r.Until = engine.AccessApproved, time.Time{}
	if period > 0 {
		r.Until = r.DecidedAt.Add(period)
	}
	grants := without(sb.Network.At(r.DecidedAt).Grants, r.ID)
	if len(grants) >= maxGrants {
		return r, engine.Errorf(engine.KindExhausted, "sandbox %s has %d approved requests", sb.Name, len(grants)).
			WithHint("allow them by its network settings instead")
	}
	grant := engine.NetworkGrant{ID: r.ID, Host: r.Host, Address: r.Address, Port: r.Port, Protocol: r.Protocol, Until: r.Until}
	before := sb.Network.Grants
	if err := a.grant(ctx, sb, append(grants, grant)); err != nil {
		return r, public(cause(ctx, err))
	}
	got, err := a.decided(ctx, r, sb)
	if err != nil {
		if uerr := a.grant(context.WithoutCancel(ctx), sb, before); uerr != nil {
			a.Log.Error("a grant was not taken back", "sandbox", sb.ID, "request", r.ID, "error", uerr)
		}
	}
	return got, err
}

// Deny refuses a request and takes back what was granted for it.
func (a access) Deny(ctx context.Context, p engine.Principal, id string, period time.Duration) (engine.AccessRequest, error) {
	r, ctx, sb, end, err := a.decide(ctx, p, id, period)
	if err != nil {
		return r, public(err)
	}
	defer end()
	if period == 0 {
		period = denyPeriod
	}
	r.State, r.Until = engine.AccessDenied, r.DecidedAt.Add(period)
	if grants := without(sb.Network.Grants, r.ID); len(grants) < len(sb.Network.Grants) {
		if err := a.grant(ctx, sb, grants); err != nil {
			return r, public(cause(ctx, err))
		}
	}
	return a.decided(ctx, r, sb)
}

// decide begins a decision: it finds the request and holds its sandbox.
func (a access) decide(ctx context.Context, p engine.Principal, id string, period time.Duration) (engine.AccessRequest, context.Context, *store.Sandbox, func(), error) {
	fail := func(err error) (engine.AccessRequest, context.Context, *store.Sandbox, func(), error) {
		return engine.AccessRequest{}, ctx, nil, nil, err
	}
	if err := firstError(engine.Authorize(p, engine.WriteSandboxes, ""), unbound(p)); err != nil {
		return fail(err)
	}
	if period < 0 || period > maxPeriod || period > 0 && period < time.Second {
		return fail(invalid("the time is %v", period).WithHint("use 1s to %dh, or leave it out", int(maxPeriod.Hours())))
	}
	r, err := a.Store.Access(ctx, p.OrganizationID, id)
	if err != nil {
		return fail(err)
	}
	opctx, sb, end, err := a.change(ctx, engine.SandboxRef{OrganizationID: r.OrganizationID, IDOrName: r.SandboxID}, opUpdate, limitResize)
	if engine.KindOf(err) == engine.KindNotFound { // or not the caller's to see, which must look the same
		err = engine.Errorf(engine.KindNotFound, "request %q not found", id).WithHint("use the id or name of one that exists in your organization")
	}
	if err != nil {
		return fail(err)
	}
	if !sb.State.Settled() {
		end()
		return fail(inProgress(sb.Name, string(sb.State)))
	}
	r.DecidedAt, r.DecidedBy = a.Now().UTC(), p.UserID
	return r, opctx, sb, end, nil
}

// unbound refuses keys that are bound to a policy: they open nothing beside it.
func unbound(p engine.Principal) error {
	if p.Policy == "" {
		return nil
	}
	return engine.Errorf(engine.KindDenied, "the key is bound to policy %s and opens nothing beside it", p.Policy).WithHint("use a key that is not bound to a policy")
}

func without(grants []engine.NetworkGrant, id string) []engine.NetworkGrant {
	return slices.DeleteFunc(slices.Clone(grants), func(g engine.NetworkGrant) bool { return g.ID == id })
}

// grant changes what is granted to a sandbox.
func (c *Core) grant(ctx context.Context, sb *store.Sandbox, grants []engine.NetworkGrant) error {
	return c.renetwork(ctx, sb, func(row *store.Sandbox) {
		row.Network.Grants = grants
		row.Network = row.Network.At(c.Now())
	})
}

// decided writes a decision and tells of it.
func (a access) decided(ctx context.Context, r engine.AccessRequest, sb *store.Sandbox) (engine.AccessRequest, error) {
	if err := a.Store.DecideAccess(ctx, r); err != nil {
		return r, public(err)
	}
	if r.State == engine.AccessApproved {
		a.narrowAt(r.Until)
	}
	a.tellAccess(engine.EventAccessDecided, sb, r)
	return r, nil
}

func (c *Core) tellAccess(kind string, sb *store.Sandbox, r engine.AccessRequest) {
	copied := sb.Sandbox
	r.SandboxName = sb.Name
	c.Cluster.Publish(engine.Event{Type: kind, OrganizationID: sb.OrganizationID, Time: c.Now().UTC(), Sandbox: &copied, Access: &r, New: string(r.State)})
}

// renetwork changes what a row says about the network and makes the runner
// enforce it. When the runner fails, the row is written back, so that it says
// what holds. After a crash in between, reconcile applies the row.
func (c *Core) renetwork(ctx context.Context, sb *store.Sandbox, change func(*store.Sandbox)) error {
	old := *sb
	if err := c.write(ctx, sb, change); err != nil {
		return err
	}
	now := c.Now()
	if sb.State != engine.StateStarted || sb.Policy == old.Policy && reflect.DeepEqual(old.EnforcedNetwork(now), sb.EnforcedNetwork(now)) {
		return nil
	}
	err := c.applyPolicy(ctx, sb.ID)
	if err != nil {
		undo := context.WithoutCancel(ctx)
		werr := c.write(undo, sb, func(row *store.Sandbox) {
			row.Network, row.Policy, row.Lifecycle, row.Learning = old.Network, old.Policy, old.Lifecycle, old.Learning
		})
		if werr == nil { // one that refused a policy may have closed everything
			werr = c.applyPolicy(undo, sb.ID)
		}
		if werr != nil {
			c.Log.Error("network policy not put back", "sandbox", sb.ID, "error", werr)
		}
	}
	return err
}

// narrowAt has reconcile look when something that is open is to be closed; the
// zero time is never.
func (c *Core) narrowAt(t time.Time) {
	if !t.IsZero() {
		time.AfterFunc(max(0, t.Sub(c.Now()))+time.Millisecond, c.suspect)
	}
}

// Narrow closes what was open for a time. The runner comes first, so that a
// failure is tried again.
func (c *Core) Narrow(ctx context.Context, row Row) error {
	ctx, sb, end, err := c.holdRow(ctx, row, limitResize)
	if err != nil {
		return err
	}
	defer end()
	now := c.Now()
	if sb.State == engine.StateStarted {
		f, err := c.forceOf(ctx, sb)
		if err == nil {
			err = c.apply(ctx, sb, f)
		}
		if err != nil {
			return err
		}
	}
	err = c.write(ctx, sb, func(row *store.Sandbox) {
		row.Network = row.Network.At(now)
		if row.Learning != nil && !row.Learning.Active(now) {
			over := *row.Learning
			over.Over = true
			row.Learning = &over
		}
	})
	if err == nil {
		c.publish("sandbox.updated", sb, string(sb.State))
	}
	return err
}

// refusedForGood tells whether no approval could open what a rule denied.
func refusedForGood(rule string) bool { return strings.HasPrefix(rule, "blocked") }
