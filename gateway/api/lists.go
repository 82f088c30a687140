package api

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerLists() {
	handle(a, "GET", "/sandbox", "List sandboxes, page by page", a.list)
	handle(a, "GET", "/sandbox/paginated", "List sandboxes by page number", a.listNumbered)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/forks", "The sandboxes forked from this one", a.forks)
}

// Filter is what both lists can be narrowed by.
type Filter struct {
	ID                    string    `query:"id" doc:"beginning of the id"`
	Name                  string    `query:"name" doc:"beginning of the name"`
	Labels                string    `query:"labels" doc:"JSON object; all must match"`
	IncludeErroredDeleted bool      `query:"includeErroredDeleted"`
	States                []string  `query:"states,explode"`
	Snapshots             []string  `query:"snapshots,explode"`
	MinCPU                float64   `query:"minCpu"`
	MaxCPU                float64   `query:"maxCpu"`
	MinMemory             float64   `query:"minMemoryGiB"`
	MaxMemory             float64   `query:"maxMemoryGiB"`
	MinDisk               float64   `query:"minDiskGiB"`
	MaxDisk               float64   `query:"maxDiskGiB"`
	LastEventAfter        time.Time `query:"lastEventAfter"`
	LastEventBefore       time.Time `query:"lastEventBefore"`
	Order                 string    `query:"order" enum:"asc,desc" default:"desc"`
}

type listInput struct {
	Filter
	Cursor            string    `query:"cursor"`
	Limit             int       `query:"limit" minimum:"1" maximum:"200" default:"100"`
	IncludeWarm       bool      `query:"includeWarm" doc:"accepted; unclaimed sandboxes have no owner here and are never listed"`
	RegionIDs         []string  `query:"regionIds,explode"`
	Classes           []string  `query:"sandboxClasses,explode"`
	IsPublic          string    `query:"isPublic" enum:"true,false"`
	IsRecoverable     string    `query:"isRecoverable" enum:"true,false"`
	CreatedAtAfter    time.Time `query:"createdAtAfter"`
	CreatedAtBefore   time.Time `query:"createdAtBefore"`
	AutoDestroyAfter  time.Time `query:"autoDestroyAtAfter"`
	AutoDestroyBefore time.Time `query:"autoDestroyAtBefore"`
	Sort              string    `query:"sort" enum:"name,cpu,memoryGib,diskGib,lastActivityAt,createdAt" default:"lastActivityAt"`
}

// list answers one page of the engine's, minus what the engine cannot filter.
// Such a page may be short; clients go on until nextCursor is null.
func (a *API) list(ctx context.Context, in *listInput) (wire.Page, error) {
	q, err := in.query(ctx)
	if err != nil {
		return wire.Page{}, err
	}
	q.Sort, q.Limit, q.Cursor = in.Sort, in.Limit, in.Cursor
	p, err := a.Sandboxes.List(ctx, q)
	if err != nil {
		return wire.Page{}, err
	}
	page := wire.Page{Items: []wire.Item{}, Total: p.Total}
	for _, s := range p.Items {
		if in.matches(s) && in.Filter.matches(s) {
			page.Items = append(page.Items, wire.FromItem(s, toolboxURL(ctx)))
		}
	}
	if p.Next != "" {
		page.NextCursor = &p.Next
	}
	return page, nil
}

type numberedInput struct {
	Filter
	Page    int      `query:"page" minimum:"1" default:"1"`
	Limit   int      `query:"limit" minimum:"1" maximum:"200" default:"100"`
	Regions []string `query:"regions,explode"`
	Sort    string   `query:"sort" enum:"id,name,state,snapshot,region,updatedAt,createdAt,lastActivityAt" default:"createdAt"`
}

func (a *API) listNumbered(ctx context.Context, in *numberedInput) (wire.NumberedPage, error) {
	q, err := in.query(ctx)
	if err != nil {
		return wire.NumberedPage{}, err
	}
	all, err := a.all(ctx, q, func(s engine.Sandbox) bool {
		return in.Filter.matches(s) && oneOf(in.Regions, s.Target)
	})
	if err != nil {
		return wire.NumberedPage{}, err
	}
	slices.SortStableFunc(all, order(in.Sort, in.Order == "asc"))
	out := wire.NumberedPage{
		Items: []wire.Sandbox{}, Total: len(all), Page: in.Page, TotalPages: (len(all) + in.Limit - 1) / in.Limit,
	}
	begin := min((in.Page-1)*in.Limit, len(all))
	for _, s := range all[begin:min(begin+in.Limit, len(all))] {
		out.Items = append(out.Items, wire.FromSandbox(s, toolboxURL(ctx)))
	}
	return out, nil
}

func (a *API) forks(ctx context.Context, in *SandboxPath) ([]wire.Sandbox, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	if err != nil {
		return nil, err
	}
	q := engine.SandboxQuery{OrganizationID: auth.Organization(ctx)}
	children, err := a.all(ctx, q, func(c engine.Sandbox) bool { return c.Parent == s.ID })
	out := make([]wire.Sandbox, len(children))
	for i, c := range children {
		out[i] = wire.FromSandbox(c, toolboxURL(ctx))
	}
	return out, err
}

// all walks all pages and keeps what matches.
func (a *API) all(ctx context.Context, q engine.SandboxQuery, matches func(engine.Sandbox) bool) ([]engine.Sandbox, error) {
	var out []engine.Sandbox
	q.Limit, q.Sort = 200, "createdAt"
	for {
		p, err := a.Sandboxes.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range p.Items {
			if matches(s) {
				out = append(out, s)
			}
		}
		if p.Next == "" {
			return out, nil
		}
		q.Cursor = p.Next
	}
}

func (f Filter) query(ctx context.Context) (engine.SandboxQuery, error) {
	q := engine.SandboxQuery{
		OrganizationID: auth.Organization(ctx), IDPrefix: f.ID, NamePrefix: f.Name, Snapshots: f.Snapshots,
		IncludeErroredDeleted: f.IncludeErroredDeleted, Ascending: f.Order == "asc",
	}
	if f.Labels != "" {
		if err := json.Unmarshal([]byte(f.Labels), &q.Labels); err != nil {
			return q, engine.Errorf(engine.KindInvalid, "labels is not a JSON object of strings").
				WithHint(`write it as {"key":"value"}`)
		}
	}
	for _, s := range f.States {
		state := engine.State(s)
		if !state.Valid() {
			return q, engine.Errorf(engine.KindInvalid, "states: %q is no state of a sandbox", s)
		}
		q.States = append(q.States, state)
	}
	return q, nil
}

func (f Filter) matches(s engine.Sandbox) bool {
	return within(s.Resources.CPU, f.MinCPU, f.MaxCPU) &&
		within(wire.GiB(s.Resources.MemoryMiB), f.MinMemory, f.MaxMemory) &&
		within(wire.GiB(s.Resources.DiskMiB), f.MinDisk, f.MaxDisk) &&
		between(s.LastActive, f.LastEventAfter, f.LastEventBefore)
}

func (in listInput) matches(s engine.Sandbox) bool {
	d := wire.FromItem(s, "")
	return oneOf(in.RegionIDs, s.Target) && oneOf(in.Classes, d.SandboxClass) &&
		flag(in.IsPublic, s.Public) && flag(in.IsRecoverable, s.Recoverable) &&
		between(s.CreatedAt, in.CreatedAtAfter, in.CreatedAtBefore) &&
		between(wire.ParseTime(d.AutoDestroyAt), in.AutoDestroyAfter, in.AutoDestroyBefore)
}

func within(v, low, high float64) bool {
	return (low == 0 || v >= low) && (high == 0 || v <= high)
}

func between(t, after, before time.Time) bool {
	if !after.IsZero() && !t.After(after) {
		return false
	}
	return before.IsZero() || (!t.IsZero() && t.Before(before))
}

func oneOf(wanted []string, v string) bool {
	return len(wanted) == 0 || slices.Contains(wanted, v)
}

func flag(wanted string, v bool) bool {
	return wanted == "" || (wanted == "true") == v
}

func order(field string, ascending bool) func(a, b engine.Sandbox) int {
	by := map[string]func(a, b engine.Sandbox) int{
		"id":             func(a, b engine.Sandbox) int { return strings.Compare(a.ID, b.ID) },
		"name":           func(a, b engine.Sandbox) int { return strings.Compare(a.Name, b.Name) },
		"state":          func(a, b engine.Sandbox) int { return cmp.Compare(a.State, b.State) },
		"snapshot":       func(a, b engine.Sandbox) int { return strings.Compare(a.Snapshot, b.Snapshot) },
		"region":         func(a, b engine.Sandbox) int { return strings.Compare(a.Target, b.Target) },
		"updatedAt":      func(a, b engine.Sandbox) int { return a.UpdatedAt.Compare(b.UpdatedAt) },
		"createdAt":      func(a, b engine.Sandbox) int { return a.CreatedAt.Compare(b.CreatedAt) },
		"lastActivityAt": func(a, b engine.Sandbox) int { return a.LastActive.Compare(b.LastActive) },
	}[field]
	if ascending {
		return by
	}
	return func(a, b engine.Sandbox) int { return by(b, a) }
}
