package runner

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver/fake"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func launch(id string) engine.Launch {
	return engine.Launch{
		Sandbox: id, Incarnation: 1, Name: id, Class: engine.ClassContainer, Image: "atoll:default",
		Env: map[string]string{"A": "b"}, Resources: engine.Resources{CPU: 1, MemoryMiB: 512, DiskMiB: 1024},
	}
}

func TestLifeLeavesNothing(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	defer r.Close()
	ctx := t.Context()

	got, err := r.Launch(ctx, launch("s1"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Instance.State != engine.StateStarted || got.Warm || len(got.Timing) == 0 {
		t.Errorf("launch answered %+v", got)
	}
	if again, err := r.Launch(ctx, launch("s1")); err != nil || again.Instance.Sandbox != "s1" {
		t.Errorf("a repeated launch: %+v, %v; want the same sandbox", again, err)
	}
	if _, err := r.Stop(ctx, "s1", engine.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := h.held(), "disks 1 roots 0 shares 0 slots 0 instances 0"; got != want {
		t.Errorf("a stopped sandbox holds %s; want %s", got, want)
	}
	l := launch("s1")
	if _, err := r.Start(ctx, l); engine.KindOf(err) != engine.KindConflict {
		t.Errorf("start of an old incarnation: %v; want a conflict", err)
	}
	l.Incarnation = 2
	if _, err := r.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Remove(ctx, "s1"); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if got, want := h.held(), "disks 0 roots 0 shares 0 slots 0 instances 0"; got != want {
		t.Errorf("after remove the host holds %s; want %s", got, want)
	}
	if entries, _ := os.ReadDir(h.home + "/instances"); len(entries) != 0 {
		t.Errorf("records left: %v", entries)
	}
}

func TestFailedLaunchLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, step := range []string{"disk", "image", "network", "root", "policy", "create", "start"} {
		t.Run(step, func(t *testing.T) {
			h := newHost(t)
			r := h.runner(t)
			defer r.Close()
			switch step {
			case "create":
				h.driver.Fail(fake.OpCreate, 1, boom)
			case "start":
				h.driver.Fail(fake.OpStart, 1, boom)
			default:
				h.fail[step] = boom
			}
			if _, err := r.Launch(t.Context(), launch("s1")); !errors.Is(err, boom) {
				t.Errorf("launch: %v; want %v", err, boom)
			}
			if got, want := h.held(), "disks 0 roots 0 shares 0 slots 0 instances 0"; got != want {
				t.Errorf("the host holds %s; want %s", got, want)
			}
			if list, _ := r.Instances(t.Context()); len(list) != 0 {
				t.Errorf("instances: %+v", list)
			}
		})
	}
}

func TestClaimBindsLate(t *testing.T) {
	h := newHost(t)
	r := h.runner(t, func(c *Config) {
		c.Pool = []engine.PoolTarget{{PoolKind: engine.PoolKind{Image: "atoll:default", DiskMiB: 1024}, Size: 1}}
	})
	defer r.Close()
	waitReady(t, r, 1)

	l := launch("s1")
	l.Labels, l.Network = map[string]string{"k": "v"}, engine.NetworkPolicy{BlockAll: true}
	got, err := r.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Warm {
		t.Error("the launch was cold although a member was ready")
	}
	in, _ := h.driver.Instance(r.sandboxes["s1"].rec.ID)
	if in.Sandbox != "s1" || in.Hostname != "s1" || in.Labels["k"] != "v" || in.Spec.Resources.MemoryMiB != 512 {
		t.Errorf("the member became %+v", in)
	}
	r.Close()

	// A restart adopts the claimed one and throws unclaimed members away.
	r = h.runner(t)
	defer r.Close()
	list, err := r.Instances(t.Context())
	if err != nil || len(list) != 1 || list[0].Sandbox != "s1" || list[0].State != engine.StateStarted {
		t.Errorf("after restart: %+v, %v", list, err)
	}
	if got, want := h.held(), "disks 1 roots 1 shares 1 slots 1 instances 1"; got != want {
		t.Errorf("after restart the host holds %s; want %s", got, want)
	}
}

func TestColdAndOtherKindsMissThePool(t *testing.T) {
	h := newHost(t)
	r := h.runner(t, func(c *Config) {
		c.Pool = []engine.PoolTarget{{PoolKind: engine.PoolKind{Image: "atoll:default", DiskMiB: 1024}, Size: 1}}
	})
	defer r.Close()
	waitReady(t, r, 1)
	cold, other := launch("cold"), launch("other")
	cold.Cold, other.Resources.DiskMiB = true, 2048
	for _, l := range []engine.Launch{cold, other} {
		if got, err := r.Launch(t.Context(), l); err != nil || got.Warm {
			t.Errorf("%s: warm %v, err %v; want a cold launch", l.Sandbox, got.Warm, err)
		}
	}
}

// TestMovedTagMakesMembersStale: a member of the layers that a tag had before
// is not handed out for those that it has now.
func TestMovedTagMakesMembersStale(t *testing.T) {
	h := newHost(t)
	r := h.runner(t, func(c *Config) {
		c.Pool = []engine.PoolTarget{{PoolKind: engine.PoolKind{Image: "atoll:default", DiskMiB: 1024}, Size: 1}}
	})
	defer r.Close()
	waitReady(t, r, 1)
	l := launch("s1")
	l.ImageDigest = "sha256:" + strings.Repeat("e", 64)
	if in := r.pool.take(l); in != nil {
		t.Errorf("a member of %s was handed out for another digest", in.rec.Image)
	}
}

func TestToolboxLoss(t *testing.T) {
	h := newHost(t)
	changed := make(chan engine.Instance, 1)
	r := h.runner(t, func(c *Config) { c.Changed = func(i engine.Instance) { changed <- i } })
	defer r.Close()
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.Crash(r.sandboxes["s1"].rec.ID, 137); err != nil {
		t.Fatal(err)
	}
	in := <-changed
	if in.State != engine.StateError || in.Error == "" || !in.Recoverable {
		t.Errorf("told of %+v; want a recoverable error with a reason", in)
	}
	l := launch("s1")
	l.Incarnation = 2
	if got, err := r.Start(t.Context(), l); err != nil || got.Instance.State != engine.StateStarted {
		t.Errorf("start after loss: %+v, %v", got, err)
	}
	if got, want := h.held(), "disks 1 roots 1 shares 1 slots 1 instances 1"; got != want {
		t.Errorf("the host holds %s; want %s", got, want)
	}
}

func TestRestartAfterCrashInTheMiddle(t *testing.T) {
	type crash struct{}
	run := func(h *host, step string, do func(*Runner)) {
		r := h.runner(t, func(c *Config) {
			c.Checkpoint = func(s string) {
				if s == step {
					panic(crash{})
				}
			}
		})
		defer r.Close()
		defer func() { _ = recover() }()
		do(r)
	}
	for _, step := range []string{"disk", "network", "create", "start", "identity"} {
		h := newHost(t)
		run(h, step, func(r *Runner) { _, _ = r.Launch(t.Context(), launch("s1")) })
		r := h.runner(t)
		// What was recorded is stopped, for the core to remove; the rest is gone.
		want := "disks 0 roots 0 shares 0 slots 0 instances 0"
		if list, _ := r.Instances(t.Context()); len(list) == 1 && list[0].State == engine.StateStopped {
			want = "disks 1 roots 0 shares 0 slots 0 instances 0"
		} else if len(list) != 0 {
			t.Errorf("create ended at %s: %+v", step, list)
		}
		if got := h.held(); got != want {
			t.Errorf("create ended at %s: the host holds %s; want %s", step, got, want)
		}
		r.Close()
	}
	for step, do := range map[string]func(*Runner){
		"stopping":       func(r *Runner) { _, _ = r.Stop(t.Context(), "s1", engine.StopOptions{}) },
		"driver-stopped": func(r *Runner) { _, _ = r.Stop(t.Context(), "s1", engine.StopOptions{}) },
		"removing":       func(r *Runner) { _ = r.Remove(t.Context(), "s1") },
		"disk-removed":   func(r *Runner) { _ = r.Remove(t.Context(), "s1") },
	} {
		h := newHost(t)
		first := h.runner(t)
		if _, err := first.Launch(t.Context(), launch("s1")); err != nil {
			t.Fatal(err)
		}
		first.Close()
		run(h, step, do)
		r := h.runner(t)
		list, _ := r.Instances(t.Context())
		if step == "removing" || step == "disk-removed" {
			if len(list) != 0 || h.held() != "disks 0 roots 0 shares 0 slots 0 instances 0" {
				t.Errorf("remove ended at %s: %+v, %s", step, list, h.held())
			}
		} else if len(list) != 1 || list[0].State != engine.StateStopped || h.held() != "disks 1 roots 0 shares 0 slots 0 instances 0" {
			t.Errorf("stop ended at %s: %+v, %s", step, list, h.held())
		}
		r.Close()
	}
}

func TestTornRecordIsAnOrphan(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	path := r.recordPath(r.sandboxes["s1"].rec.ID)
	r.Close()
	if err := os.WriteFile(path, []byte(`{"version":1,"id":"a-`), 0o600); err != nil {
		t.Fatal(err)
	}
	r = h.runner(t)
	defer r.Close()
	if got, want := h.held(), "disks 0 roots 0 shares 0 slots 0 instances 0"; got != want {
		t.Errorf("the host holds %s; want %s", got, want)
	}
}

func waitReady(t *testing.T, r *Runner, n int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		have := 0
		list, _ := r.Pools(t.Context())
		for _, k := range list {
			have += k.Ready
		}
		if have >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d members ready; want %d", have, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestFullPoolStopsTheWriter(t *testing.T) {
	h := newHost(t)
	changed := make(chan engine.Instance, 1)
	r := h.runner(t, func(c *Config) { c.Changed = func(i engine.Instance) { changed <- i } })
	defer r.Close()
	for _, id := range []string{"writer", "neighbour"} {
		if _, err := r.Launch(t.Context(), launch(id)); err != nil {
			t.Fatal(err)
		}
	}
	h.mu.Lock()
	h.writer, h.filled = r.sandboxes["writer"].rec.ID, 6<<20+512<<10
	h.mu.Unlock()
	if in := <-changed; in.Sandbox != "writer" || in.State != engine.StateError || in.Error == "" || !in.Recoverable {
		t.Errorf("told of %+v; want the writer in error with a reason", in)
	}
	if got := r.sandboxes["neighbour"].state(); got != engine.StateStarted {
		t.Errorf("the neighbour is %s", got)
	}
}
