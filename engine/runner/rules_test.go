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
)

// story is what happened to the instances, in order. It confines.
type story struct {
	mu    sync.Mutex
	steps []string
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
	return nil
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

func TestRulesStandBeforeTheSandboxBegins(t *testing.T) {
	h, s := newHost(t), &story{}
	h.driver = fake.New(s.toolbox)
	r := h.runner(t, s.use)
	defer func() { r.Close() }()
	l := launch("one")
	l.Rules = noNetcat(false)
	if _, err := r.Launch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), []string{"confine by build", "begin"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	other := noNetcat(false)
	other.Policy = "other"
	for _, rules := range []*engine.ExecFileRules{other, nil, noNetcat(false)} {
		if err := r.SetRules(t.Context(), "one", rules); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.take(), []string{"confine by other", "lift", "confine by build"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	r.Close()
	r = h.runner(t, s.use)
	if got, want := s.take(), []string{"confine by build"}; !slices.Equal(got, want) {
		t.Errorf("after a restart: got %v, want %v", got, want)
	}
	if err := r.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), []string{"lift"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
