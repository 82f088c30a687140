package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type snapshots struct{ c *Client }

func snapshotPath(ref engine.SnapshotRef) (string, error) {
	if ref.IDOrName == "" {
		return "", engine.Errorf(engine.KindInvalid, "the id or name of a snapshot is missing")
	}
	return "/api/snapshots/" + escape(ref.IDOrName), nil
}

func (s snapshots) Create(ctx context.Context, req engine.CreateSnapshot) (engine.Snapshot, error) {
	var d wire.Snapshot
	err := s.c.do(ctx, call{method: http.MethodPost, path: "/api/snapshots", in: wire.FromCreateSnapshot(req), out: &d})
	if err != nil {
		return engine.Snapshot{}, err
	}
	return d.Snapshot(), nil
}

func (s snapshots) Snapshot(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	path, err := snapshotPath(ref)
	if err != nil {
		return engine.Snapshot{}, err
	}
	var d wire.Snapshot
	if err := s.c.do(ctx, call{method: http.MethodGet, path: path, out: &d}); err != nil {
		return engine.Snapshot{}, err
	}
	return d.Snapshot(), nil
}

func (s snapshots) List(ctx context.Context, q engine.SnapshotQuery) (engine.SnapshotPage, error) {
	v := url.Values{}
	if q.Name != "" {
		v.Set("name", q.Name)
	}
	if q.Page > 0 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	var d wire.SnapshotPage
	if err := s.c.do(ctx, call{method: http.MethodGet, path: "/api/snapshots", query: v, out: &d}); err != nil {
		return engine.SnapshotPage{}, err
	}
	page := engine.SnapshotPage{Total: d.Total}
	for _, item := range d.Items {
		page.Items = append(page.Items, item.Snapshot())
	}
	return page, nil
}

func (s snapshots) Delete(ctx context.Context, ref engine.SnapshotRef) error {
	path, err := snapshotPath(ref)
	if err != nil {
		return err
	}
	return s.c.do(ctx, call{method: http.MethodDelete, path: path})
}

func (s snapshots) Prepare(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error) {
	path, err := snapshotPath(ref)
	if err != nil {
		return engine.Snapshot{}, err
	}
	var d wire.Snapshot
	if err := s.c.do(ctx, call{method: http.MethodPost, path: path + "/prepare", out: &d}); err != nil {
		return engine.Snapshot{}, err
	}
	return d.Snapshot(), nil
}

func (s snapshots) Save(ctx context.Context, ref engine.SandboxRef, name string) (engine.Snapshot, error) {
	path, err := sandboxPath(ref, "/snapshot")
	if err != nil {
		return engine.Snapshot{}, err
	}
	var d wire.Saved
	if err := s.c.do(ctx, call{method: http.MethodPost, path: path, in: wire.Save{Name: name}, out: &d}); err != nil {
		return engine.Snapshot{}, err
	}
	if d.SavedSnapshot == nil { // a server that is not ours
		return s.Snapshot(ctx, engine.SnapshotRef{IDOrName: name})
	}
	return d.SavedSnapshot.Snapshot(), nil
}

func (s snapshots) Fork(ctx context.Context, ref engine.SandboxRef, name string) (engine.Sandbox, error) {
	body := wire.Fork{}
	if name != "" {
		body.Name = &name
	}
	return s.c.onSandbox(ctx, http.MethodPost, ref, "/fork", nil, body)
}
