package api

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
)

func (a *API) registerAccess() {
	handle(a, "GET", "/access-requests", "What sandboxes were denied and an operator may allow", a.accessRequests)
	handle(a, "POST", "/access-requests/{requestId}/approve", "Open what a request is about, for the sandbox that was denied it", a.approveAccess)
	handle(a, "POST", "/access-requests/{requestId}/deny", "Refuse a request, or end what was approved", a.denyAccess)
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/learn", "Open a sandbox's network for a while and watch it, or prolong that", a.learn)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/learn", "The policy that a sandbox needs, as far as it was watched", a.lesson)
	handle(a, "DELETE", "/sandbox/{sandboxIdOrName}/learn", "Put a sandbox's network settings back, and answer with the policy", a.finishLearning)
}

type accessRequestsInput struct {
	Sandbox  string `query:"sandbox" maxLength:"255" doc:"id or name"`
	State    string `query:"state" enum:"pending,approved,denied"`
	Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	WithinMs int64  `query:"withinMs" minimum:"0" maximum:"600000" doc:"with sandbox: only what it was denied in the last milliseconds, the first denial first"`
}

func (a *API) accessRequests(ctx context.Context, in *accessRequestsInput) ([]engine.AccessRequest, error) {
	var all []engine.AccessRequest
	var err error
	switch {
	case in.WithinMs > 0 && (in.Sandbox == "" || in.State != ""):
		err = engine.Errorf(engine.KindInvalid, "withinMs goes with sandbox, and without state")
	case in.WithinMs > 0:
		all, err = a.Services.Access.Denied(ctx, ref(ctx, in.Sandbox), time.Duration(in.WithinMs)*time.Millisecond)
	default:
		all, err = a.Services.Access.Requests(ctx, engine.AccessQuery{
			OrganizationID: auth.Organization(ctx), Sandbox: in.Sandbox, State: engine.AccessState(in.State), Limit: in.Limit,
		})
	}
	if all == nil {
		all = []engine.AccessRequest{}
	}
	return all, err
}

type decideInput struct {
	ID      string `path:"requestId" maxLength:"255"`
	Seconds int64  `query:"seconds" minimum:"0" maximum:"31622400" doc:"for how long; without it an approval lasts until the network settings change, and a refusal is remembered for an hour"`
}

func (in decideInput) period() time.Duration { return time.Duration(in.Seconds) * time.Second }

func (a *API) approveAccess(ctx context.Context, in *decideInput) (engine.AccessRequest, error) {
	return a.Services.Access.Approve(ctx, caller(ctx), in.ID, in.period())
}

func (a *API) denyAccess(ctx context.Context, in *decideInput) (engine.AccessRequest, error) {
	return a.Services.Access.Deny(ctx, caller(ctx), in.ID, in.period())
}

type learnInput struct {
	SandboxPath
	Seconds int64     `query:"seconds" required:"true" minimum:"1" maximum:"86400" doc:"from now on"`
	Since   time.Time `query:"since" doc:"as an earlier answer told: prolong that time of learning, and begin none"`
}

func (a *API) learn(ctx context.Context, in *learnInput) (engine.Lesson, error) {
	return a.Services.Learner.Learn(ctx, caller(ctx), ref(ctx, in.Sandbox), time.Duration(in.Seconds)*time.Second, in.Since)
}

type lessonInput struct {
	SandboxPath
	Name      string `query:"name" maxLength:"63" doc:"of the policy; the sandbox's without it"`
	Wildcards bool   `query:"wildcards" doc:"make a wildcard of two names or more below one"`
}

func (in lessonInput) options() engine.LessonOptions {
	return engine.LessonOptions{Name: in.Name, Wildcards: in.Wildcards}
}

func (a *API) lesson(ctx context.Context, in *lessonInput) (engine.Lesson, error) {
	return a.Services.Learner.Lesson(ctx, ref(ctx, in.Sandbox), in.options())
}

func (a *API) finishLearning(ctx context.Context, in *lessonInput) (engine.Lesson, error) {
	return a.Services.Learner.Finish(ctx, caller(ctx), ref(ctx, in.Sandbox), in.options())
}
