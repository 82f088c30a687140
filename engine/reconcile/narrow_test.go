package reconcile_test

import (
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// TestNarrow closes what was open for a time, and tries again when the runner
// fails.
func TestNarrow(t *testing.T) {
	w, s := live(t)
	one := s.state(t, "one")
	_, err := s.Sandboxes().Update(t.Context(), ref("one"), engine.UpdateSandbox{Network: &engine.NetworkPolicy{BlockAll: true}})
	s.must(t, err)
	_, err = s.Access().Approve(t.Context(), operator, s.asks(t.Context()), time.Hour)
	s.must(t, err)
	_, err = s.Learner().Learn(t.Context(), operator, ref("one"), time.Minute, time.Time{})
	s.must(t, err)
	if p := w.runner.Policy(one.ID); !p.Learn {
		t.Fatalf("got %+v", p)
	}
	w.clock.Advance(2 * time.Minute)
	w.runner.Fail("SetNetwork", engine.Errorf(engine.KindUnavailable, "no"))
	s.round(t)
	s.round(t)
	if p := w.runner.Policy(one.ID); p.Learn || !p.BlockAll || len(p.Grants) != 1 {
		t.Errorf("after learning: got %+v", p)
	}
	w.clock.Advance(time.Hour)
	s.end() // and what a server finds that was down meanwhile
	again := w.recover()
	if p := w.runner.Policy(one.ID); !p.BlockAll || len(p.Grants) != 0 {
		t.Errorf("after the grant: got %+v", p)
	}
	if got := again.state(t, "one"); len(got.Network.Grants) != 0 || !got.Learning.Over {
		t.Errorf("got %+v, %+v", got.Network, got.Learning)
	}
	w.sound()
}
