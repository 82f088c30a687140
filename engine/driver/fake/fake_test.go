package fake_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/drivertest"
	"github.com/atoll-sh/atoll/engine/driver/fake"
)

func TestDriver(t *testing.T) {
	var n atomic.Int64
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		d := fake.New(nil)
		t.Cleanup(func() { d.Close() })
		return drivertest.Fixture{
			Driver: d,
			Reopen: func(*testing.T) driver.Driver { return d.Reopen() },
			Spec: func(t *testing.T) driver.Spec {
				return driver.Spec{ID: fmt.Sprintf("a-%d", n.Add(1)), RootFS: t.TempDir(), UIDBase: 100000}
			},
			Crash: func(t *testing.T, h driver.Handle) {
				if err := d.Crash(h.ID, 2); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestScript(t *testing.T) {
	d := fake.New(nil)
	defer d.Close()
	full := engine.Errorf(engine.KindExhausted, "no room")
	d.Fail(fake.OpStart, 2, full)
	h, err := d.Create(t.Context(), driver.Spec{ID: "a-1"})
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	for range 3 {
		got = append(got, errors.Is(d.Start(t.Context(), h), full))
	}
	if diff := cmp.Diff([]bool{false, true, false}, got); diff != "" {
		t.Errorf("failures of three starts (-want +got):\n%s", diff)
	}
	want := []fake.Call{{Op: fake.OpCreate, ID: "a-1"}, {Op: fake.OpStart, ID: "a-1"}, {Op: fake.OpStart, ID: "a-1"}, {Op: fake.OpStart, ID: "a-1"}}
	if diff := cmp.Diff(want, d.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestOutOfMemory(t *testing.T) {
	d := fake.New(nil)
	defer d.Close()
	events, err := d.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Create(t.Context(), driver.Spec{ID: "a-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := d.OutOfMemory("a-1"); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Kind != driver.EventOOM {
		t.Errorf("got %+v, want a memory kill", e)
	}
	if s, _ := d.Inspect(t.Context(), h); !s.OOM || s.Phase != driver.PhaseRunning {
		t.Errorf("got %+v, want running with OOM", s)
	}
}
