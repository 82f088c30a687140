package core_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/learn"
)

// memory is a ledger of one sandbox.
type memory struct {
	mu    sync.Mutex
	items []engine.ActivityRecord
}

func (m *memory) Record(r engine.ActivityRecord) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Sequence = uint64(len(m.items) + 1)
	m.items = append(m.items, r)
}

func (m *memory) Owner(string) string { return "" }

func (m *memory) Query(_ context.Context, _ string, q engine.ActivityQuery) (page engine.ActivityPage, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	page.Next = uint64(len(m.items))
	for _, r := range m.items {
		if r.Sequence > q.After && !q.Newest {
			page.Items = append(page.Items, r)
		}
	}
	return page, nil
}

func (m *memory) Verify(context.Context, string, *engine.ActivityHead) (engine.ActivityProof, error) {
	return engine.ActivityProof{}, nil
}

func newLearningRig(t *testing.T) (*rig, *memory) {
	m := &memory{}
	return newRig(t, func(c *core.Config) { c.Ledger = m }), m
}

func connected(sandbox, remote string) engine.ActivityRecord {
	return engine.ActivityRecord{Kind: engine.ActivityConnect, Sandbox: sandbox, Remote: remote, Protocol: "tcp"}
}

func TestLearn(t *testing.T) {
	r, ledger := newLearningRig(t)
	ctx := t.Context()
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Network.BlockAll = true })
	_, err := r.Learner().Lesson(ctx, ref("box"), engine.LessonOptions{})
	wantKind(t, err, engine.KindNotFound)
	ledger.Record(connected(sb.ID, "192.0.2.1:22")) // before it learns

	reader := operator
	reader.Permissions = nil
	_, err = r.Learner().Learn(ctx, reader, ref("box"), time.Minute, time.Time{})
	wantKind(t, err, engine.KindDenied)
	for _, d := range []time.Duration{0, time.Millisecond, 25 * time.Hour, -time.Second} {
		_, err = r.Learner().Learn(ctx, operator, ref("box"), d, time.Time{})
		wantKind(t, err, engine.KindInvalid)
	}
	if r.runner.Policy(sb.ID).Learn {
		t.Fatal("a refused call opened the network")
	}

	first, err := r.Learner().Learn(ctx, operator, ref("box"), time.Minute, time.Time{})
	r.ok(err)
	if p := r.runner.Policy(sb.ID); !p.Learn || p.BlockAll || !first.Active {
		t.Fatalf("got %+v, %+v", p, first)
	}
	ledger.Record(engine.ActivityRecord{Kind: engine.ActivityDNS, Operation: learn.Resolved, Sandbox: sb.ID, Host: "example.com", Addresses: []string{"192.0.2.2"}})
	ledger.Record(connected(sb.ID, "192.0.2.2:9000"))
	again, err := r.Learner().Learn(ctx, operator, ref("box"), time.Hour, first.Since)
	r.ok(err)
	if !again.Since.Equal(first.Since) || !again.Until.After(first.Until) {
		t.Errorf("prolonged to %+v from %+v", again, first)
	}
	got, err := r.Sandboxes().Sandbox(ctx, ref("box"))
	if err != nil || !got.Network.BlockAll {
		t.Errorf("the settings are %+v, %v", got.Network, err)
	}

	l, err := r.Learner().Finish(ctx, operator, ref("box"), engine.LessonOptions{})
	r.ok(err)
	for _, part := range []string{"name: box\n", "- example.com\n", "- 9000/tcp\n"} {
		if !strings.Contains(l.Policy, part) {
			t.Errorf("%q is not in:\n%s", part, l.Policy)
		}
	}
	if p := r.runner.Policy(sb.ID); l.Active || !p.BlockAll || p.Learn || strings.Contains(l.Policy, "192.0.2") {
		t.Errorf("got %+v, %+v", p, l)
	}
	// It may be asked for again, and what ended is not prolonged.
	same, err := r.Learner().Finish(ctx, operator, ref("box"), engine.LessonOptions{Name: "other"})
	if err != nil || !strings.HasPrefix(same.Policy, "name: other\n") {
		t.Errorf("got %+v, %v", same, err)
	}
	_, err = r.Learner().Learn(ctx, operator, ref("box"), time.Hour, first.Since)
	wantKind(t, err, engine.KindConflict)
	_, err = r.Learner().Lesson(ctx, ref("box"), engine.LessonOptions{Name: "no name"})
	wantKind(t, err, engine.KindInvalid)

	_, err = r.Sandboxes().Stop(ctx, ref("box"), engine.StopOptions{})
	r.ok(err)
	_, err = r.Learner().Learn(ctx, operator, ref("box"), time.Hour, time.Time{})
	wantKind(t, err, engine.KindInvalid)
}

// Whoever sets the network closes it, and no renewal opens it again. A start
// after the time is over is closed, too.
func TestLearningEnds(t *testing.T) {
	r, _ := newLearningRig(t)
	ctx := t.Context()
	sb := r.create("box")
	l, err := r.Learner().Learn(ctx, operator, ref("box"), time.Hour, time.Time{})
	r.ok(err)
	_, err = r.Sandboxes().Update(ctx, ref("box"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{BlockAll: true}})
	r.ok(err)
	if p := r.runner.Policy(sb.ID); p.Learn || !p.BlockAll {
		t.Errorf("got %+v", p)
	}
	_, err = r.Learner().Learn(ctx, operator, ref("box"), time.Hour, l.Since)
	wantKind(t, err, engine.KindConflict)

	_, err = r.Learner().Learn(ctx, operator, ref("box"), time.Minute, time.Time{})
	r.ok(err)
	child, err := r.Snapshots().Fork(ctx, ref("box"), "child")
	r.ok(err)
	if p := r.runner.Policy(child.ID); p.Learn || !p.BlockAll {
		t.Errorf("a fork has %+v", p)
	}
	_, err = r.Sandboxes().Stop(ctx, ref("box"), engine.StopOptions{})
	r.ok(err)
	r.clock.Advance(time.Hour)
	_, err = r.Sandboxes().Start(ctx, ref("box"))
	r.ok(err)
	if p := r.runner.Launched(sb.ID).Network; p.Learn || !p.BlockAll {
		t.Errorf("got %+v", p)
	}
}

// A change of settings is no start.
func TestTheLedgerTellsOfLife(t *testing.T) {
	r, ledger := newLearningRig(t)
	ctx := t.Context()
	r.create("box")
	_, err := r.Learner().Learn(ctx, operator, ref("box"), time.Minute, time.Time{})
	r.ok(err)
	_, err = r.Learner().Finish(ctx, operator, ref("box"), engine.LessonOptions{})
	r.ok(err)
	_, err = r.Sandboxes().Stop(ctx, ref("box"), engine.StopOptions{})
	r.ok(err)
	var got []string
	for _, i := range ledger.items {
		if i.Kind == engine.ActivityLifecycle {
			got = append(got, i.Operation)
		}
	}
	if want := []string{"created", "started", "stopped"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRefusedPoliciesAreRecorded wants network policies that a sandbox may not
// have. Each attempt is in its ledger, with who made it and why it failed.
func TestRefusedPoliciesAreRecorded(t *testing.T) {
	r, ledger := newLearningRig(t)
	sb := r.create("box")
	key := engine.Principal{UserID: "u", KeyPrefix: "atl_a", KeySuffix: "z"}
	ctx := engine.WithCaller(t.Context(), engine.Caller{Door: "api", Principal: key})
	none, loose := "no-such-policy", "null"
	for _, u := range []engine.UpdateSandbox{
		{Network: &engine.NetworkPolicy{AllowCIDRs: []string{loose}}},
		{Network: &engine.NetworkPolicy{AllowDomains: []string{"*."}}},
		{Policy: &none},
	} {
		before := len(ledger.items)
		_, err := r.Sandboxes().Update(ctx, ref("box"), u)
		if err == nil || len(ledger.items) != before+1 {
			t.Fatalf("%+v: %v, %d records", u, err, len(ledger.items)-before)
		}
		got := ledger.items[before]
		if got.Sandbox != sb.ID || got.Kind != engine.ActivityPolicy || got.Operation != engine.PolicyRefused || got.Actor != "u" || got.Key != "atl_a…z" || got.Door != "api" || got.Reason != err.Error() {
			t.Errorf("%+v: got %+v", u, got)
		}
	}
	before := len(ledger.items)
	_, err := r.Sandboxes().Update(ctx, ref("nobody"), engine.UpdateSandbox{Policy: &none})
	wantKind(t, err, engine.KindNotFound)
	_, err = r.Sandboxes().Update(ctx, ref("box"), engine.UpdateSandbox{Labels: &map[string]string{"": ""}})
	wantKind(t, err, engine.KindInvalid)
	if len(ledger.items) != before {
		t.Errorf("recorded: %+v", ledger.items[before:])
	}
}
