package refused

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// call is what is known of one system call.
type call struct {
	name   string
	params []param
	// probe is set when ordinary programs try the call whenever they begin. What
	// one user's programs of the same name try is then the same call.
	probe bool
}

// param is a named argument.
type param struct {
	name string
	kind kind
}

type kind int

// none leaves an argument out: a pointer to what is not read, or padding.
const (
	none kind = iota
	text
	number
	bits
	mounting
	unmounting
	cloning
	bpfCommand
)

// calls are those that a Keeper can be asked about, by number. Those that this
// processor does not have are missing.
var calls = merged()

func merged() map[uintptr]call {
	all := maps.Clone(commonCalls)
	maps.Copy(all, processorCalls)
	return all
}

var commonCalls = map[uintptr]call{
	// File systems.
	unix.SYS_MOUNT:         {name: "mount", params: []param{{"source", text}, {"target", text}, {"type", text}, {"flags", mounting}, {"data", text}}},
	unix.SYS_UMOUNT2:       {name: "umount2", params: []param{{"target", text}, {"flags", unmounting}}},
	unix.SYS_PIVOT_ROOT:    {name: "pivot_root", params: []param{{"root", text}, {"old", text}}},
	unix.SYS_MOVE_MOUNT:    {name: "move_mount", params: []param{{"dir", number}, {"path", text}, {"to_dir", number}, {"to", text}, {"flags", bits}}},
	unix.SYS_OPEN_TREE:     {name: "open_tree", params: []param{{"dir", number}, {"path", text}, {"flags", bits}}},
	unix.SYS_FSOPEN:        {name: "fsopen", params: []param{{"type", text}, {"flags", bits}}},
	unix.SYS_FSCONFIG:      {name: "fsconfig", params: []param{{"fd", number}, {"command", number}, {"key", text}}},
	unix.SYS_FSMOUNT:       {name: "fsmount", params: []param{{"fd", number}, {"flags", bits}, {"attributes", bits}}},
	unix.SYS_FSPICK:        {name: "fspick", params: []param{{"dir", number}, {"path", text}, {"flags", bits}}},
	unix.SYS_MOUNT_SETATTR: {name: "mount_setattr", params: []param{{"dir", number}, {"path", text}, {"flags", bits}}},
	unix.SYS_QUOTACTL:      {name: "quotactl", params: []param{{"command", bits}, {"device", text}, {"id", number}}},
	unix.SYS_QUOTACTL_FD:   {name: "quotactl_fd", params: []param{{"fd", number}, {"command", bits}, {"id", number}}},
	unix.SYS_SWAPON:        {name: "swapon", params: []param{{"path", text}, {"flags", bits}}},
	unix.SYS_SWAPOFF:       {name: "swapoff", params: []param{{"path", text}}},
	unix.SYS_ACCT:          {name: "acct", params: []param{{"path", text}}},
	unix.SYS_FANOTIFY_INIT: {name: "fanotify_init", params: []param{{"flags", bits}}},

	unix.SYS_OPEN_BY_HANDLE_AT: {name: "open_by_handle_at", params: []param{{"mount", number}, {"handle", none}, {"flags", bits}}},

	// Namespaces.
	unix.SYS_UNSHARE:       {name: "unshare", params: []param{{"flags", cloning}}},
	unix.SYS_CLONE:         {name: "clone", params: []param{{"flags", cloning}}},
	unix.SYS_SETNS:         {name: "setns", params: []param{{"fd", number}, {"flags", cloning}}},
	unix.SYS_SETHOSTNAME:   {name: "sethostname", params: []param{{"name", text}}},
	unix.SYS_SETDOMAINNAME: {name: "setdomainname", params: []param{{"name", text}}},

	// The kernel itself.
	unix.SYS_INIT_MODULE:     {name: "init_module", params: []param{{"image", none}, {"size", number}, {"parameters", text}}},
	unix.SYS_FINIT_MODULE:    {name: "finit_module", params: []param{{"fd", number}, {"parameters", text}, {"flags", bits}}},
	unix.SYS_DELETE_MODULE:   {name: "delete_module", params: []param{{"name", text}, {"flags", bits}}},
	unix.SYS_KEXEC_LOAD:      {name: "kexec_load", params: []param{{"entry", bits}, {"segments", number}, {"list", none}, {"flags", bits}}},
	unix.SYS_KEXEC_FILE_LOAD: {name: "kexec_file_load", params: []param{{"kernel", number}, {"initrd", number}, {"size", number}, {"command_line", text}, {"flags", bits}}},
	unix.SYS_REBOOT:          {name: "reboot", params: []param{{"magic", none}, {"magic2", none}, {"command", bits}}},
	unix.SYS_SYSLOG:          {name: "syslog", params: []param{{"type", number}}},
	unix.SYS_SETTIMEOFDAY:    {name: "settimeofday"},
	unix.SYS_CLOCK_SETTIME:   {name: "clock_settime", params: []param{{"clock", number}}},
	unix.SYS_VHANGUP:         {name: "vhangup"},
	unix.SYS_BPF:             {name: "bpf", params: []param{{"command", bpfCommand}}},
	unix.SYS_PERF_EVENT_OPEN: {name: "perf_event_open", params: []param{{"attributes", none}, {"pid", number}, {"cpu", number}}},
	unix.SYS_USERFAULTFD:     {name: "userfaultfd", params: []param{{"flags", bits}}},

	// libuv asks for a ring whenever a program of its begins.
	unix.SYS_IO_URING_SETUP:    {name: "io_uring_setup", params: []param{{"entries", number}}, probe: true},
	unix.SYS_IO_URING_ENTER:    {name: "io_uring_enter", params: []param{{"fd", number}}},
	unix.SYS_IO_URING_REGISTER: {name: "io_uring_register", params: []param{{"fd", number}, {"opcode", number}}},

	// Keys and other processes. Sessions of users begin with keyctl.
	unix.SYS_ADD_KEY:     {name: "add_key", params: []param{{"type", text}, {"description", text}}},
	unix.SYS_REQUEST_KEY: {name: "request_key", params: []param{{"type", text}, {"description", text}}},
	unix.SYS_KEYCTL:      {name: "keyctl", params: []param{{"operation", number}}, probe: true},
	unix.SYS_PIDFD_GETFD: {name: "pidfd_getfd", params: []param{{"pidfd", number}, {"fd", number}}},
}

// Names are the calls that a filter can hand to a Keeper, sorted. clone is not
// among them: only some of its flags are refused, see Namespaces.
func Names() []string {
	var all []string
	for _, c := range calls {
		if c.name != "clone" {
			all = append(all, c.name)
		}
	}
	slices.Sort(all)
	return all
}

// Namespaces are the flags of clone for which it is refused.
func Namespaces() []uint64 {
	return []uint64{unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET}
}

// describe gives a call's arguments for people. read reads a text of the caller.
func (c *call) describe(args [6]uint64, read func(address uint64) (s string, cut, ok bool)) (detail string, cut bool) {
	var words []string
	for i, p := range c.params {
		value := args[i]
		switch p.kind {
		case none:
			continue
		case text:
			if value == 0 {
				continue
			}
			s, short, ok := read(value)
			if !ok {
				words = append(words, p.name+"=?")
				continue
			}
			cut = cut || short
			words = append(words, p.name+"="+quote(s))
		case number:
			words = append(words, p.name+"="+strconv.Itoa(int(int32(value))))
		default:
			if value != 0 || p.kind == bpfCommand {
				words = append(words, p.name+"="+flags(p.kind, value))
			}
		}
	}
	detail = strings.Join(words, " ")
	if len(detail) > maxDetail {
		detail, cut = detail[:maxDetail], true
	}
	return detail, cut
}

// quote leaves harmless words as they are.
func quote(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r >= 0x7f }) {
		return strconv.Quote(s)
	}
	return s
}

// flags names the bits that have names; the rest is a number.
func flags(k kind, value uint64) string {
	if k == bpfCommand {
		if value < uint64(len(bpfCommands)) {
			return bpfCommands[value]
		}
		return strconv.FormatUint(value, 10)
	}
	var words []string
	for _, f := range flagNames[k] {
		if value&f.bit != 0 {
			words = append(words, f.name)
			value &^= f.bit
		}
	}
	if k == cloning {
		value &^= 0xff // the signal at the child's end
	}
	if value != 0 || len(words) == 0 {
		words = append(words, fmt.Sprintf("%#x", value))
	}
	return strings.Join(words, ",")
}

type flag struct {
	bit  uint64
	name string
}

var flagNames = map[kind][]flag{
	mounting: {
		{unix.MS_RDONLY, "ro"},
		{unix.MS_NOSUID, "nosuid"},
		{unix.MS_NODEV, "nodev"},
		{unix.MS_NOEXEC, "noexec"},
		{unix.MS_REMOUNT, "remount"},
		{unix.MS_BIND, "bind"},
		{unix.MS_MOVE, "move"},
		{unix.MS_REC, "rec"},
		{unix.MS_UNBINDABLE, "unbindable"},
		{unix.MS_PRIVATE, "private"},
		{unix.MS_SLAVE, "slave"},
		{unix.MS_SHARED, "shared"},
	},
	unmounting: {{unix.MNT_FORCE, "force"}, {unix.MNT_DETACH, "detach"}, {unix.MNT_EXPIRE, "expire"}, {unix.UMOUNT_NOFOLLOW, "nofollow"}},
	cloning: {
		{unix.CLONE_NEWUSER, "newuser"},
		{unix.CLONE_NEWNS, "newns"},
		{unix.CLONE_NEWPID, "newpid"},
		{unix.CLONE_NEWNET, "newnet"},
		{unix.CLONE_NEWIPC, "newipc"},
		{unix.CLONE_NEWUTS, "newuts"},
		{unix.CLONE_NEWCGROUP, "newcgroup"},
		{unix.CLONE_NEWTIME, "newtime"},
		{unix.CLONE_VM, "vm"},
		{unix.CLONE_FS, "fs"},
		{unix.CLONE_FILES, "files"},
		{unix.CLONE_VFORK, "vfork"},
	},
}

// bpfCommands are named as the kernel does, by number.
var bpfCommands = [...]string{
	"map_create", "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_get_next_key", "prog_load", "obj_pin", "obj_get",
	"prog_attach", "prog_detach", "prog_test_run", "prog_get_next_id", "map_get_next_id", "prog_get_fd_by_id", "map_get_fd_by_id",
	"obj_get_info_by_fd", "prog_query", "raw_tracepoint_open", "btf_load", "btf_get_fd_by_id", "task_fd_query",
	"map_lookup_and_delete_elem", "map_freeze", "btf_get_next_id", "map_lookup_batch", "map_lookup_and_delete_batch",
	"map_update_batch", "map_delete_batch", "link_create", "link_update", "link_get_fd_by_id", "link_get_next_id", "enable_stats",
	"iter_create", "link_detach", "prog_bind_map", "token_create",
}
