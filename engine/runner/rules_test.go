package runner

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/fake"
	"github.com/atoll-sh/atoll/policies"
)

// story is what happened to the instances, in order. It confines.
type story struct {
	mu    sync.Mutex
	steps []string
	fail  error
}

func (s *story) add(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step)
}

func (s *story) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := s.steps
	s.steps = nil
	return steps
}

func (s *story) Confine(_ context.Context, h driver.Handle, rules *engine.ExecFileRules) error {
	if h.ID == "" {
		return errors.New("no instance")
	}
	if rules == nil {
		s.add("lift")
		return nil
	}
	s.add("confine by " + rules.Policy)
	return s.fail
}

// toolbox notes when a sandbox may begin.
func (s *story) toolbox(driver.Spec) http.Handler {
	next := fake.Toolbox()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/internal/identity" {
			s.add("begin")
		}
		next.ServeHTTP(w, r)
	})
}

func (s *story) use(c *Config) { c.Confiner = s }

var confined = engine.ExecFileRules{Policy: "p", Exec: policies.Paths{Deny: []string{"/usr/bin/nc"}}}

func TestRulesStandBeforeTheSandboxBegins(t *testing.T) {
	h, s := newHost(t), &story{}
	h.driver = fake.New(s.toolbox)
	r := h.runner(t, s.use)
	defer func() { r.Close() }()
	l := launch("one")
	l.Rules = &confined
	if _, err := r.Launch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), []string{"confine by p", "begin"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	other := confined
	other.Policy = "q"
	for _, rules := range []*engine.ExecFileRules{&other, nil, &confined} {
		if err := r.SetRules(t.Context(), "one", rules); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.take(), []string{"confine by q", "lift", "confine by p"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	r.Close()
	r = h.runner(t, s.use)
	if got, want := s.take(), []string{"confine by p"}; !slices.Equal(got, want) {
		t.Errorf("after a restart: got %v, want %v", got, want)
	}
	if err := r.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), []string{"lift"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRulesThatCannotBeEnforced(t *testing.T) {
	h := newHost(t)
	before := h.held()
	r := h.runner(t)
	l := launch("one")
	l.Rules = &confined
	if _, err := r.Launch(t.Context(), l); engine.KindOf(err) != engine.KindUnsupported {
		t.Errorf("got %v, want unsupported", err)
	}
	if h.held() != before {
		t.Errorf("%s is left", h.held())
	}
	easy := confined
	easy.BestEffort = true
	l.Rules = &easy
	if _, err := r.Launch(t.Context(), l); err != nil {
		t.Error(err)
	}
	r.Close()

	s := &story{fail: errors.New("no")}
	r = h.runner(t, s.use)
	defer r.Close()
	l = launch("two")
	l.Rules = &confined
	if _, err := r.Launch(t.Context(), l); err == nil {
		t.Error("no error")
	}
	if _, err := r.find("two"); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("got %v", err)
	}
}
