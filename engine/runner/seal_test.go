package runner

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
)

// sealed records which sandboxes are sealed.
type sealed struct {
	now  map[string]bool
	slot map[int]string
	err  error
}

func (s *sealed) Seal(slot network.Slot, sandbox string) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.now[sandbox], s.slot[slot.Index] = true, sandbox
	return []byte("a certificate"), nil
}

func (s *sealed) Unseal(slot network.Slot) error {
	delete(s.now, s.slot[slot.Index])
	return nil
}

func TestSecretsSealTheNetwork(t *testing.T) {
	h := newHost(t)
	s := &sealed{now: map[string]bool{}, slot: map[int]string{}}
	with := func(c *Config) { c.Seals = s }
	r := h.runner(t, with)
	ctx := t.Context()
	check := func(story string, want ...string) {
		t.Helper()
		expected := map[string]bool{}
		for _, id := range want {
			expected[id] = true
		}
		if d := cmp.Diff(expected, s.now); d != "" {
			t.Errorf("%s: %s", story, d)
		}
	}
	plain, has := launch("plain"), launch("has")
	has.Secrets = true
	for _, l := range []engine.Launch{plain, has} {
		if _, err := r.Launch(ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	check("launched", "has")
	if err := errors.Join(r.SetSecrets(ctx, "plain", true), r.SetSecrets(ctx, "has", true)); err != nil {
		t.Fatal(err)
	}
	check("attached", "plain", "has")
	if err := r.SetSecrets(ctx, "has", false); err != nil {
		t.Fatal(err)
	}
	check("detached", "plain")
	// The next run of the server seals what has secrets anew.
	r.Close()
	clear(s.now)
	r = h.runner(t, with)
	defer r.Close()
	check("after a restart", "plain")
	// What cannot be sealed is not said to be.
	s.err = errors.New("no memory")
	if err := r.SetSecrets(ctx, "has", true); !errors.Is(err, s.err) {
		t.Errorf("got %v", err)
	}
	failed := launch("failed")
	failed.Secrets = true
	if _, err := r.Launch(ctx, failed); !errors.Is(err, s.err) {
		t.Errorf("got %v", err)
	}
	if err := r.SetSecrets(ctx, "nobody", true); err == nil {
		t.Error("a sandbox that is not there has secrets")
	}
}
