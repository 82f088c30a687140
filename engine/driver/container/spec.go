package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

const (
	toolboxPath   = "/.atoll/toolbox" // process 1; the image links sudo to it
	controlPath   = "/run/atoll"
	socketName    = "toolbox.sock"
	idCount       = 65536 // user and group ids of a sandbox
	defaultPIDs   = 4096
	cpuPeriod     = 100_000 // microseconds
	minSharedMiB  = 64      // least size of /dev/shm
	maxOpenFiles  = 1 << 20
	softOpenFiles = 1 << 16 // programs that close every possible descriptor would crawl at maxOpenFiles
	defaultPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	// oomScore makes the kernel prefer sandboxes to the host's own programs
	// when the whole machine runs out of memory.
	oomScore = 100
)

// capabilities are what root inside has over what the sandbox itself owns.
// They count in the sandbox's user namespace only. NET_BIND_SERVICE and NET_RAW
// have no power over the network namespace, which the host owns; they stay
// because the kernel refuses to execute a file that asks for a capability
// outside this set, ping for one.
func capabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// maskedPaths are hidden from the sandbox.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kmsg",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats",
	}
}

// readonlyPaths may be read, never written.
func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}
}

// document is an OCI runtime specification whose seccomp profile is kept as
// bytes: it is the largest part and the same for all.
type document struct {
	specs.Spec
	Linux *linuxPart `json:"linux,omitempty"`
}

type linuxPart struct {
	specs.Linux
	Seccomp json.RawMessage `json:"seccomp,omitempty"`
}

// template holds what all specifications of this host have in common.
type template struct {
	seccomp      json.RawMessage
	listener     func(id string) listenerNames // nil: the filter has none
	mounts       []specs.Mount
	rlimits      []specs.POSIXRlimit
	cgroupParent string // "/atoll-<server>"
	swap         bool   // swap is accounted, so it can be limited
	group        string // shim group; empty for one shim per instance
}

func newTemplate(cgroupParent, group string, cg hierarchy, listener func(id string) listenerNames) (template, error) {
	profile, err := seccompProfile(capabilities(), listener != nil)
	if err != nil {
		return template{}, err
	}
	return template{
		seccomp:      profile,
		listener:     listener,
		mounts:       baseMounts(cg),
		rlimits:      rlimits(),
		cgroupParent: cgroupParent,
		swap:         cg.swapAccounted(),
		group:        group,
	}, nil
}

// baseMounts are the kernel file systems. /sys is no sysfs: that would need
// power over the network namespace, and shows the host's devices. It holds the
// few things that language runtimes look up.
func baseMounts(cg hierarchy) []specs.Mount {
	locked := []string{"nosuid", "noexec", "nodev"}
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: locked},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: locked},
		{Destination: "/sys", Type: "tmpfs", Source: "tmpfs", Options: append([]string{"mode=755", "size=64k"}, locked...)},
	}
	for _, p := range []string{"/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage"} {
		if _, err := os.Stat(p); err == nil {
			ms = append(ms, specs.Mount{Destination: p, Type: "bind", Source: p, Options: append([]string{"bind", "ro"}, locked...)})
		}
	}
	return append(ms, cg.mounts()...)
}

// rlimits asks for many open files, within what this process may hand on, and
// for no core dumps, which would land on the sandbox's disk.
func rlimits() []specs.POSIXRlimit {
	hard := uint64(maxOpenFiles)
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err == nil {
		hard = min(hard, have.Max)
	}
	return []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Hard: hard, Soft: min(hard, softOpenFiles)},
		{Type: "RLIMIT_CORE"},
	}
}

// validate refuses what a driver cannot work with. Its messages name the
// runner's fields: they mean a fault of ours, never of the user.
func validate(s driver.Spec) error {
	paths := map[string]string{"RootFS": s.RootFS, "NetNS": s.NetNS, "Toolbox": s.Toolbox, "ControlDir": s.ControlDir}
	for _, m := range s.Mounts {
		paths["Mounts "+m.Target] = m.Source
	}
	for name, path := range paths {
		if !filepath.IsAbs(path) {
			return engine.Errorf(engine.KindInvalid, "%s of instance %s must be an absolute path, got %q", name, s.ID, path)
		}
		// The runtime's own words about a missing file are a riddle.
		if _, err := os.Lstat(path); err != nil {
			return engine.Errorf(engine.KindInvalid, "%s of instance %s does not exist", name, s.ID).Wrap(err)
		}
	}
	if s.UIDBase == 0 {
		return engine.Errorf(engine.KindInvalid, "UIDBase of instance %s must not be 0: root inside would be root outside", s.ID)
	}
	return validID(s.ID)
}

func validID(id string) error {
	ok := id != "" && len(id) <= 64
	for _, c := range id {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return engine.Errorf(engine.KindInvalid, "instance id %q must be 1 to 64 of a-z, 0-9 and -", id)
	}
	return nil
}

// build makes the specification of one instance.
func (t template) build(s driver.Spec) (*document, error) {
	filter := t.seccomp
	if t.listener != nil {
		var err error
		if filter, err = withListener(filter, t.listener(s.ID)); err != nil {
			return nil, fmt.Errorf("name the listener of instance %s: %w", s.ID, err)
		}
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.UIDBase, Size: idCount}}
	doc := &document{
		Spec: specs.Spec{
			Version:  "1.0.2", // the newest that every supported runtime accepts
			Root:     &specs.Root{Path: s.RootFS},
			Hostname: s.Hostname,
			Mounts:   t.instanceMounts(s),
			Process: &specs.Process{
				Args:            []string{toolboxPath},
				Env:             environment(s),
				Cwd:             "/",
				NoNewPrivileges: true,
				OOMScoreAdj:     new(int),
				Rlimits:         t.rlimits,
				Capabilities: &specs.LinuxCapabilities{
					Bounding: capabilities(), Effective: capabilities(), Permitted: capabilities(),
				},
			},
		},
		Linux: &linuxPart{
			Linux: specs.Linux{
				UIDMappings:   ids,
				GIDMappings:   ids,
				CgroupsPath:   t.cgroupPath(s.ID),
				Resources:     t.resources(s.Resources),
				MaskedPaths:   maskedPaths(),
				ReadonlyPaths: readonlyPaths(),
				Namespaces: []specs.LinuxNamespace{
					{Type: specs.UserNamespace},
					{Type: specs.PIDNamespace},
					{Type: specs.IPCNamespace},
					{Type: specs.UTSNamespace},
					{Type: specs.MountNamespace},
					{Type: specs.CgroupNamespace},
					{Type: specs.NetworkNamespace, Path: s.NetNS},
				},
			},
			Seccomp: filter,
		},
	}
	*doc.Process.OOMScoreAdj = oomScore
	// Start follows the task's creation without a decision in between, so our
	// shim need not wait for the call.
	doc.Annotations = map[string]string{"atoll.start-at-once": ""}
	if t.group != "" {
		doc.Annotations["io.containerd.runc.v2.group"] = t.group
	}
	return doc, nil
}

func (t template) cgroupPath(id string) string { return t.cgroupParent + "/" + id }

// instanceMounts adds to the common mounts those of one instance. The size of
// /dev/shm only guards against surprises: its pages count as the sandbox's
// memory.
func (t template) instanceMounts(s driver.Spec) []specs.Mount {
	shm := max(minSharedMiB, s.Resources.MemoryMiB/4)
	ms := append(t.mounts[:len(t.mounts):len(t.mounts)],
		specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%dm", shm)}},
		specs.Mount{Destination: toolboxPath, Type: "bind", Source: s.Toolbox, Options: []string{"bind", "ro", "nosuid", "nodev"}},
		specs.Mount{Destination: controlPath, Type: "bind", Source: s.ControlDir, Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}},
	)
	for _, m := range s.Mounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		ms = append(ms, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: []string{"rbind", mode, "nosuid", "nodev"}})
	}
	return ms
}

// environment is the image's, then what the toolbox must know.
func environment(s driver.Spec) []string {
	env := make([]string, 0, len(s.Env)+5)
	hasPath := false
	for _, e := range s.Env {
		if strings.HasPrefix(e, "ATOLL_") {
			continue
		}
		hasPath = hasPath || strings.HasPrefix(e, "PATH=")
		env = append(env, e)
	}
	if !hasPath {
		env = append(env, "PATH="+defaultPath)
	}
	return append(env, "ATOLL_TOOLBOX_SOCKET="+controlPath+"/"+socketName, "ATOLL_SUDO=1", "ATOLL_USER="+s.User, "ATOLL_WORKDIR="+s.WorkDir)
}

// resources turns limits into cgroup settings. CPU and memory of 0 mean none.
func (t template) resources(r engine.Resources) *specs.LinuxResources {
	pids := r.PIDs
	if pids <= 0 {
		pids = defaultPIDs
	}
	out := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Pids:    &specs.LinuxPids{Limit: &pids},
	}
	if r.CPU > 0 {
		quota, period, shares := int64(r.CPU*cpuPeriod), uint64(cpuPeriod), cpuShares(r.CPU)
		out.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares}
	}
	if r.MemoryMiB > 0 {
		limit := r.MemoryMiB << 20
		out.Memory = &specs.LinuxMemory{Limit: &limit}
		if t.swap {
			out.Memory.Swap = &limit // memory and swap together, so no swap
		}
	}
	return out
}

// cpuShares gives each sandbox its part of a busy host by its size.
func cpuShares(cpu float64) uint64 { return uint64(min(max(cpu*1024, 2), 262144)) }
