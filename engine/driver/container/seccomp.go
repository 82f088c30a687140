package container

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/driver/container/refused"
)

// deniedCalls are refused although containerd's profile, or a later version of
// it, may allow them: each is a way around our limits or our view of what a
// sandbox does, or has a record of kernel holes, and none is needed inside.
var deniedCalls = []string{
	"add_key", "keyctl", "request_key", // keyrings are not namespaced well
	"bpf", "perf_event_open", "userfaultfd", // kernel attack surface
	"io_uring_setup", "io_uring_enter", "io_uring_register", // work without system calls escapes the watch
	"kexec_load", "kexec_file_load", "open_by_handle_at", "lookup_dcookie",
	"mount", "umount", "umount2", "move_mount", "fsopen", "fsmount", "fsconfig", "fspick", "open_tree", "mount_setattr", "pivot_root",
	"setns", "unshare", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "nfsservctl", "vm86", "vm86old",
	"listmount", "statmount", "modify_ldt", "uselib", "_sysctl", "sysfs", "ustat",
}

// choices are the calls that are allowed for some values of their first
// argument: the one in ValueTwo, in the bits that Value has. For a rule of this
// kind the runtime takes as long as for ten names, so that values that differ in
// a bit or two share one.
//
// Sockets are of the families of UNIX, IPv4 and IPv6 (which is 8 more), netlink
// and packets (1 more). All others, AF_ALG, AF_VSOCK and the rare protocols among
// them, only add kernel code to attack. Personalities are those that say nothing,
// of a smaller address space (8), of another name (0x20000), and the question for
// the present one.
var choices = map[string][]specs.LinuxSeccompArg{
	"socket": {
		{Value: ^uint64(0), ValueTwo: unix.AF_UNIX},
		{Value: ^uint64(8), ValueTwo: unix.AF_INET},
		{Value: ^uint64(1), ValueTwo: unix.AF_NETLINK},
	},
	"personality": {
		{Value: ^uint64(0x20008), ValueTwo: 0},
		{Value: ^uint64(0), ValueTwo: 0xffffffff},
	},
}

// seccompProfile returns containerd's default profile for the given
// capabilities without deniedCalls, as JSON. It names the machine's own
// architecture alone: a 32-bit or x32 call kills the caller, and the runtime
// compiles a third of the rules, on every start. With told, what is worth a
// record is refused by the listener; see package refused. Calls that programs
// make to see whether they may, as for where their memory lies, are not.
func seccompProfile(caps []string, told bool) (json.RawMessage, error) {
	p := seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: caps},
	}})
	arch, ok := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no system call filter for %s", runtime.GOARCH)
	}
	p.Architectures = []specs.Arch{arch}
	p.Syscalls = mergeRules(p.Syscalls)
	if told {
		p.Syscalls = append(p.Syscalls, toldRules()...)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode seccomp profile: %w", err)
	}
	return b, nil
}

// mergeRules drops the denied calls, the calls of other architectures and the
// rules for what choices has better ones for, and folds all calls that are
// allowed without a condition into one rule.
func mergeRules(in []specs.LinuxSyscall) []specs.LinuxSyscall {
	var always []string
	var out []specs.LinuxSyscall
	for _, r := range in {
		names := slices.DeleteFunc(slices.Clone(r.Names), unwanted)
		if len(names) == 0 {
			continue
		}
		if r.Action == specs.ActAllow && len(r.Args) == 0 {
			always = append(always, names...)
			continue
		}
		r.Names = names
		out = append(out, r)
	}
	for _, name := range slices.Sorted(maps.Keys(choices)) {
		for _, arg := range choices[name] {
			arg.Op = specs.OpMaskedEqual
			out = append(out, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg}})
		}
	}
	slices.Sort(always)
	return append([]specs.LinuxSyscall{{Names: slices.Compact(always), Action: specs.ActAllow}}, out...)
}

// toldRules hand what is refused to the listener.
func toldRules() []specs.LinuxSyscall {
	rules := []specs.LinuxSyscall{{Names: refused.Names(), Action: specs.ActNotify}}
	for _, flag := range refused.Namespaces() {
		rules = append(rules, specs.LinuxSyscall{
			Names:  []string{"clone"},
			Action: specs.ActNotify,
			Args:   []specs.LinuxSeccompArg{{Index: 0, Value: flag, ValueTwo: flag, Op: specs.OpMaskedEqual}},
		})
	}
	return rules
}

// withListener names in a profile who is passed the listener, see
// refused.Open, and to which server refused calls are told.
func withListener(profile json.RawMessage, l listenerNames) (json.RawMessage, error) {
	names, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	out := append(names[:len(names)-1:len(names)-1], ',')
	return append(out, profile[1:]...), nil
}

// listenerNames is the part of a profile that differs between instances.
type listenerNames struct {
	Path   string `json:"listenerPath"`
	Server string `json:"listenerMetadata"`
}

func unwanted(name string) bool {
	if choices[name] != nil || slices.Contains(deniedCalls, name) {
		return true
	}
	return runtime.GOARCH == "amd64" && foreign(name)
}

// foreign tells calls that exist on 32-bit machines only. libseccomp would
// drop them one by one while compiling.
func foreign(name string) bool {
	for _, suffix := range []string{"_time64", "32", "64"} {
		switch name {
		case "fadvise64", "getdents64", "pread64", "prlimit64", "pwrite64":
			return false
		}
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	switch name {
	case "_llseek", "_newselect", "ipc", "socketcall", "send", "recv", "sigprocmask", "sigreturn", "ugetrlimit", "waitpid":
		return true
	}
	return false
}
