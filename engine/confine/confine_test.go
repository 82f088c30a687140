package confine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/ebpf/enforce"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/policies"
)

// memory is a kernel that remembers.
type memory struct {
	rules   map[uint32]enforce.Rules
	groups  map[uint32]string
	fail    error
	events  []enforce.Event
	settled bool
}

func newKernel() *memory {
	return &memory{rules: map[uint32]enforce.Rules{}, groups: map[uint32]string{}}
}

func (k *memory) Set(n uint32, group string, r enforce.Rules) error {
	if k.fail == nil {
		k.rules[n], k.groups[n] = r, group
	}
	return k.fail
}

func (k *memory) Remove(n uint32) error {
	delete(k.rules, n)
	return k.fail
}

func (k *memory) Number(group string) (uint32, error) {
	if group == "/groups/a-0" {
		return 5, nil
	}
	return 0, nil
}
func (k *memory) Last() uint32  { return 41 }
func (k *memory) Settle() error { k.settled = true; return nil }
func (k *memory) Close() error  { return nil }

func (k *memory) Read(context.Context) (enforce.Event, error) {
	if len(k.events) == 0 {
		return enforce.Event{}, os.ErrClosed
	}
	e := k.events[0]
	k.events = k.events[1:]
	return e, nil
}

type groups struct{}

func (groups) Group(_ context.Context, h driver.Handle) (string, error) {
	return "/groups/" + h.ID, nil
}

func TestConfine(t *testing.T) {
	k := newKernel()
	c := New(k, groups{}, slog.New(slog.DiscardHandler))
	rules := &engine.ExecFileRules{Policy: "p", Exec: policies.Paths{Deny: []string{"/usr/bin/nc"}}}
	one, two, old := driver.Handle{ID: "a-1"}, driver.Handle{ID: "a-2"}, driver.Handle{ID: "a-0"}
	for _, h := range []driver.Handle{one, two, one, old} {
		if err := c.Confine(t.Context(), h, rules); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[uint32]string{42: "/groups/a-1", 43: "/groups/a-2", 5: "/groups/a-0"}, k.groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	k.fail = errors.New("too many")
	if err := c.Confine(t.Context(), one, rules); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("got %v", err)
	}
	if err := c.Confine(t.Context(), one, nil); err == nil {
		t.Error("no error")
	}
	k.fail = nil
	for range 2 {
		if err := c.Confine(t.Context(), one, nil); err != nil {
			t.Error(err)
		}
	}
	if len(k.rules) != 2 {
		t.Errorf("%d sandboxes have rules, want 2", len(k.rules))
	}
}

// TestCompileAgreesWithDecide compares the patterns and the order of verdicts.
func TestCompileAgreesWithDecide(t *testing.T) {
	r := compile(&engine.ExecFileRules{
		Exec:  policies.Paths{Allow: []string{"/usr/bin/*"}, Deny: []string{"/usr/bin/nc"}},
		Write: policies.Paths{Deny: []string{"/etc/**"}},
	})
	want := enforce.Rules{
		Exec: enforce.List{Deny: true, Rules: []enforce.Rule{
			{Name: "exec/deny", Path: "/usr/bin/nc", Deny: true},
			{Name: "exec/allow", Path: "/usr/bin/*"},
			{Name: "engine", Path: "/.atoll/**", Override: true},
		}},
		Write: enforce.List{Rules: []enforce.Rule{{Name: "files/write/deny", Path: "/etc/**", Deny: true}}},
	}
	for _, path := range ownFiles {
		want.Write.Rules = append(want.Write.Rules, enforce.Rule{Name: "engine", Path: path, Override: true})
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestRefusalsAreRecords(t *testing.T) {
	k := newKernel()
	c := New(k, groups{}, slog.New(slog.DiscardHandler))
	if err := c.Confine(t.Context(), driver.Handle{ID: "a-1"}, &engine.ExecFileRules{Exec: policies.Paths{Deny: []string{"/x"}}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Confine(t.Context(), driver.Handle{ID: "a-1"}, nil); err != nil {
		t.Fatal(err)
	}
	k.events = []enforce.Event{
		{Sandbox: 42, Op: enforce.OpExec, Access: enforce.Exec, Path: "/x", Rule: "exec/deny"},
		{Sandbox: 42, Op: enforce.OpOpen, Access: enforce.Write, Path: "/y", Cut: true},
		{Sandbox: 42, Op: enforce.OpRename, Access: enforce.Read, Path: "/z", Why: enforce.Looser, Rule: "files/read/deny"},
		{Sandbox: 7, Op: enforce.OpExec, Path: "/nobody's"},
	}
	var got []engine.ActivityRecord
	err := c.Watch(t.Context(), func(instance string, r engine.ActivityRecord) {
		if instance != "a-1" || r.Time.IsZero() {
			t.Errorf("%s at %v", instance, r.Time)
		}
		got = append(got, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []engine.ActivityRecord{
		{Kind: engine.ActivityExec, Operation: "exec", Detail: "/x", Verdict: "deny", Rule: "exec/deny", Reason: "a rule denies it"},
		{Kind: engine.ActivityFile, Operation: "open", Detail: "/y…", Verdict: "deny", Rule: "files/write/default", Reason: "files/write/allow does not list it"},
		{Kind: engine.ActivityFile, Operation: "rename", Detail: "/z", Verdict: "deny", Rule: "files/read/deny", Reason: "it would be less restricted under its new name"},
	}
	for i := range got {
		got[i].Time = want[min(i, len(want)-1)].Time
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}
