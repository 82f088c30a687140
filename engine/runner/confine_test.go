package runner

import (
	"context"
	"errors"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/policies"
)

// confined remembers the rules of each instance, by its id.
type confined struct {
	now map[string]*engine.ExecFileRules
	err error
}

func (c *confined) Confine(_ context.Context, h driver.Handle, rules *engine.ExecFileRules) error {
	if c.err != nil {
		return c.err
	}
	c.now[h.ID] = rules
	if rules == nil {
		delete(c.now, h.ID)
	}
	return nil
}

func noNetcat(bestEffort bool) *engine.ExecFileRules {
	return &engine.ExecFileRules{Policy: "build", Exec: policies.Paths{Deny: []string{"/usr/bin/nc*"}}, BestEffort: bestEffort}
}

// A host that cannot enforce rules refuses them, unless they are best effort.
func TestRulesThatTheHostCannotEnforce(t *testing.T) {
	r := newHost(t).runner(t)
	defer r.Close()
	ctx := t.Context()
	l := launch("strict")
	l.Rules = noNetcat(false)
	if _, err := r.Launch(ctx, l); engine.KindOf(err) != engine.KindUnsupported {
		t.Errorf("got %v", err)
	}
	if list, err := r.Instances(ctx); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
	l = launch("loose")
	l.Rules = noNetcat(true)
	if _, err := r.Launch(ctx, l); err != nil {
		t.Fatal(err)
	}
	if err := r.SetRules(ctx, "loose", noNetcat(false)); engine.KindOf(err) != engine.KindUnsupported {
		t.Errorf("got %v", err)
	}
	if info, err := r.Info(ctx); err != nil || info.Confines {
		t.Errorf("got %+v, %v", info, err)
	}
	if err := errors.Join(r.SetRules(ctx, "loose", nil), r.SetRules(ctx, "loose", nil)); err != nil {
		t.Error(err)
	}
}

// Rules hold from the launch on, change while the sandbox runs, and are taken
// up again by the next run of the runner.
func TestRulesAreEnforced(t *testing.T) {
	h := newHost(t)
	c := &confined{now: map[string]*engine.ExecFileRules{}}
	with := func(cfg *Config) { cfg.Confiner = c }
	r := h.runner(t, with)
	ctx := t.Context()
	l := launch("one")
	l.Rules = noNetcat(false)
	if _, err := r.Launch(ctx, l); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Launch(ctx, launch("free")); err != nil {
		t.Fatal(err)
	}
	count := func(want int) {
		t.Helper()
		if len(c.now) != want {
			t.Errorf("rules hold for %d instances, want %d", len(c.now), want)
		}
	}
	count(1)
	clear(c.now)
	r.Close()
	r = h.runner(t, with)
	defer r.Close()
	count(1)
	if err := r.SetRules(ctx, "one", nil); err != nil {
		t.Fatal(err)
	}
	count(0)
	if err := r.SetRules(ctx, "free", noNetcat(false)); err != nil {
		t.Fatal(err)
	}
	count(1)
	c.err = errors.New("no")
	l = launch("two")
	l.Rules = noNetcat(true)
	if _, err := r.Launch(ctx, l); err == nil {
		t.Error("it runs without its rules")
	}
	if info, err := r.Info(ctx); err != nil || !info.Confines {
		t.Errorf("got %+v, %v", info, err)
	}
}
