package container

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// BenchmarkStart measures a cold start from Create until the toolbox answers,
// stage by stage. Run it with -benchtime=20x; the plain ns/op holds the removal
// and the preparation too.
func BenchmarkStart(b *testing.B) {
	benchmarkStart(b, nil)
}

// BenchmarkStartGrouped shares one shim.
func BenchmarkStartGrouped(b *testing.B) {
	benchmarkStart(b, func(c *Config) { c.Group = true })
}

func benchmarkStart(b *testing.B, edit func(*Config)) {
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	note := func(_, stage string, d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		took[stage] = append(took[stage], d)
	}
	r := newRig(b, func(c *Config) {
		c.OnStage = note
		if edit != nil {
			edit(c)
		}
	})
	keep := r.create(b, nil) // holds the shared shim when grouped
	if err := r.driver.Start(b.Context(), keep); err != nil {
		b.Fatal(err)
	}
	took = map[string][]time.Duration{}
	for b.Loop() {
		spec := r.spec(b)
		since := time.Now()
		h, err := r.driver.Create(b.Context(), spec)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.driver.Start(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		note("", "create to ready", time.Since(since))
		measureRunning(b, r, h, note)
		since = time.Now()
		if err := r.driver.Remove(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		note("", "remove", time.Since(since))
	}
	for _, stage := range []string{"record", "create task", "start task", "toolbox answers", "create to ready", "pause", "resume", "resize", "rename", "remove"} {
		d := took[stage]
		slices.Sort(d)
		b.Logf("%-16s n=%d  min %6.2f  median %6.2f  p90 %6.2f ms", stage, len(d), ms(d[0]), ms(d[len(d)/2]), ms(d[len(d)*9/10]))
	}
	ready := took["create to ready"]
	b.ReportMetric(ms(ready[len(ready)/2]), "ready-p50-ms")
	b.ReportMetric(ms(ready[0]), "ready-min-ms")
}

// BenchmarkListener starts instances in turn with and without a listener of
// refused calls, and times calls inside, so that both see the same noise of the
// machine. Run it with -benchtime=30x.
func BenchmarkListener(b *testing.B) {
	took := map[string][]time.Duration{}
	rigs := map[string]*rig{"without": newRig(b, func(c *Config) { c.Keep = false }), "with": newRig(b, nil)}
	for b.Loop() {
		for name, r := range rigs {
			spec := r.spec(b)
			since := time.Now()
			h, err := r.driver.Create(b.Context(), spec)
			if err != nil {
				b.Fatal(err)
			}
			if err := r.driver.Start(b.Context(), h); err != nil {
				b.Fatal(err)
			}
			took[name+", create to ready"] = append(took[name+", create to ready"], time.Since(since))
			_, out := r.exec(b, h, toolboxPath, "time-calls")
			var got map[string]time.Duration
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				b.Fatal(err, out)
			}
			for call, d := range got {
				took[name+", "+call] = append(took[name+", "+call], d)
			}
			if err := r.driver.Remove(b.Context(), h); err != nil {
				b.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // for the next spare shim
		}
	}
	for _, what := range slices.Sorted(maps.Keys(took)) {
		d := took[what]
		slices.Sort(d)
		b.Logf("%-26s n=%d  min %10.4f  median %10.4f  p90 %10.4f ms", what, len(d), exactMS(d[0]), exactMS(d[len(d)/2]), exactMS(d[len(d)*9/10]))
	}
}

func exactMS(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measureRunning times what a claim of a pooled instance does.
func measureRunning(b *testing.B, r *rig, h driver.Handle, note func(_, stage string, d time.Duration)) {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"pause", func() error { return r.driver.Pause(b.Context(), h) }},
		{"resume", func() error { return r.driver.Resume(b.Context(), h) }},
		{"resize", func() error {
			size := engine.Resources{CPU: 2, MemoryMiB: 256, PIDs: 300}
			size.MemoryMiB *= 2
			return r.driver.Resize(b.Context(), h, size)
		}},
		{"rename", func() error { return r.driver.Rename(b.Context(), h, "s", "renamed", nil) }},
	} {
		since := time.Now()
		if err := step.do(); err != nil {
			b.Fatal(step.name, err)
		}
		note("", step.name, time.Since(since))
	}
}
