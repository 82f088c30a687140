package gateway_test

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
)

func (h house) client(t *testing.T, w *world) *client.Client {
	t.Helper()
	c, err := client.New(w.url, h.owner, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAccessTravels(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	ctx, access := t.Context(), h.client(t, w).Access()
	must := func(r engine.AccessRequest, err error) engine.AccessRequest {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	all, err := access.Requests(ctx, engine.AccessQuery{Sandbox: h.name, State: engine.AccessPending, Limit: 5})
	if err != nil || len(all) != 1 || all[0].ID != h.access || all[0].SandboxName != h.name || all[0].Count != 1 || all[0].FirstAt.IsZero() {
		t.Fatalf("got %+v, %v", all, err)
	}
	ref := engine.SandboxRef{IDOrName: h.name}
	if got, err := access.Denied(ctx, ref, 10*time.Minute-time.Second); err != nil || len(got) != 1 || got[0].ID != h.access {
		t.Errorf("got %+v, %v", got, err)
	}
	got := must(access.Approve(ctx, engine.Principal{}, h.access, 90*time.Second))
	if left := got.Until.Sub(got.DecidedAt); got.State != engine.AccessApproved || left != 90*time.Second || got.DecidedBy != h.ownerID {
		t.Errorf("got %+v", got)
	}
	sb, err := h.client(t, w).Sandboxes().Sandbox(ctx, ref)
	if err != nil || len(sb.Network.Grants) != 1 || sb.Network.Grants[0].ID != h.access {
		t.Errorf("got %+v, %v", sb.Network, err)
	}
	if got := must(access.Approve(ctx, engine.Principal{}, h.access, 0)); !got.Until.IsZero() {
		t.Errorf("for good: got %+v", got)
	}
	if got := must(access.Deny(ctx, engine.Principal{}, h.access, 0)); got.State != engine.AccessDenied || got.Until.IsZero() {
		t.Errorf("got %+v", got)
	}
	actions := func() (out []string) {
		for _, e := range w.entries(h.owner, "/audit/organizations/"+h.organization) {
			out = append(out, e.Action)
		}
		return out
	}
	for deadline := time.Now().Add(time.Minute); !slices.Contains(actions(), "approve_access") || !slices.Contains(actions(), "deny_access"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the decisions are not in the audit log: %q", actions())
		}
	}
}

func TestLearningTravels(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	ctx, learner, ref := t.Context(), h.client(t, w).Learner(), engine.SandboxRef{IDOrName: h.name}
	first, err := learner.Learn(ctx, engine.Principal{}, ref, time.Minute, time.Time{})
	if err != nil || !first.Active || first.Sandbox != h.sandbox {
		t.Fatalf("got %+v, %v", first, err)
	}
	again, err := learner.Learn(ctx, engine.Principal{}, ref, time.Hour, first.Since)
	if err != nil || !again.Since.Equal(first.Since) || !again.Until.After(first.Until) {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := learner.Learn(ctx, engine.Principal{}, ref, time.Hour, first.Since.Add(1)); engine.KindOf(err) != engine.KindConflict {
		t.Errorf("another time of learning: got %v", err)
	}
	l, err := learner.Finish(ctx, engine.Principal{}, ref, engine.LessonOptions{Name: "learned", Wildcards: true})
	if err != nil || l.Active || !strings.HasPrefix(l.Policy, "name: learned\n") || l.Notes == nil {
		t.Errorf("got %+v, %v", l, err)
	}
}

func TestAccessBadInput(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	for path, want := range map[string]int{
		"GET /access-requests?state=maybe":                                     400,
		"GET /access-requests?limit=0":                                         400,
		"GET /access-requests?withinMs=5":                                      400,
		"GET /access-requests?withinMs=5&sandbox=" + h.name + "&state=pending": 400,
		"GET /access-requests?sandbox=nope":                                    404,
		"POST /access-requests/nope/approve":                                   404,
		"POST /access-requests/" + h.access + "/approve?seconds=-1":            400,
		"POST /access-requests/" + h.access + "/deny?seconds=99999999":         400,
		"POST /sandbox/" + h.name + "/learn":                                   400,
		"POST /sandbox/" + h.name + "/learn?seconds=0":                         400,
		"POST /sandbox/" + h.name + "/learn?seconds=86401":                     400,
		"POST /sandbox/" + h.name + "/learn?seconds=9&since=now":               400,
		"GET /sandbox/" + h.name + "/learn":                                    404,
	} {
		method, rest, _ := strings.Cut(path, " ")
		if res, body := request(t, method, w.url+"/api"+rest, h.owner, ""); res.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", path, res.StatusCode, body, want)
		}
	}
	sb, err := h.client(t, w).Sandboxes().Sandbox(t.Context(), engine.SandboxRef{IDOrName: h.name})
	if err != nil || len(sb.Network.Grants) != 0 || sb.Learning != nil {
		t.Errorf("something was changed: %+v, %v", sb, err)
	}
}

// TestAccessEvent tells a listener of what is new.
func TestAccessEvent(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/api/events?types="+engine.EventAccessRequested, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.owner)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	w.Observe(engine.ActivityRecord{Kind: engine.ActivityDeny, Sandbox: h.sandbox, Remote: "192.0.2.9:22", Protocol: "tcp", Rule: "default"})
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if !strings.Contains(data, `"address":"192.0.2.9","port":22,"protocol":"tcp"`) || !strings.Contains(data, h.sandbox) {
				t.Errorf("got %s", data)
			}
			return
		}
	}
	t.Error("the stream ended")
}
