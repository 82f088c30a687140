package api

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerSettings() {
	handle(a, "PUT", "/sandbox/{sandboxIdOrName}/labels", "Replace all labels", a.setLabels)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/public/{isPublic}", "Make previews public or private", a.setPublic)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/autostop/{interval}", "Stop after minutes without activity", a.setAutoStop)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/autopause/{interval}", "Pause after minutes without activity", a.setAutoPause)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/autoarchive/{interval}", "Archive after minutes stopped", a.setAutoArchive)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/autodelete/{interval}", "Delete after minutes stopped", a.setAutoDelete)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}", "Delete after minutes of life", a.setTTL)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/network-settings", "Change what the sandbox may talk to", a.setNetwork)
}

type labelsInput struct {
	SandboxPath
	Body wire.Labels
}

func (a *API) setLabels(ctx context.Context, in *labelsInput) (wire.Labels, error) {
	s, err := a.Sandboxes.Update(ctx, ref(ctx, in.Sandbox), engine.UpdateSandbox{Labels: &in.Body.Labels})
	if err != nil {
		return wire.Labels{}, err
	}
	return wire.Labels{Labels: wire.FromItem(s, "").Labels}, nil
}

type publicInput struct {
	SandboxPath
	Public bool `path:"isPublic"`
}

func (a *API) setPublic(ctx context.Context, in *publicInput) (wire.Sandbox, error) {
	s, err := a.update(ctx, in.Sandbox, engine.UpdateSandbox{Public: &in.Public})
	if err == nil && !in.Public {
		a.PreviewURLs.CutPublic(s.ID)
	}
	return s, err
}

type intervalInput struct {
	SandboxPath
	Interval float64 `path:"interval"`
}

func (a *API) setAutoStop(ctx context.Context, in *intervalInput) (wire.Sandbox, error) {
	d, err := wire.Interval("interval", in.Interval)
	return a.setTimer(ctx, in.Sandbox, engine.UpdateSandbox{AutoStop: &d}, err)
}

func (a *API) setAutoArchive(ctx context.Context, in *intervalInput) (wire.Sandbox, error) {
	d, err := wire.ArchiveInterval("interval", in.Interval)
	return a.setTimer(ctx, in.Sandbox, engine.UpdateSandbox{AutoArchive: &d}, err)
}

func (a *API) setAutoDelete(ctx context.Context, in *intervalInput) (wire.Sandbox, error) {
	d, err := wire.DeleteInterval("interval", in.Interval)
	return a.setTimer(ctx, in.Sandbox, engine.UpdateSandbox{AutoDelete: &d}, err)
}

// setAutoPause can only be told that there shall be no pause.
func (a *API) setAutoPause(ctx context.Context, in *intervalInput) (wire.Sandbox, error) {
	if in.Interval != 0 {
		return wire.Sandbox{}, wire.ErrNoPause()
	}
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	return answer(ctx, s, err)
}

type ttlInput struct {
	SandboxPath
	Minutes float64 `path:"ttlMinutes"`
}

func (a *API) setTTL(ctx context.Context, in *ttlInput) (wire.Sandbox, error) {
	d, err := wire.Interval("ttlMinutes", in.Minutes)
	return a.setTimer(ctx, in.Sandbox, engine.UpdateSandbox{TTL: &d}, err)
}

type networkInput struct {
	SandboxPath
	Body wire.Network
}

func (a *API) setNetwork(ctx context.Context, in *networkInput) (wire.Sandbox, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	if err != nil {
		return wire.Sandbox{}, err
	}
	policy, err := in.Body.Apply(s.Network)
	if err != nil {
		return wire.Sandbox{}, err
	}
	return a.update(ctx, s.ID, engine.UpdateSandbox{Network: &policy})
}

func (a *API) setTimer(ctx context.Context, sandbox string, u engine.UpdateSandbox, invalid error) (wire.Sandbox, error) {
	if invalid != nil {
		return wire.Sandbox{}, invalid
	}
	return a.update(ctx, sandbox, u)
}

func (a *API) update(ctx context.Context, sandbox string, u engine.UpdateSandbox) (wire.Sandbox, error) {
	s, err := a.Sandboxes.Update(ctx, ref(ctx, sandbox), u)
	return answer(ctx, s, err)
}

// pollEvery is how often a wait looks again.
const pollEvery = 250 * time.Millisecond
