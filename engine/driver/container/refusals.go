package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver/container/refused"
)

// listenerPath is where the shim of an instance waits for the listener of its
// filter.
func (d *Driver) listenerPath(id string) string { return filepath.Join(d.dir(id), "refused.sock") }

// tellingPath is where shims tell of refused calls.
func (d *Driver) tellingPath() string { return filepath.Join(d.cfg.StateDir, "refused", "server.sock") }

// openRefusals opens the socket to which shims tell refused calls. Where that
// cannot be they are refused all the same.
func (d *Driver) openRefusals() error {
	if d.untold = tellable(d.cfg); d.untold != nil {
		return nil
	}
	var err error
	d.refusals, err = refused.Listen(d.tellingPath(), d.log)
	return err
}

func (d *Driver) closeRefusals() error {
	if d.refusals == nil {
		return nil
	}
	return d.refusals.Close()
}

// listener names the listener's keeper for an instance.
func (d *Driver) listener(id string) listenerNames {
	return listenerNames{Path: d.listenerPath(id), Server: d.tellingPath()}
}

// Refusals hands on the system calls that the filters of instances refuse, those
// as well that were refused before this server began, until ctx ends.
func (d *Driver) Refusals(ctx context.Context, tell func(refused.Call)) {
	if d.refusals != nil {
		d.refusals.Run(ctx, tell)
	}
}

// Why shims cannot keep listeners.
var (
	errUnasked        = errors.New("the containerd is not the server's own, or what processes do is not recorded")
	errForeignRuntime = errors.New("only runc is known to pass on the listener of a filter")
	errOldKernel      = errors.New("the kernel cannot hand them over")
	errOldRuntime     = errors.New("the runtime is too old for it, or was built without")
)

// tellable returns why refused calls cannot be told; nil when they can.
func tellable(c Config) error {
	switch {
	case !c.Keep:
		return errUnasked
	case filepath.Base(c.Runtime) != "runc":
		return errForeignRuntime
	case !refused.Supported():
		return errOldKernel
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, c.Runtime, "features").Output()
	if err != nil {
		return fmt.Errorf("%w: %w", errOldRuntime, err)
	}
	var features struct {
		Linux struct {
			Seccomp struct {
				Actions []specs.LinuxSeccompAction `json:"actions"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(out, &features); err != nil {
		return fmt.Errorf("%w: %w", errOldRuntime, err)
	}
	if !slices.Contains(features.Linux.Seccomp.Actions, specs.ActNotify) {
		return errOldRuntime
	}
	return nil
}

func (d *Driver) checkRefusals() engine.Check {
	c := engine.Check{Name: "refused calls", OK: true, Detail: "system calls that the filter refuses are recorded"}
	if d.untold != nil {
		c.OK, c.Detail = false, "refused, but not recorded: "+d.untold.Error()
		c.Fix = "use the server's own containerd, and runc 1.1 or later with libseccomp 2.5"
	}
	return c
}
