package client

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type sandboxes struct{ c *Client }

// action answers a call that returns a sandbox.
func (c *Client) action(ctx context.Context, method, path string, query url.Values, in any) (engine.Sandbox, error) {
	var d wire.Sandbox
	err := c.do(ctx, call{method: method, path: path, query: query, in: in, out: &d})
	if err != nil {
		return engine.Sandbox{}, err
	}
	return d.Sandbox(), nil
}

func sandboxPath(ref engine.SandboxRef, rest string) (string, error) {
	if ref.IDOrName == "" {
		return "", engine.Errorf(engine.KindInvalid, "the id or name of a sandbox is missing")
	}
	return "/api/sandbox/" + escape(ref.IDOrName) + rest, nil
}

func (c *Client) onSandbox(ctx context.Context, method string, ref engine.SandboxRef, rest string, query url.Values, in any) (engine.Sandbox, error) {
	path, err := sandboxPath(ref, rest)
	if err != nil {
		return engine.Sandbox{}, err
	}
	return c.action(ctx, method, path, query, in)
}

func (s sandboxes) Create(ctx context.Context, req engine.CreateSandbox) (engine.Sandbox, error) {
	return s.c.action(ctx, http.MethodPost, "/api/sandbox", nil, wire.FromCreate(req))
}

func (s sandboxes) Sandbox(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return s.c.onSandbox(ctx, http.MethodGet, ref, "", nil, nil)
}

func (s sandboxes) Start(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return s.c.onSandbox(ctx, http.MethodPost, ref, "/start", nil, nil)
}

func (s sandboxes) Stop(ctx context.Context, ref engine.SandboxRef, opt engine.StopOptions) (engine.Sandbox, error) {
	q := url.Values{}
	if opt.Force {
		q.Set("force", "true")
	}
	if opt.Grace > 0 {
		q.Set("graceSeconds", strconv.FormatFloat(opt.Grace.Seconds(), 'f', -1, 64))
	}
	return s.c.onSandbox(ctx, http.MethodPost, ref, "/stop", q, nil)
}

func (s sandboxes) Delete(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	return s.c.onSandbox(ctx, http.MethodDelete, ref, "", nil, nil)
}

func (s sandboxes) Resize(ctx context.Context, ref engine.SandboxRef, r engine.Resources) (engine.Sandbox, error) {
	return s.c.onSandbox(ctx, http.MethodPost, ref, "/resize", nil, wire.FromResize(r))
}

func (s sandboxes) List(ctx context.Context, q engine.SandboxQuery) (engine.SandboxPage, error) {
	values, err := listQuery(q)
	if err != nil {
		return engine.SandboxPage{}, err
	}
	var d wire.Page
	if err := s.c.do(ctx, call{method: http.MethodGet, path: "/api/sandbox", query: values, out: &d}); err != nil {
		return engine.SandboxPage{}, err
	}
	page := engine.SandboxPage{Total: d.Total}
	if d.NextCursor != nil {
		page.Next = *d.NextCursor
	}
	for _, item := range d.Items {
		page.Items = append(page.Items, item.Sandbox())
	}
	return page, nil
}

func listQuery(q engine.SandboxQuery) (url.Values, error) {
	v := url.Values{"snapshots": q.Snapshots}
	for name, value := range map[string]string{"id": q.IDPrefix, "name": q.NamePrefix, "cursor": q.Cursor, "sort": q.Sort} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for _, s := range q.States {
		v.Add("states", string(s))
	}
	if len(q.Labels) > 0 {
		labels, err := json.Marshal(q.Labels)
		if err != nil {
			return nil, fmt.Errorf("encode labels: %w", err)
		}
		v.Set("labels", string(labels))
	}
	if q.IncludeErroredDeleted {
		v.Set("includeErroredDeleted", "true")
	}
	if q.Ascending {
		v.Set("order", "asc")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v, nil
}

// Update makes one call per changed property, because the contract has one
// operation for each. It stops at the first error.
func (s sandboxes) Update(ctx context.Context, ref engine.SandboxRef, u engine.UpdateSandbox) (engine.Sandbox, error) {
	for _, step := range s.steps(u) {
		path, err := sandboxPath(ref, step.path)
		if err != nil {
			return engine.Sandbox{}, err
		}
		if err := s.c.do(ctx, call{method: step.method, path: path, in: step.in}); err != nil {
			return engine.Sandbox{}, err
		}
	}
	return s.Sandbox(ctx, ref)
}

func (s sandboxes) steps(u engine.UpdateSandbox) []call {
	var out []call
	if u.Labels != nil {
		labels := *u.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		out = append(out, call{method: http.MethodPut, path: "/labels", in: wire.Labels{Labels: labels}})
	}
	if u.Public != nil {
		out = append(out, call{method: http.MethodPost, path: "/public/" + strconv.FormatBool(*u.Public)})
	}
	for _, timer := range []struct {
		path  string
		value *time.Duration
	}{{"/autostop/", u.AutoStop}, {"/autoarchive/", u.AutoArchive}, {"/autodelete/", u.AutoDelete}, {"/ttl/", u.TTL}} {
		if timer.value != nil {
			out = append(out, call{method: http.MethodPost, path: timer.path + minutes(*timer.value)})
		}
	}
	if u.Network != nil {
		out = append(out, call{method: http.MethodPost, path: "/network-settings", in: wire.FromNetwork(*u.Network)})
	}
	if u.Policy != nil {
		out = append(out, call{method: http.MethodPut, path: "/policy", in: wire.AttachPolicy{Policy: *u.Policy}})
	}
	return out
}

func minutes(d time.Duration) string {
	if d < 0 {
		return "-1"
	}
	m := d.Minutes()
	if m == math.Trunc(m) {
		return strconv.FormatInt(int64(m), 10)
	}
	return strconv.FormatFloat(m, 'f', -1, 64)
}
