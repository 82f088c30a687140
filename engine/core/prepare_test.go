package core_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

// onDemandRig has a snapshot atoll-later whose image is built on demand.
func onDemandRig(t *testing.T) *rig {
	r := newRig(t, func(c *core.Config) { c.OnDemand = []string{"atoll:later"} })
	r.ok(r.EnsureDefaults(t.Context(), []engine.Snapshot{{Name: "atoll-later", Image: "atoll:later", Resources: engine.Resources{CPU: 2}}}))
	return r
}

var later = engine.SnapshotRef{OrganizationID: org, IDOrName: "atoll-later"}

func (r *rig) laterState() engine.Snapshot {
	r.t.Helper()
	sn, err := r.Snapshots().Snapshot(r.t.Context(), later)
	r.ok(err)
	return sn
}

func TestOnDemand(t *testing.T) {
	r := onDemandRig(t)
	r.ok(r.PrepareDefaults(t.Context()))
	if got := r.laterState(); got.State != engine.SnapshotPending {
		t.Errorf("after the others are prepared: got %s, want pending", got.State)
	}
	var builds atomic.Int32
	building, release := make(chan struct{}), make(chan struct{})
	r.runner.Hook("EnsureImage", func(context.Context) error {
		builds.Add(1)
		r.ReportProgress("atoll:later", "building (7%)")
		close(building)
		<-release
		return nil
	})
	created := make(chan engine.Sandbox, 2)
	for _, name := range []string{"one", "two"} {
		go func() { created <- r.create(name, func(q *engine.CreateSandbox) { q.Snapshot = "atoll-later" }) }()
	}
	<-building
	if got := r.laterState(); got.State != engine.SnapshotBuilding || got.Progress != "building (7%)" {
		t.Errorf("meanwhile: got %s %q", got.State, got.Progress)
	}
	// A caller that leaves changes nothing for the others.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Snapshot: "atoll-later"})
	wantKind(t, err, engine.KindTimeout)
	close(release)
	for range 2 {
		if sb := <-created; sb.State != engine.StateStarted || sb.Resources.CPU != 2 {
			t.Errorf("got %+v", sb)
		}
	}
	if got := r.laterState(); got.State != engine.SnapshotActive || builds.Load() != 1 {
		t.Errorf("got %s after %d builds, want active after one", got.State, builds.Load())
	}
}

func TestOnDemandFails(t *testing.T) {
	r := onDemandRig(t)
	r.runner.Fail("EnsureImage", engine.Errorf(engine.KindUnavailable, "no mirror"))
	create := func() error {
		_, err := r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Snapshot: "atoll-later"})
		return err
	}
	for range 2 { // the second finds the error and builds nothing
		err := create()
		wantKind(t, err, engine.KindUnavailable)
		if e := engine.AsError(err); !strings.Contains(e.Message, "no mirror") || !strings.Contains(e.Hint, "atoll snapshot prepare atoll-later") {
			t.Errorf("got %q, hint %q", e.Message, e.Hint)
		}
	}
	if got := r.laterState(); got.State != engine.SnapshotError || got.Error != "no mirror" {
		t.Errorf("got %s %q", got.State, got.Error)
	}
	if _, err := r.Snapshots().Prepare(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); r.laterState().State != engine.SnapshotActive; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never became active")
		}
	}
	r.ok(create())
}

func TestPrepare(t *testing.T) {
	r := onDemandRig(t)
	_, err := r.Snapshots().Prepare(t.Context(), engine.SnapshotRef{OrganizationID: org, IDOrName: "nosuch"})
	wantKind(t, err, engine.KindNotFound)
	if _, err := r.Snapshots().Create(t.Context(), engine.CreateSnapshot{OrganizationID: org, Name: "mine", Image: "debian:12"}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Snapshots().Prepare(t.Context(), engine.SnapshotRef{OrganizationID: org, IDOrName: "mine"})
	wantKind(t, err, engine.KindInvalid)

	// A server that stops does not wait for a build, which begins anew with the
	// next call.
	building := make(chan struct{})
	r.runner.Hook("EnsureImage", func(ctx context.Context) error {
		close(building)
		<-ctx.Done()
		return ctx.Err()
	})
	if _, err := r.Snapshots().Prepare(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	<-building
	r.ok(r.Close(t.Context()))
	if got := r.laterState(); got.State != engine.SnapshotBuilding {
		t.Errorf("got %s %q", got.State, got.Error)
	}
	r.ok(r.EnsureDefaults(t.Context(), []engine.Snapshot{{Name: "atoll-later", Image: "atoll:later"}}))
	if got := r.laterState(); got.State != engine.SnapshotPending {
		t.Errorf("after a restart: got %s, want pending", got.State)
	}
}
