package container

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// TestMemoryLimit lets a program take more than there is.
func TestMemoryLimit(t *testing.T) {
	r := newRig(t, nil)
	events, err := r.driver.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := r.start(t, func(s *driver.Spec) { s.Resources.MemoryMiB = 64 })
	if code, out := r.exec(t, h, "/bin/tail", "/dev/zero"); code != 137 {
		t.Errorf("got exit %d (%s), want 137: killed", code, out)
	}
	select {
	case e := <-events:
		if e.ID != h.ID || e.Kind != driver.EventOOM {
			t.Errorf("got %+v, want a memory kill of %s", e, h.ID)
		}
	case <-time.After(time.Minute):
		t.Error("got no event, want a memory kill")
	}
	s, err := r.driver.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if s.Phase != driver.PhaseRunning || !s.OOM {
		t.Errorf("got %+v, want running with OOM: the toolbox survives", s)
	}
	st, err := r.driver.Stats(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if st.OOMKills == 0 || st.LastOOM.IsZero() {
		t.Errorf("got %+v, want a counted kill", st)
	}
	if err := r.driver.Stop(t.Context(), h, time.Second); err != nil {
		t.Fatal(err)
	}
	if s, _ := r.driver.Inspect(t.Context(), h); !s.OOM || s.Phase != driver.PhaseStopped {
		t.Errorf("got %+v after stop, want stopped with OOM", s)
	}
	if err := r.driver.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if s, _ := r.driver.Inspect(t.Context(), h); s.OOM {
		t.Errorf("got %+v after a new start, want no OOM", s)
	}
}

// TestForkBomb checks that processes run out inside only, and that the toolbox
// goes on.
func TestForkBomb(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, func(s *driver.Spec) { s.Resources.PIDs = 50 })
	_, out := r.sh(t, h, "i=0; while [ $i -lt 200 ]; do sleep 300 >/dev/null 2>&1 & i=$((i+1)); done; echo started all")
	if !strings.Contains(out, "can't fork") {
		t.Errorf("got %q, want forks to fail", out)
	}
	st, err := r.driver.Stats(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if st.PIDs > 50 {
		t.Errorf("got %d processes, want at most 50", st.PIDs)
	}
	if err := r.driver.Stop(t.Context(), h, 0); err != nil {
		t.Fatal(err)
	}
}

// TestCPUQuota burns for a while and compares processor time with the limit.
func TestCPUQuota(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, func(s *driver.Spec) { s.Resources.CPU = 0.25 })
	if code, _ := r.sh(t, h, "(while :; do :; done) >/dev/null 2>&1 & (while :; do :; done) >/dev/null 2>&1 &"); code != 0 {
		t.Fatal("cannot burn")
	}
	before, err := r.driver.Stats(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	after, err := r.driver.Stats(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	share := float64(after.CPUNanos-before.CPUNanos) / float64(after.Time.Sub(before.Time))
	if share > 0.35 {
		t.Errorf("got %.2f processors used, want no more than about 0.25", share)
	}
}

// TestResize grows and shrinks a running instance.
func TestResize(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	limit := func() int64 {
		file := "cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
		if r.driver.cgroups.version() == 2 {
			file = "cat /sys/fs/cgroup/memory.max"
		}
		_, out := r.sh(t, h, file)
		n, _ := strconv.ParseInt(out, 10, 64)
		return n >> 20
	}
	if got := limit(); got != 256 {
		t.Errorf("got a limit of %d MiB shown inside, want 256", got)
	}
	for _, mib := range []int64{512, 128} {
		if err := r.driver.Resize(t.Context(), h, engine.Resources{CPU: 2, MemoryMiB: mib, PIDs: 70}); err != nil {
			t.Fatal(err)
		}
		if got := limit(); got != mib {
			t.Errorf("got a limit of %d MiB, want %d", got, mib)
		}
	}
	if err := r.driver.Stop(t.Context(), h, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.driver.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := limit(); got != 128 {
		t.Errorf("got a limit of %d MiB after a restart, want 128", got)
	}
}

// TestResizeBelowUse wants less memory than is taken and must change nothing.
func TestResizeBelowUse(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	if code, out := r.sh(t, h, "dd=$(cat /bin/busybox | wc -c); i=0; while [ $i -lt 30 ]; do cat /bin/busybox >/dev/shm/f$i; i=$((i+1)); done; echo $dd"); code != 0 {
		t.Fatal(out)
	}
	err := r.driver.Resize(t.Context(), h, engine.Resources{MemoryMiB: 16})
	if engine.KindOf(err) != engine.KindConflict || engine.AsError(err).Hint == "" {
		t.Errorf("got %v, want a conflict with a hint", err)
	}
	if err := r.driver.Resize(t.Context(), h, engine.Resources{MemoryMiB: 300}); err != nil {
		t.Errorf("got %v, want a change upwards to work still", err)
	}
}

// TestRename gives a pool member its name.
func TestRename(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	if err := r.driver.Rename(t.Context(), h, "sandbox-1", "blue-whale", map[string]string{"team": "sea"}); err != nil {
		t.Fatal(err)
	}
	if _, out := r.exec(t, h, "/bin/hostname"); out != "blue-whale" {
		t.Errorf("got host name %q, want blue-whale", out)
	}
	r.driver.jobs.flush()
	box, err := r.driver.boxes.Get(r.driver.context(t.Context()), h.ID)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{labelSandbox: "sandbox-1", labelName: "blue-whale", "team": "sea", labelServer: r.config.ServerID} {
		if got := box.Labels[key]; got != want {
			t.Errorf("label %s: got %q, want %q", key, got, want)
		}
	}
	if err := r.driver.Stop(t.Context(), h, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.driver.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if _, out := r.exec(t, h, "/bin/hostname"); out != "blue-whale" {
		t.Errorf("got host name %q after a restart, want blue-whale", out)
	}
}
