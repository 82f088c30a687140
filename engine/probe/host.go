package probe

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// privileges checks for the capabilities without which nothing works.
func privileges(context.Context, Options) engine.Check {
	if os.Geteuid() != 0 {
		return bad("not root", "run the server with sudo")
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return bad("cannot read /proc/self/status: "+err.Error(), "mount /proc")
	}
	var have uint64
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			have, _ = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	var missing []string
	for _, c := range []struct {
		name string
		bit  int
	}{
		{"CAP_CHOWN", unix.CAP_CHOWN},
		{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
		{"CAP_KILL", unix.CAP_KILL},
		{"CAP_SETUID", unix.CAP_SETUID},
		{"CAP_SETGID", unix.CAP_SETGID},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE},
		{"CAP_MKNOD", unix.CAP_MKNOD},
	} {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return bad("root without "+strings.Join(missing, ", "), "give the server's service or container these capabilities")
	}
	if have&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return good("root, without CAP_SYS_RESOURCE: the server cannot protect itself from the OOM killer")
	}
	return good("root with all capabilities")
}

func kernel(context.Context, Options) engine.Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return bad(err.Error(), "")
	}
	return good(unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:]))
}

// controlGroups tries to make a group where the server will.
func controlGroups(context.Context, Options) engine.Check {
	const root = "/sys/fs/cgroup"
	if b, err := os.ReadFile(root + "/cgroup.controllers"); err == nil {
		return groups("version 2", strings.Fields(string(b)), []string{"cpu", "memory", "pids"}, func(string) string { return root })
	}
	var have []string
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		have = append(have, e.Name())
	}
	return groups("version 1", have, []string{"cpu", "cpuacct", "memory", "pids", "devices", "freezer"},
		func(c string) string { return filepath.Join(root, c) })
}

func groups(version string, have, want []string, dir func(string) string) engine.Check {
	var missing []string
	for _, w := range want {
		if !contains(have, w) {
			missing = append(missing, w)
		}
	}
	if len(missing) > 0 {
		return bad(version+" without "+strings.Join(missing, ", "), "enable these controllers on the kernel's command line, as cgroup_enable=memory")
	}
	for _, w := range want {
		p, err := os.MkdirTemp(dir(w), "atoll-probe-")
		if err != nil {
			return bad(version+", not writable: "+err.Error(), "run the server outside of other containers, or with a writable /sys/fs/cgroup")
		}
		os.Remove(p)
	}
	return good(version + " with " + strings.Join(want, ", "))
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Below these, a server is not worth starting, or will be a nuisance.
const (
	diskNeeded = 5 << 30
	diskWanted = 20 << 30
	memWanted  = 2 << 30
)

func diskSpace(_ context.Context, o Options) engine.Check {
	var st unix.Statfs_t
	if err := unix.Statfs(existing(o.Home), &st); err != nil {
		return bad(err.Error(), "")
	}
	free := int64(st.Bavail) * st.Bsize
	d := fmt.Sprintf("%s free in %s", gib(free), existing(o.Home))
	switch {
	case free < diskNeeded:
		return bad(d, fmt.Sprintf("free %s, or choose another --home", gib(diskNeeded)))
	case free < diskWanted:
		return good(d + ", which is little: disks of sandboxes share it")
	}
	return good(d)
}

func memory(context.Context, Options) engine.Check {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return bad(err.Error(), "mount /proc")
	}
	defer f.Close()
	kb := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 2 {
			kb[w[0]], _ = strconv.ParseInt(w[1], 10, 64)
		}
	}
	total, free := kb["MemTotal:"]<<10, kb["MemAvailable:"]<<10
	d := fmt.Sprintf("%s, %s available", gib(total), gib(free))
	if total < memWanted {
		return bad(d, "sandboxes will be few and small; 2 GiB or more are better")
	}
	return good(d)
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// clock tells whether the time can be right: TLS and tokens depend on it.
func clock(context.Context, Options) engine.Check {
	now := time.Now()
	d := now.UTC().Format(time.RFC3339)
	if now.Year() < 2025 {
		return bad(d+" is in the past", "set the clock, for example with chrony")
	}
	var x unix.Timex
	state, err := unix.Adjtimex(&x)
	if err != nil || state == unix.TIME_ERROR {
		return engine.Check{OK: true, Detail: d + ", not synchronized as far as the kernel knows"}
	}
	return good(d + ", synchronized")
}
