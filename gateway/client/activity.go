package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Activity returns what sandboxes did. A Wait of a query is not for the wire:
// the client asks again until there is something.
func (c *Client) Activity() engine.Activity { return activity{c} }

type activity struct{ c *Client }

// askAgain is how long a waiting query sleeps between its questions.
const askAgain = 500 * time.Millisecond

func (a activity) Records(ctx context.Context, ref engine.SandboxRef, q engine.ActivityQuery) (engine.ActivityPage, error) {
	path, err := sandboxPath(ref, "/activity")
	if err != nil {
		return engine.ActivityPage{}, err
	}
	until := time.Now().Add(q.Wait)
	for {
		var page wire.ActivityPage
		if err := a.c.do(ctx, call{method: http.MethodGet, path: path, query: activityValues(q), out: &page}); err != nil {
			return engine.ActivityPage{}, err
		}
		if len(page.Items) > 0 || !time.Now().Before(until) {
			return engine.ActivityPage(page), nil
		}
		q.After = max(q.After, page.Next)
		select {
		case <-ctx.Done():
			return engine.ActivityPage{}, engine.AsError(ctx.Err())
		case <-time.After(askAgain):
		}
	}
}

func activityValues(q engine.ActivityQuery) url.Values {
	v := url.Values{}
	for _, k := range q.Kinds {
		v.Add("kind", string(k))
	}
	if q.Call != "" {
		v.Set("call", q.Call)
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Newest {
		v.Set("newest", "true")
	}
	return v
}

func (a activity) Verify(ctx context.Context, ref engine.SandboxRef, known *engine.ActivityHead) (engine.ActivityProof, error) {
	path, err := sandboxPath(ref, "/activity/verify")
	if err != nil {
		return engine.ActivityProof{}, err
	}
	v := url.Values{}
	if known != nil {
		v.Set("sequence", strconv.FormatUint(known.Sequence, 10))
		v.Set("hash", known.Hash)
	}
	var p engine.ActivityProof
	return p, a.c.do(ctx, call{method: http.MethodGet, path: path, query: v, out: &p})
}

// maxReport bounds a report.
const maxReport = 16 << 20

// ActivityReport returns the page for people, as HTML.
func (c *Client) ActivityReport(ctx context.Context, ref engine.SandboxRef) ([]byte, error) {
	path, err := sandboxPath(ref, "/activity/report")
	if err != nil {
		return nil, err
	}
	res, err := c.send(ctx, call{method: http.MethodGet, path: path})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, problem(res)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxReport))
}
