package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Access returns what sandboxes were denied. The key decides who asks, so
// principals are ignored.
func (c *Client) Access() engine.AccessRequests { return access{c} }

type access struct{ c *Client }

func (a access) Requests(ctx context.Context, q engine.AccessQuery) ([]engine.AccessRequest, error) {
	v := url.Values{}
	for key, value := range map[string]string{"sandbox": q.Sandbox, "state": string(q.State)} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return a.list(ctx, v)
}

func (a access) Denied(ctx context.Context, ref engine.SandboxRef, within time.Duration) ([]engine.AccessRequest, error) {
	return a.list(ctx, url.Values{"sandbox": {ref.IDOrName}, "withinMs": {strconv.FormatInt(within.Milliseconds()+1, 10)}})
}

func (a access) list(ctx context.Context, v url.Values) ([]engine.AccessRequest, error) {
	var out []engine.AccessRequest
	return out, a.c.do(ctx, call{method: http.MethodGet, path: "/api/access-requests", query: v, out: &out})
}

func (a access) Approve(ctx context.Context, _ engine.Principal, id string, period time.Duration) (engine.AccessRequest, error) {
	return a.decide(ctx, id, "approve", period)
}

func (a access) Deny(ctx context.Context, _ engine.Principal, id string, period time.Duration) (engine.AccessRequest, error) {
	return a.decide(ctx, id, "deny", period)
}

func (a access) decide(ctx context.Context, id, verb string, period time.Duration) (engine.AccessRequest, error) {
	if id == "" {
		return engine.AccessRequest{}, engine.Errorf(engine.KindInvalid, "the id of a request is missing")
	}
	v := url.Values{}
	if period > 0 {
		v.Set("seconds", seconds(period))
	}
	var out engine.AccessRequest
	return out, a.c.do(ctx, call{method: http.MethodPost, path: "/api/access-requests/" + escape(id) + "/" + verb, query: v, out: &out})
}

// seconds rounds up, so that no time becomes none.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// Learner runs sandboxes open for a while.
func (c *Client) Learner() engine.Learner { return learner{c} }

type learner struct{ c *Client }

func (l learner) Learn(ctx context.Context, _ engine.Principal, ref engine.SandboxRef, d time.Duration, since time.Time) (engine.Lesson, error) {
	v := url.Values{"seconds": {seconds(d)}}
	if !since.IsZero() {
		v.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return l.do(ctx, http.MethodPost, ref, v)
}

func (l learner) Lesson(ctx context.Context, ref engine.SandboxRef, o engine.LessonOptions) (engine.Lesson, error) {
	return l.do(ctx, http.MethodGet, ref, lessonValues(o))
}

func (l learner) Finish(ctx context.Context, _ engine.Principal, ref engine.SandboxRef, o engine.LessonOptions) (engine.Lesson, error) {
	return l.do(ctx, http.MethodDelete, ref, lessonValues(o))
}

func lessonValues(o engine.LessonOptions) url.Values {
	v := url.Values{"wildcards": {strconv.FormatBool(o.Wildcards)}}
	if o.Name != "" {
		v.Set("name", o.Name)
	}
	return v
}

func (l learner) do(ctx context.Context, method string, ref engine.SandboxRef, v url.Values) (engine.Lesson, error) {
	path, err := sandboxPath(ref, "/learn")
	if err != nil {
		return engine.Lesson{}, err
	}
	var out engine.Lesson
	return out, l.c.do(ctx, call{method: method, path: path, query: v, out: &out})
}
