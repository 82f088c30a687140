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
	"on_connect":  {"", "the own port of TCP connections that are begun, which needs a control group tree of version 2"},
	"on_connect4": {"", "far ends of UDP sockets, which needs a control group tree of version 2"},
	"on_connect6": {"", ""},
	"find":        {"bpf_task_from_pid", "which process changed a file, when it runs still and was not seen to begin, which needs Linux 6.12"},
}

// load loads the programs that this host can have, and says what is missing.
func load(spec *ebpf.CollectionSpec) (*ebpf.Collection, []string, error) {
	missing, err := adapt(spec)
	if err != nil {
		return nil, nil, err
	}
	c, err := ebpf.NewCollection(spec)
	// Where the kernel knows what this one calls, it may still refuse the call.
	if err != nil && spec.Programs["find"] != nil {
		delete(spec.Programs, "find")
		if c, second := ebpf.NewCollection(spec); second == nil {
			return c, append(missing, optional["find"].lacks), nil
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load the activity programs: %w", unsupported(err))
	}
	return c, missing, nil
}

// adapt takes the programs out that this host cannot have.
func adapt(spec *ebpf.CollectionSpec) (missing []string, err error) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", unsupported(err))
	}
	unified := unifiedRoot() != ""
	for name, o := range optional {
		there := unified
		if o.needs != "" {
			_, absent := types.AnyTypeByName(o.needs)
			there = absent == nil
		}
		if there {
			continue
		}
		delete(spec.Programs, name)
		if o.lacks != "" {
			missing = append(missing, o.lacks)
		}
	}
	return missing, spec.Variables["ports_told"].Set(unified)
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
	c, missing, err := load(spec)
	if err != nil {
		return nil, err
	}
	c.Close()
	return missing, nil
}
