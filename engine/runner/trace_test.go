package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/trace"
)

// diary notes what is watched and what the driver does, in order.
type diary struct {
	driver.Driver
	fail error // of Begin

	mu    sync.Mutex
	lines []string
}

func (d *diary) Unwrap() driver.Driver { return d.Driver }

func (d *diary) note(format string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, a...))
}

func (d *diary) Group(_ context.Context, h driver.Handle) (string, error) { return "/group", nil }

func (d *diary) Start(ctx context.Context, h driver.Handle) error {
	d.note("start")
	return d.Driver.Start(ctx, h)
}

func (d *diary) Remove(ctx context.Context, h driver.Handle) error {
	d.note("remove")
	return d.Driver.Remove(ctx, h)
}

func (d *diary) Begin(_ string, g trace.Group) error {
	d.note("begin %s %t", g.Dir, strings.HasSuffix(g.Control, "/ctl"))
	return d.fail
}
func (d *diary) Started(_ string, pid int)             { d.note("started %t", pid > 0) }
func (d *diary) Bind(_, sandbox string, number uint64) { d.note("bind %s %d", sandbox, number) }
func (d *diary) End(string)                            { d.note("end") }

// take returns the lines since the last time.
func (d *diary) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := d.lines
	d.lines = nil
	return lines
}

func traced(d *diary) func(*Config) {
	return func(c *Config) {
		d.Driver = c.Driver
		c.Driver, c.Traces = d, d
	}
}

func TestTraced(t *testing.T) {
	h, d := newHost(t), &diary{}
	r := h.runner(t, traced(d))
	ctx := t.Context()
	if _, err := r.Launch(ctx, launch("s1")); err != nil {
		t.Fatal(err)
	}
	want := []string{"begin /group true", "start", "started true", "bind s1 1"}
	if diff := cmp.Diff(want, d.take()); diff != "" {
		t.Errorf("launch: %s", diff)
	}
	r.Close()
	r = h.runner(t, traced(d)) // after a restart of the server
	defer r.Close()
	if diff := cmp.Diff([]string{"begin /group true", "started true", "bind s1 1"}, d.take()); diff != "" {
		t.Errorf("adopted: %s", diff)
	}
	if _, err := r.Stop(ctx, "s1", engine.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"remove", "end"}, d.take()); diff != "" {
		t.Errorf("stop: %s", diff)
	}
	l := launch("s1")
	l.Incarnation = 2
	if _, err := r.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	if got := d.take(); !slices.Contains(got, "bind s1 2") || slices.Index(got, "begin /group true") > slices.Index(got, "start") {
		t.Errorf("start: %v", got)
	}
}

// TestTracedClaim: a member of the warm pool is watched from its start, and is
// nobody's until it is claimed.
func TestTracedClaim(t *testing.T) {
	h, d := newHost(t), &diary{}
	r := h.runner(t, traced(d), func(c *Config) {
		c.Pool = []engine.PoolTarget{{PoolKind: engine.PoolKind{Image: "atoll:default", DiskMiB: 1024}, Size: 1}}
	})
	defer r.Close()
	waitReady(t, r, 1)
	if got := d.take(); !slices.Equal(got, []string{"begin /group true", "start", "started true"}) {
		t.Errorf("a member: %v", got)
	}
	got, err := r.Launch(t.Context(), launch("s1"))
	if err != nil || !got.Warm {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got := d.take(); len(got) == 0 || got[0] != "bind s1 1" {
		t.Errorf("claimed: %v", got)
	}
}

// TestUntraced runs what cannot be watched all the same.
func TestUntraced(t *testing.T) {
	h, d := newHost(t), &diary{fail: errors.New("no room")}
	r := h.runner(t, traced(d))
	defer r.Close()
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	if got := d.take(); !slices.Contains(got, "bind s1 1") {
		t.Errorf("nobody can say that it is not watched: %v", got)
	}
}
