// Package probe tells what this host can and cannot do, by trying: a version
// number says little about a kernel that somebody configured, patched or
// locked down. It changes nothing that outlives it.
package probe

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/atoll-sh/atoll/engine"
)

// Options says what to look at.
type Options struct {
	Home    string // where the server keeps its data; empty: /var/lib/atoll
	Runtime string // the OCI runtime; empty: runc
}

// Host looks at everything. It takes well below a second, and a check that
// hangs is given up with ctx.
func Host(ctx context.Context, o Options) engine.Report {
	if o.Home == "" {
		o.Home = "/var/lib/atoll"
	}
	if o.Runtime == "" {
		o.Runtime = "runc"
	}
	all := checks()
	out := make([]engine.Check, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() {
			out[i] = c.run(ctx, o)
			out[i].Name, out[i].Needed = c.name, c.needed
		})
	}
	wg.Wait()
	return engine.Report{Checks: out}
}

// check is one line of the report. run sets OK, Detail and Fix.
type check struct {
	name   string
	needed bool
	run    func(context.Context, Options) engine.Check
}

// checks lists all checks in the order they are shown.
func checks() []check {
	return []check{
		{"privileges", true, privileges},
		{"kernel", false, kernel},
		{"control groups", true, controlGroups},
		{"user namespaces", true, userNamespaces},
		{"id-mapped mounts", true, idMappedMounts},
		{"overlay file system", true, overlay},
		{"disk pool", false, diskPool},
		{"loop devices", false, loopDevices},
		{"disk space", true, diskSpace},
		{"memory", false, memory},
		{"nftables", true, nft},
		{"other firewalls", false, firewalls},
		{"forwarding", false, forwarding},
		{"IPv6", false, ipv6},
		{"container runtime", true, runtimeVersion},
		{"runtime escapes of 2025", false, escapes2025},
		{"crun", false, crun},
		{"KVM", false, kvm},
		{"GPU", false, gpu},
		{"BPF", false, bpf},
		{"activity", false, processActivity},
		{"clock", false, clock},
	}
}

func good(detail string) engine.Check { return engine.Check{OK: true, Detail: detail} }

func bad(detail, fix string) engine.Check { return engine.Check{Detail: detail, Fix: fix} }

// existing returns dir or its nearest parent that exists.
func existing(dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
