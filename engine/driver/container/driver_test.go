package container

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/drivertest"
)

func TestDriver(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		r := newRig(t, nil)
		return drivertest.Fixture{
			Driver: r.driver,
			Reopen: func(t *testing.T) driver.Driver { return r.reopen(t) },
			Spec:   func(t *testing.T) driver.Spec { return r.spec(t) },
			Crash: func(t *testing.T, h driver.Handle) {
				s, err := r.driver.Inspect(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
