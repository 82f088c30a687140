package api

import (
	"context"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// SandboxPath names the sandbox of a request. It is exported because huma
// looks only into exported embedded types.
type SandboxPath struct {
	Sandbox string `path:"sandboxIdOrName" maxLength:"255" doc:"id or name"`
}

// SandboxID is the same under the other name that the contract has for it.
type SandboxID struct {
	ID string `path:"sandboxId" maxLength:"255" doc:"id or name"`
}

func (a *API) registerSandboxes() {
	handle(a, "POST", "/sandbox", "Create a sandbox and wait until it runs", a.create)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}", "One sandbox", a.sandbox)
	handle(a, "DELETE", "/sandbox/{sandboxIdOrName}", "Delete a sandbox and its disk", a.remove)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/start", "Start a stopped sandbox", a.start)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/stop", "Stop a sandbox and keep its disk", a.stop)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/recover", "Start a sandbox that is in error", a.recover)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/resize", "Change the limits of a sandbox", a.resize)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/snapshot", "Make a snapshot of a sandbox's disk", a.save)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/fork", "Make a new sandbox with a copy of the disk", a.fork)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/parent", "The sandbox this one was forked from", a.parent)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/ancestors", "The parent, its parent and so on", a.ancestors)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/build-logs-url", "Where the build log is read", a.buildLogsURL)
	a.route("GET", "/sandbox/{sandboxIdOrName}/build-logs", http.HandlerFunc(a.buildLogs))
	handle(a, "GET", "/sandbox/{sandboxId}/toolbox-proxy-url", "Base URL of the toolbox API", a.toolboxProxyURL)
	handleEmpty(a, "POST", "/sandbox/{sandboxId}/last-activity", "Count as activity", http.StatusCreated, a.touch)
}

func ref(ctx context.Context, idOrName string) engine.SandboxRef {
	return engine.SandboxRef{OrganizationID: auth.Organization(ctx), IDOrName: idOrName}
}

// answer makes the body of an operation that returns a sandbox.
func answer(ctx context.Context, s engine.Sandbox, err error) (wire.Sandbox, error) {
	if err != nil {
		return wire.Sandbox{}, err
	}
	return wire.FromSandbox(s, toolboxURL(ctx)), nil
}

type createInput struct{ Body wire.CreateSandbox }

func (a *API) create(ctx context.Context, in *createInput) (wire.Sandbox, error) {
	began := time.Now()
	req, err := in.Body.Request(auth.Organization(ctx))
	if err != nil {
		return wire.Sandbox{}, err
	}
	s, err := a.Sandboxes.Create(ctx, req)
	if err == nil && a.Created != nil {
		a.Created(s, time.Since(began))
	}
	return answer(ctx, s, err)
}

type getInput struct {
	SandboxPath
	Verbose bool `query:"verbose" doc:"add a sample of its use"`
}

func (a *API) sandbox(ctx context.Context, in *getInput) (wire.Sandbox, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	d, err := answer(ctx, s, err)
	if err != nil || !in.Verbose || s.State != engine.StateStarted {
		return d, err
	}
	if stats, err := a.Inspector.Stats(ctx, ref(ctx, s.ID)); err == nil {
		usage := wire.FromStats(stats)
		d.Usage = &usage
	}
	return d, nil
}

func (a *API) remove(ctx context.Context, in *SandboxPath) (wire.Sandbox, error) {
	s, err := a.Sandboxes.Delete(ctx, ref(ctx, in.Sandbox))
	return answer(ctx, s, err)
}

func (a *API) start(ctx context.Context, in *SandboxPath) (wire.Sandbox, error) {
	s, err := a.Sandboxes.Start(ctx, ref(ctx, in.Sandbox))
	return answer(ctx, s, err)
}

type stopInput struct {
	SandboxPath
	Force        bool    `query:"force" doc:"kill at once"`
	GraceSeconds float64 `query:"graceSeconds" minimum:"0" maximum:"600" doc:"extension: wait this long after SIGTERM"`
}

func (a *API) stop(ctx context.Context, in *stopInput) (wire.Sandbox, error) {
	grace := time.Duration(in.GraceSeconds * float64(time.Second))
	s, err := a.Sandboxes.Stop(ctx, ref(ctx, in.Sandbox), engine.StopOptions{Force: in.Force, Grace: grace})
	return answer(ctx, s, err)
}

type recoverInput struct {
	SandboxPath
	SkipStart bool `query:"skipStart"`
}

func (a *API) recover(ctx context.Context, in *recoverInput) (wire.Sandbox, error) {
	if in.SkipStart {
		return wire.Sandbox{}, wire.NotBuilt("recover with skipStart")
	}
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	if err != nil {
		return wire.Sandbox{}, err
	}
	if s.State != engine.StateError || !s.Recoverable {
		return wire.Sandbox{}, engine.Errorf(engine.KindInvalid, "sandbox %s is %s, only a recoverable error can be recovered", s.Name, s.State)
	}
	s, err = a.Sandboxes.Start(ctx, ref(ctx, s.ID))
	return answer(ctx, s, err)
}

type resizeInput struct {
	SandboxPath
	Body wire.Resize
}

func (a *API) resize(ctx context.Context, in *resizeInput) (wire.Sandbox, error) {
	r, err := in.Body.Resources()
	if err != nil {
		return wire.Sandbox{}, err
	}
	s, err := a.Sandboxes.Resize(ctx, ref(ctx, in.Sandbox), r)
	return answer(ctx, s, err)
}

type saveInput struct {
	SandboxPath
	Body wire.Save
}

func (a *API) save(ctx context.Context, in *saveInput) (wire.Saved, error) {
	if in.Body.IncludeMemory {
		return wire.Saved{}, engine.Errorf(engine.KindUnsupported, "includeMemory: this class of sandbox has no memory snapshots").
			WithHint("leave includeMemory out to save the disk")
	}
	if err := wire.CheckSnapshotName(in.Body.Name); err != nil {
		return wire.Saved{}, err
	}
	snap, err := a.Snapshots.Save(ctx, ref(ctx, in.Sandbox), in.Body.Name)
	if err != nil {
		return wire.Saved{}, err
	}
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	d, err := answer(ctx, s, err)
	saved := wire.FromSnapshot(snap)
	return wire.Saved{Sandbox: d, SavedSnapshot: &saved}, err
}

type forkInput struct {
	SandboxPath
	Body *wire.Fork
}

func (a *API) fork(ctx context.Context, in *forkInput) (wire.Sandbox, error) {
	name := ""
	if in.Body != nil && in.Body.Name != nil {
		name = *in.Body.Name
	}
	s, err := a.Snapshots.Fork(ctx, ref(ctx, in.Sandbox), name)
	return answer(ctx, s, err)
}

func (a *API) parent(ctx context.Context, in *SandboxPath) (wire.Sandbox, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	if err != nil {
		return wire.Sandbox{}, err
	}
	if s.Parent == "" {
		return wire.Sandbox{}, engine.Errorf(engine.KindNotFound, "sandbox %s was not forked from another", s.Name)
	}
	p, err := a.Sandboxes.Sandbox(ctx, ref(ctx, s.Parent))
	return answer(ctx, p, err)
}

func (a *API) ancestors(ctx context.Context, in *SandboxPath) ([]wire.Sandbox, error) {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.Sandbox))
	out := []wire.Sandbox{}
	for err == nil && s.Parent != "" {
		s, err = a.Sandboxes.Sandbox(ctx, ref(ctx, s.Parent))
		if engine.KindOf(err) == engine.KindNotFound {
			return out, nil // deleted since
		}
		if err == nil {
			out = append(out, wire.FromSandbox(s, toolboxURL(ctx)))
		}
	}
	return out, err
}

type link struct {
	URL string `json:"url"`
}

func (a *API) toolboxProxyURL(ctx context.Context, in *SandboxID) (link, error) {
	if _, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.ID)); err != nil {
		return link{}, err
	}
	return link{toolboxURL(ctx)}, nil
}

// touch counts as activity and refuses a sandbox that does not run.
func (a *API) touch(ctx context.Context, in *SandboxID) error {
	s, err := a.Sandboxes.Sandbox(ctx, ref(ctx, in.ID))
	if err == nil {
		_, err = a.Toolboxes.Toolbox(ctx, ref(ctx, s.ID))
	}
	if err == nil {
		a.Previews.Hold(s.ID)()
	}
	return err
}
