package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Probe tells what this host can do, by trying where that is cheap.
func (d *Driver) Probe(ctx context.Context) (driver.Capabilities, error) {
	ctx, cancel := context.WithTimeout(d.context(ctx), readyTimeout)
	defer cancel()
	daemon := d.checkDaemon(ctx)
	runtime, version := checkRuntime(ctx, d.cfg.Runtime)
	checks := []engine.Check{daemon, runtime, d.checkCgroups(), checkUserNamespaces(), checkSeccomp(), d.checkRefusals()}
	caps := driver.Capabilities{Available: true, Version: version, Checks: checks}
	for _, c := range checks {
		if c.Needed && !c.OK {
			caps.Available = false
			caps.Reason = c.Name + ": " + c.Detail
			return caps, nil
		}
	}
	caps.Reason = fmt.Sprintf("%s, %s, control groups version %d", daemon.Detail, version, d.cgroups.version())
	return caps, nil
}

func (d *Driver) checkDaemon(ctx context.Context) engine.Check {
	c := engine.Check{Name: "containerd", Needed: true}
	v, err := d.client.Version(ctx)
	if err != nil {
		c.Detail, c.Fix = "does not answer", "see its log; the server starts it again by itself"
		return c
	}
	c.OK, c.Detail = atLeast(v.Version, 1, 6), "containerd "+v.Version
	if !c.OK {
		c.Fix = "use containerd 1.6 or later, or the server's own"
	}
	return c
}

// checkRuntime finds the runtime and its version. A crun before 1.21 stumbles
// over control groups of both versions; a runc before 1.1.12 has known escapes
// unless the distribution repaired it, which Debian marks in the version.
func checkRuntime(ctx context.Context, program string) (engine.Check, string) {
	c := engine.Check{Name: "container runtime", Needed: true}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		c.Detail, c.Fix = program+" cannot be run", "install the package runc"
		return c, ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	version := strings.Join(strings.Fields(strings.Replace(first, " version", "", 1)), " ")
	c.OK, c.Detail = true, version
	number := version[strings.LastIndexByte(version, ' ')+1:]
	switch {
	case strings.HasPrefix(version, "crun") && !atLeast(number, 1, 21):
		c.OK, c.Fix = false, "use crun 1.21 or later, or runc"
	case strings.HasPrefix(version, "runc") && knownEscape(number, string(out)):
		c.OK, c.Fix = false, "this version has known escapes (CVE-2024-21626); install the distribution's update"
	}
	return c, version
}

// knownEscape tells versions before 1.1.12 that carry no repair of Debian or
// Ubuntu.
func knownEscape(number, full string) bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(number, "%d.%d.%d", &major, &minor, &patch); n < 3 {
		return false
	}
	repaired := strings.Contains(full, "deb") || strings.Contains(full, "ubuntu")
	return !repaired && (major < 1 || major == 1 && (minor < 1 || minor == 1 && patch < 12))
}

func (d *Driver) checkCgroups() engine.Check {
	c := engine.Check{Name: "control groups", OK: true, Needed: true, Detail: fmt.Sprintf("version %d", d.cgroups.version())}
	var missing []string
	if d.cgroups.version() == 2 {
		have, _ := readFile(cgroupRoot, "cgroup.controllers")
		for _, want := range []string{"cpu", "memory", "pids"} {
			if !strings.Contains(" "+have+" ", " "+want+" ") {
				missing = append(missing, want)
			}
		}
	} else {
		for _, want := range []string{"cpu", "cpuacct", "memory", "pids", "freezer", "devices"} {
			if _, err := os.Stat(cgroupRoot + "/" + want); err != nil {
				missing = append(missing, want)
			}
		}
	}
	if len(missing) > 0 {
		c.OK, c.Detail = false, "controllers missing: "+strings.Join(missing, ", ")
		c.Fix = "enable them on the kernel's command line, as cgroup_enable=memory"
	} else if !d.template.swap {
		c.Detail += ", swap is not accounted: a sandbox may use the host's swap beyond its memory limit"
	}
	return c
}

func checkUserNamespaces() engine.Check {
	c := engine.Check{Name: "user namespaces", Needed: true, OK: true, Detail: "available"}
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil || string(bytes.TrimSpace(b)) == "0" {
		c.OK, c.Detail, c.Fix = false, "switched off", "sysctl -w user.max_user_namespaces=65536"
	}
	return c
}

func checkSeccomp() engine.Check {
	c := engine.Check{Name: "system call filter", Needed: true, OK: true, Detail: "available"}
	if err := unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		c.OK, c.Detail = false, "the kernel has no seccomp"
	}
	return c
}
