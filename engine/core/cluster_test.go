package core_test

import (
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/cluster"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/store"
)

var (
	_ core.Cluster = (*cluster.Cluster)(nil)
	_ core.Store   = (*store.Store)(nil)
)

// TestOverTheRealCluster lives one life with calls and events over NATS.
func TestOverTheRealCluster(t *testing.T) {
	cl, err := cluster.Open(t.Context(), cluster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	runner := enginetest.NewRunner("r1")
	if _, err := cl.Serve(t.Context(), "r1", runner); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *core.Config) { c.Cluster = cl })
	events, err := r.Events().Watch(t.Context(), org)
	r.ok(err)
	sb := r.create("one")
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	r.ok(second(r.Sandboxes().Start(t.Context(), ref("one"))))
	r.ok(second(r.Snapshots().Fork(t.Context(), ref("one"), "two")))
	st, err := r.Inspector().Stats(t.Context(), ref("one"))
	if err != nil || st.MemoryBytes != 42 {
		t.Errorf("got %+v, %v", st, err)
	}
	runner.Fail("Stop", engine.Errorf(engine.KindTimeout, "it does not stop").WithHint("force it"))
	_, err = r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})
	if e := engine.AsError(err); e.Kind != engine.KindTimeout || e.Hint != "force it" {
		t.Errorf("got %+v", e)
	}
	r.ok(second(r.Sandboxes().Delete(t.Context(), ref("one"))))
	for e := range events {
		if e.Type == "sandbox.removed" && e.Sandbox.ID == sb.ID {
			return
		}
	}
	t.Error("the events ended early")
}
