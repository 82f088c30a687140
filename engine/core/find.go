package core

import (
	"context"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// find returns a sandbox by id or name. One that is destroyed does not exist.
func (c *Core) find(ctx context.Context, ref engine.SandboxRef) (store.Sandbox, error) {
	sb, err := c.findAny(ctx, ref)
	if err == nil && sb.State == engine.StateDestroyed {
		return store.Sandbox{}, engine.Errorf(engine.KindNotFound, "sandbox %q not found", ref.IDOrName).
			WithHint("it was deleted")
	}
	return sb, err
}

func (c *Core) findAny(ctx context.Context, ref engine.SandboxRef) (store.Sandbox, error) {
	if ref.IDOrName == "" {
		return store.Sandbox{}, engine.Errorf(engine.KindInvalid, "sandbox id or name is empty")
	}
	sb, err := c.Store.Sandbox(ctx, ref)
	if err != nil {
		return store.Sandbox{}, err
	}
	return sb, c.visible(ctx, &sb, ref)
}

// Sandbox returns one sandbox with its latest activity.
func (s sandboxes) Sandbox(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	sb, err := s.find(ctx, ref)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	return s.view(&sb), nil
}

// List returns one page of an organization's sandboxes.
func (s sandboxes) List(ctx context.Context, q engine.SandboxQuery) (engine.SandboxPage, error) {
	labels, ok := engine.ScopeOf(ctx).Select(q.Labels)
	if !ok {
		return engine.SandboxPage{Items: []engine.Sandbox{}}, nil
	}
	q.Labels = labels
	if bound := engine.CallerOf(ctx).Principal.Policy; bound != "" {
		if q.Policy != "" && q.Policy != bound {
			return engine.SandboxPage{}, nil
		}
		q.Policy = bound
	}
	page, err := s.Store.ListSandboxes(ctx, q)
	if err != nil {
		return engine.SandboxPage{}, public(err)
	}
	for i := range page.Items {
		page.Items[i].LastActive = s.activity.latest(page.Items[i].ID, page.Items[i].LastActive)
	}
	return page, nil
}

// CountSandboxes counts the sandboxes of all organizations by state, for the
// server's metrics.
func (c *Core) CountSandboxes(ctx context.Context) (map[engine.State]int, error) {
	counts, err := c.Store.CountSandboxes(ctx)
	return counts, public(err)
}

func (c *Core) view(sb *store.Sandbox) engine.Sandbox {
	v := sb.Sandbox
	v.LastActive = c.activity.latest(sb.ID, sb.LastActive)
	return v
}

// routeTTL bounds for how long a toolbox call may go by what another server
// has changed meanwhile.
const routeTTL = time.Second

// routes remembers where sandboxes were found, because every call of a toolbox
// starts with that question.
type routes struct {
	mu  sync.Mutex
	gen uint64 // counts forgets, so that an answer read before one is not kept
	m   map[engine.SandboxRef]route
	ids map[string][]engine.SandboxRef
}

type route struct {
	sb store.Sandbox
	at time.Time
}

func newRoutes() *routes {
	return &routes{m: map[engine.SandboxRef]route{}, ids: map[string][]engine.SandboxRef{}}
}

func (r *routes) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gen++
	for _, ref := range r.ids[id] {
		delete(r.m, ref)
	}
	delete(r.ids, id)
}

func (r *routes) look(ref engine.SandboxRef, now time.Time) (store.Sandbox, uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, ok := r.m[ref]
	return got.sb, r.gen, ok && now.Sub(got.at) < routeTTL
}

func (r *routes) keep(ref engine.SandboxRef, gen uint64, sb store.Sandbox, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if gen != r.gen {
		return
	}
	if _, known := r.m[ref]; !known {
		r.ids[sb.ID] = append(r.ids[sb.ID], ref)
	}
	r.m[ref] = route{sb, now}
}

// route is find for calls of toolboxes.
func (c *Core) route(ctx context.Context, ref engine.SandboxRef) (store.Sandbox, error) {
	now := c.Now()
	sb, gen, ok := c.routes.look(ref, now)
	if ok {
		return sb, c.visible(ctx, &sb, ref)
	}
	sb, err := c.find(ctx, ref)
	if err == nil {
		c.routes.keep(ref, gen, sb, now)
	}
	return sb, err
}
