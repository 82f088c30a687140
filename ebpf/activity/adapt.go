package activity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// optional are programs that a recorder can do without, with what is then not
// told.
var optional = map[string]struct{ needs, lacks string }{
	"on_capable":  {"btf_trace_cap_capable", "privileges that processes ask for, which needs Linux 6.14"},
	"on_connect4": {"", "far ends of UDP sockets, which needs a control group tree of version 2"},
	"on_connect6": {"", ""},
	"find":        {"bpf_task_from_pid", "which process changed a file, when it still runs, which needs Linux 6.2"},
}

// adapt takes the programs out that this host cannot have, and says what is
// missing for that.
func adapt(spec *ebpf.CollectionSpec) []string {
	var out []string
	types, err := btf.LoadKernelSpec()
	for name, o := range optional {
		there := unifiedRoot() != ""
		if o.needs != "" {
			there = false
			if err == nil {
				_, absent := types.AnyTypeByName(o.needs)
				there = absent == nil
			}
		}
		if there {
			continue
		}
		delete(spec.Programs, name)
		if o.lacks != "" {
			out = append(out, o.lacks)
		}
	}
	return out
}

// unifiedRoot is the root of the control group tree of version 2, "" when the
// host has none.
func unifiedRoot() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); !errors.Is(err, os.ErrNotExist) {
			return dir
		}
	}
	return ""
}

// Missing says what this host does not let the recorder tell, each in some
// words; empty when it tells everything.
func (r *Recorder) Missing() []string { return r.missing }

// Try loads the programs and lets them go. It says what a recorder could not
// tell on this host, in the words of Missing.
func Try() ([]string, error) {
	kernel.FreeMemlock()
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := (&Options{Buffer: os.Getpagesize()}).apply(spec); err != nil {
		return nil, err
	}
	missing := adapt(spec)
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the activity programs: %w", unsupported(err))
	}
	c.Close()
	return missing, nil
}
