package runner

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

func kind(image, disk string) engine.PoolKind {
	return engine.PoolKind{Image: image, Disk: disk, DiskMiB: 1024}
}

func target(k engine.PoolKind, size int) engine.PoolTarget {
	return engine.PoolTarget{PoolKind: k, Size: size}
}

// pools waits until the runner's pools are as wanted.
func pools(t *testing.T, r *Runner, want ...engine.PoolStatus) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := r.Pools(t.Context())
		diff := cmp.Diff(want, got)
		if err == nil && diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v %s", err, diff)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestPoolsFollowTheirTargets(t *testing.T) {
	h := newHost(t)
	h.saved["snap-1"] = true
	base, extra, saved := kind("atoll:default", ""), kind("debian:12", ""), kind("debian:12", "snap-1")
	r := h.runner(t, func(c *Config) { c.Pool = []engine.PoolTarget{target(base, 1)} })
	defer r.Close()
	set := func(targets ...engine.PoolTarget) {
		t.Helper()
		if err := r.SetPools(t.Context(), targets); err != nil {
			t.Fatal(err)
		}
	}
	set(target(base, 1), target(extra, 2), target(saved, 1))
	pools(t, r, engine.PoolStatus{PoolTarget: target(base, 2), Ready: 2},
		engine.PoolStatus{PoolTarget: target(extra, 2), Ready: 2}, engine.PoolStatus{PoolTarget: target(saved, 1), Ready: 1})

	// A create from the saved disk claims the member that is a copy of it.
	l := launch("s1")
	l.Image, l.Disk = saved.Image, saved.Disk
	if got, err := r.Launch(t.Context(), l); err != nil || !got.Warm {
		t.Errorf("got warm %v, %v", got.Warm, err)
	}
	// What nobody wants any more goes; the configured pool stays.
	set()
	pools(t, r, engine.PoolStatus{PoolTarget: target(base, 1), Ready: 1})
	deadline := time.Now().Add(time.Minute)
	for want := "disks 2 roots 2 shares 2 slots 2 instances 2"; h.held() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the host holds %s; want %s", h.held(), want)
		}
	}
	for _, bad := range []engine.PoolTarget{target(kind("", ""), 1), target(extra, -1), {PoolKind: engine.PoolKind{Image: "a"}, Size: 1}} {
		if err := r.SetPools(t.Context(), []engine.PoolTarget{bad}); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}

func TestPoolSaysWhyItIsShort(t *testing.T) {
	h := newHost(t)
	r := h.runner(t, func(c *Config) { c.Host.MemoryMiB = 100 }) // room for 16
	defer r.Close()
	gone, many := kind("debian:12", "no-such-disk"), kind("debian:12", "")
	if err := r.SetPools(t.Context(), []engine.PoolTarget{target(gone, 1), target(many, 17)}); err != nil {
		t.Fatal(err)
	}
	pools(t, r, engine.PoolStatus{PoolTarget: target(many, 17), Ready: 16, Error: full},
		engine.PoolStatus{PoolTarget: target(gone, 1), Error: "no saved disk no-such-disk"})
}

func TestForksLeaveThePoolAlone(t *testing.T) {
	h := newHost(t)
	h.saved["fork-1"] = true
	base := kind("atoll:default", "")
	r := h.runner(t, func(c *Config) { c.Pool = []engine.PoolTarget{target(base, 1)} })
	defer r.Close()
	l := launch("s1")
	l.Disk = "fork-1"
	if got, err := r.Launch(t.Context(), l); err != nil || got.Warm {
		t.Errorf("got warm %v, %v", got.Warm, err)
	}
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	if len(r.pool.recent) > 0 {
		t.Errorf("the pool wants to keep %v", r.pool.recent)
	}
}

func TestDropImage(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	defer r.Close()
	l := launch("s1")
	if _, err := r.Launch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if err := r.SetPools(t.Context(), []engine.PoolTarget{target(kind("pooled:1", ""), 1)}); err != nil {
		t.Fatal(err)
	}
	pools(t, r, engine.PoolStatus{PoolTarget: target(kind("pooled:1", ""), 1), Ready: 1})
	drop := func(images ...engine.Image) []string {
		t.Helper()
		h.removed = nil
		for _, img := range images {
			if err := r.DropImage(t.Context(), img); err != nil {
				t.Fatal(err)
			}
		}
		return h.removed
	}
	pooled := engine.Image{Ref: "pooled:1"}
	got := drop(engine.Image{Ref: l.Image}, pooled, engine.Image{Ref: "other:1", Digest: "sha256:ab"})
	if d := cmp.Diff([]string{"docker.io/library/other@sha256:ab"}, got); d != "" {
		t.Error(d)
	}
	// Members that wait go with the wish for them.
	if err := r.SetPools(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"pooled:1"}, drop(pooled)); d != "" {
		t.Error(d)
	}
	// An image that is in use by one under way stays, and one that goes is not used.
	done, err := r.useImage("busy:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := drop(engine.Image{Ref: "busy:1"}); len(got) > 0 {
		t.Errorf("dropped %v", got)
	}
	done()
	r.layers["gone:1"] = dropping
	l.Sandbox, l.Image = "s2", "gone:1"
	if _, err := r.Launch(t.Context(), l); engine.KindOf(err) != engine.KindUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestHistory(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	// A day in which one core of two is busy, and memory grows.
	limits := engine.Resources{CPU: 2, MemoryMiB: 512, DiskMiB: 1024}
	begin := time.Now().Add(-25 * time.Hour).Truncate(time.Second)
	n := int(25 * time.Hour / sampleEvery)
	for i := range n {
		at := time.Duration(i) * sampleEvery
		r.past.add("s1", engine.Stats{
			Time: begin.Add(at), CPUNanos: uint64(at), MemoryBytes: uint64(i) << 10, CacheBytes: 1 << 20, DiskBytes: 2 << 20,
		}, limits)
	}
	q := engine.SampleQuery{Sandbox: "s1", From: begin, To: begin.Add(time.Duration(n) * sampleEvery)}
	got := r.past.between(q)
	if len(got) < coarseKept+fineKept-20 || len(got) > coarseKept+fineKept {
		t.Fatalf("got %d samples", len(got))
	}
	last := got[len(got)-1]
	want := engine.Sample{
		Time: begin.Add(time.Duration(n-1) * sampleEvery).UTC(), CPU: 1, CPULimit: 2, MemoryBytes: uint64(n-1) << 10,
		CacheBytes: 1 << 20, MemoryLimit: 512 << 20, DiskBytes: 2 << 20, DiskTotal: 1 << 30,
	}
	if d := cmp.Diff(want, last); d != "" {
		t.Error(d)
	}
	for i := 1; i < len(got); i++ {
		if !got[i].Time.After(got[i-1].Time) || got[i].MemoryBytes <= got[i-1].MemoryBytes || got[i].CPU != 1 {
			t.Fatalf("sample %d is %+v after %+v", i, got[i], got[i-1])
		}
	}
	if short := r.past.between(engine.SampleQuery{Sandbox: "s1", From: q.To.Add(-time.Minute), To: q.To}); len(short) != 4 {
		t.Errorf("got %d samples of a minute, want 4", len(short))
	}
	if s := r.past.m["s1"]; cap(s.Fine) > 2*fineKept || cap(s.Coarse) > 2*coarseKept {
		t.Errorf("the series takes %d and %d", cap(s.Fine), cap(s.Coarse))
	}

	// It outlives a restart, and not its sandbox.
	r.Close()
	r = h.runner(t)
	if d := cmp.Diff(got, r.past.between(q)); d != "" {
		t.Error(d)
	}
	if err := r.Remove(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	r.sampleAll(t.Context(), time.Now())
	if len(r.past.m) > 0 {
		t.Error("the history of a removed sandbox is kept")
	}
	r.Close()
	if err := os.WriteFile(filepath.Join(h.home, "history"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = h.runner(t)
	r.Close()
}

func TestSamplesAreFresh(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	defer r.Close()
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	got, err := r.Samples(t.Context(), engine.SampleQuery{Sandbox: "s1", From: now.Add(-time.Minute), To: now})
	if err != nil || len(got) != 1 || got[0].MemoryLimit != 512<<20 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := r.Samples(t.Context(), engine.SampleQuery{Sandbox: "nobody"}); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("got %v", err)
	}
}

func TestIdleSandboxesAreSeldomMeasured(t *testing.T) {
	p := openPast(filepath.Join(t.TempDir(), "h"), nil)
	at, looks := time.Now(), 0
	for range 240 { // an hour
		if p.turn("s1", at, false) {
			looks++
			p.add("s1", engine.Stats{Time: at}, engine.Resources{})
		}
		at = at.Add(sampleEvery)
	}
	if looks > 20 {
		t.Errorf("an idle sandbox was measured %d times in an hour", looks)
	}
	if !p.turn("s1", at.Add(-time.Hour), true) {
		t.Error("a busy sandbox has to wait")
	}
}
