package scheduler

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

func host(id string, change ...func(*engine.RunnerInfo)) engine.RunnerInfo {
	r := engine.RunnerInfo{ID: id, Classes: []engine.Class{engine.ClassContainer}, CPU: 2, MemoryMiB: 4096, DiskMiB: 20480}
	for _, c := range change {
		c(&r)
	}
	return r
}

func used(cpu float64, memory int64) func(*engine.RunnerInfo) {
	return func(r *engine.RunnerInfo) { r.Used.CPU, r.Used.MemoryMiB = cpu, memory }
}

func asks(cpu float64, memory, disk int64) Request {
	return Request{Class: engine.ClassContainer, Resources: engine.Resources{CPU: cpu, MemoryMiB: memory, DiskMiB: disk}}
}

func TestPlace(t *testing.T) {
	small := asks(1, 1024, 3072)
	pinned, other, gpu, restart := small, small, small, asks(1, 1024, 1<<30)
	pinned.Runner, other.Class, gpu.Resources.GPU, restart.Restart = "b", engine.ClassGVisor, 1, true
	for _, c := range []struct {
		name    string
		req     Request
		runners []engine.RunnerInfo
		want    string
		kind    engine.Kind
		says    string
	}{
		{"one", small, []engine.RunnerInfo{host("a")}, "a", "", ""},
		{"none", small, nil, "", engine.KindUnavailable, "no runner"},
		{"emptier by memory", small, []engine.RunnerInfo{host("a", used(0, 8192)), host("b")}, "b", "", ""},
		{"emptier by cpu", small, []engine.RunnerInfo{host("a"), host("b", used(64, 0))}, "a", "", ""},
		{"pinned", pinned, []engine.RunnerInfo{host("a"), host("b", used(9, 9000))}, "b", "", ""},
		{"pinned and gone", pinned, []engine.RunnerInfo{host("a")}, "", engine.KindUnavailable, "runner b"},
		{"class", other, []engine.RunnerInfo{host("a")}, "", engine.KindUnsupported, `"gvisor"`},
		{"gpu", gpu, []engine.RunnerInfo{host("a")}, "", engine.KindUnsupported, "gpu 1"},
		{"cpu above the cores", asks(4, 1024, 1), []engine.RunnerInfo{host("a")}, "a", "", ""},
		{"cpu above the most", asks(64, 1024, 1), []engine.RunnerInfo{host("a")}, "", engine.KindInvalid, "cpu 64 is more than any runner has (8)"},
		{"cpu on a large host", asks(64, 1024, 1), []engine.RunnerInfo{host("a"), host("b", func(r *engine.RunnerInfo) { r.CPU = 64 })}, "b", "", ""},
		{"memory beyond", asks(1, 4097, 1), []engine.RunnerInfo{host("a")}, "", engine.KindInvalid, "memory 4097 MiB is more than any runner has (4096 MiB)"},
		{"memory of one host, cpu of another", asks(16, 8192, 1), []engine.RunnerInfo{host("a", func(r *engine.RunnerInfo) { r.CPU = 16 }), host("b", func(r *engine.RunnerInfo) { r.MemoryMiB = 8192 })}, "", engine.KindInvalid, "memory 8192"},
		{"disk beyond", asks(1, 1, 20481), []engine.RunnerInfo{host("a")}, "", engine.KindInvalid, "disk 20481 MiB is more than any runner has (20480 MiB free)"},
		{"restart needs no disk", restart, []engine.RunnerInfo{host("a")}, "a", "", ""},
		{"memory full", small, []engine.RunnerInfo{host("a", used(0, 16*4096))}, "", engine.KindExhausted, "memory"},
		{"cpu full", small, []engine.RunnerInfo{host("a", used(127.5, 0))}, "", engine.KindExhausted, "cpu"},
		{"pool full", asks(1, 1, 100), []engine.RunnerInfo{host("a", func(r *engine.RunnerInfo) { r.DiskMiB = 511 })}, "", engine.KindExhausted, "disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(c.runners)
			got, err := New(Config{}).Place(t.Context(), c.req, c.runners)
			if got != c.want || engine.KindOf(err) != c.kind {
				t.Errorf("got %q, %v, want %q and kind %q", got, err, c.want, c.kind)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q, want it to say %q", err, c.says)
			}
			if err != nil && engine.AsError(err).Hint == "" {
				t.Errorf("%q has no hint", err)
			}
			if d := cmp.Diff(before, c.runners); d != "" {
				t.Errorf("the caller's list changed: %s", d)
			}
		})
	}
}

func TestImagePresenceWins(t *testing.T) {
	req := asks(1, 1024, 1)
	req.HasImage = func(r string) bool { return r == "busy" }
	got, err := New(Config{}).Place(t.Context(), req, []engine.RunnerInfo{host("idle"), host("busy", used(60, 50000))})
	if got != "busy" || err != nil {
		t.Errorf("got %q, %v, want busy", got, err)
	}
}

func TestFiftyDefaultsFitOnASmallHost(t *testing.T) {
	h := host("a")
	for i := range 50 {
		if _, err := New(Config{}).Place(t.Context(), asks(1, 1024, 3072), []engine.RunnerInfo{h}); err != nil {
			t.Fatalf("sandbox %d: %v", i, err)
		}
		h.Used.CPU++
		h.Used.MemoryMiB += 1024
	}
}

func TestTry(t *testing.T) {
	runners := []engine.RunnerInfo{host("a"), host("b", used(1, 1000)), host("c", used(2, 2000))}
	full := engine.Errorf(engine.KindExhausted, "full")
	for _, c := range []struct {
		name    string
		answers map[string]error
		tried   []string
		want    string
		kind    engine.Kind
	}{
		{"first accepts", nil, []string{"a"}, "a", ""},
		{"second accepts", map[string]error{"a": full}, []string{"a", "b"}, "b", ""},
		{"gone counts as refusal", map[string]error{"a": engine.Errorf(engine.KindUnavailable, "gone")}, []string{"a", "b"}, "b", ""},
		{"all refuse", map[string]error{"a": full, "b": full, "c": full}, []string{"a", "b", "c"}, "c", engine.KindExhausted},
		{"fault ends it", map[string]error{"a": errors.New("x")}, []string{"a"}, "a", engine.KindInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tried []string
			got, err := New(Config{}).Try(t.Context(), asks(1, 1, 1), runners, func(_ context.Context, id string) error {
				tried = append(tried, id)
				return c.answers[id]
			})
			if got != c.want || engine.KindOf(err) != c.kind {
				t.Errorf("got %q, %v, want %q and kind %q", got, err, c.want, c.kind)
			}
			if d := cmp.Diff(c.tried, tried); d != "" {
				t.Error(d)
			}
		})
	}
}
