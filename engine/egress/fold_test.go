package egress

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

// TestFold repeats records: the first of a kind passes, the others become one
// with their number, and what is of too many kinds becomes a loss.
func TestFold(t *testing.T) {
	d, begin := newFolder(), time.Unix(1000, 0)
	var got []string
	tell := func(h Holding, r engine.ActivityRecord) {
		got = append(got, fmt.Sprint(h.Number, " ", r.Kind, " ", r.Reason, " ", r.Count+r.Lost))
	}
	take := func(number uint32, reason string, at time.Duration) bool {
		return d.take(Holding{Number: number}, engine.ActivityRecord{Kind: engine.ActivityDeny, Reason: reason, Local: fmt.Sprint(at)}, begin.Add(at))
	}
	for i := range 5 {
		if first := take(1, "a", time.Duration(i)); first != (i == 0) {
			t.Errorf("record %d: told %v", i, first)
		}
	}
	if !take(2, "a", 0) || !take(1, "b", 0) {
		t.Error("another sandbox's, or another, is not told")
	}
	d.due(begin.Add(foldFor-1), tell)
	if len(got) > 0 {
		t.Errorf("told too early: %q", got)
	}
	d.due(begin.Add(foldFor), tell)
	if want := []string{"1 deny a 4"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(d.boxes) != 0 {
		t.Errorf("%d sandboxes are kept", len(d.boxes))
	}
	if !take(1, "a", foldFor) {
		t.Error("what is told anew is not told at once")
	}
	take(1, "a", foldFor)
	for i := range 2 * maxFolds {
		take(3, fmt.Sprint(i), 0)
	}
	got = nil
	d.end(3, tell)
	if want := []string{fmt.Sprint("3 loss more different things than are told one by one ", maxFolds)}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	d.all(tell)
	if want := []string{"1 deny a 1"}; !cmp.Equal(got, want) || len(d.boxes) != 0 {
		t.Errorf("got %q, want %q", got, want)
	}
}
