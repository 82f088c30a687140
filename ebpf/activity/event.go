package activity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is what an event tells.
type Kind uint8

// The kinds, as in activity.h. The last two are the reader's own.
const (
	KindExec      Kind = iota + 1 // a program was started
	KindExit                      // a process ended
	KindOpen                      // a file that was open for writing was closed; of an image, the first change
	KindCreate                    // a file was made, or got a second name
	KindUnlink                    // a name of a file was removed
	KindRename                    // a file or directory got another name
	KindMkdir                     // a directory was made
	KindRmdir                     // a directory was removed
	KindLink                      // not told yet
	KindSymlink                   // a symbolic link was made
	KindTruncate                  // not told yet
	KindConnect                   // a connection was begun, and once more when it failed; or UDP's far end was set
	KindAccept                    // a connection came to one who listens
	KindPrivilege                 // a process asked for what not every process may have
	KindLost                      // events are missing here
	KindGap                       // the sandbox ran before it was watched
)

var kinds = [...]string{
	"none", "exec", "exit", "open", "create", "unlink", "rename", "mkdir", "rmdir", "link", "symlink",
	"truncate", "connect", "accept", "privilege", "lost", "gap",
}

// String is the kind's name, as "exec".
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Call is the system call of a KindPrivilege event; "other" when only the
// capability is known that it needed, "foreign" for one of another architecture
// than the machine's, for which a filter killed the thread.
type Call uint8

// calls names them, in the order of activity.h.
var calls = [...]string{
	"none", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
	"capset", "mount", "umount", "move_mount", "pivot_root", "chroot", "ptrace", "bpf",
	"perf_event_open", "init_module", "finit_module", "delete_module", "unshare", "setns", "clone",
	"other", "reboot", "swap", "sethostname", "kexec", "open_by_handle_at", "process_vm", "foreign",
}

// String is the call's name, as "setuid".
func (c Call) String() string {
	if int(c) < len(calls) {
		return calls[c]
	}
	return fmt.Sprintf("call-%d", uint8(c))
}

// Process is who did it. ID and Start together are unique until the next boot.
type Process struct {
	ID, Thread int // as the host counts
	Parent     int // at the time of the event
	Inner      int // ID as the sandbox counts
	Start      time.Duration
	UID, GID   uint32 // real, as the host counts
	EUID       uint32
	Command    string // up to 15 bytes, chosen by the process
}

// Event is one thing that a sandbox did. Texts are bytes of the sandbox: they
// may hold anything but NUL.
type Event struct {
	Kind    Kind
	Time    time.Duration // since boot
	Sandbox uint32
	Process Process // zero for KindLost and KindGap

	// Path is what was executed, opened, made or removed; files are named as
	// their directories were when the event was read. To is the new name; of a
	// symbolic link, where it lies, and Path its text.
	Path, To string
	// Binary is the file that runs after KindExec: not a script but its
	// interpreter, and not a symbolic link.
	Binary string
	Args   []string
	// ArgsSize is how many bytes all arguments have, also those that Args lacks.
	ArgsSize int

	Elevated bool // KindExec: the program got rights that its user lacks, as by setuid

	Inode, Device uint64 // of Binary; 0 when unknown. Device is as in stat.

	Status   unix.WaitStatus // KindExit
	Duration time.Duration   // KindExit: since the process began

	Local, Remote netip.AddrPort
	Protocol      uint8 // of IP, as 6

	Call     Call
	CallArgs [3]uint64 // of ptrace the traced and the tracing process; of foreign the number, and 32 or, for x32, 64
	// Refused is the name of a system call that a filter refused, and then Path
	// tells its arguments; "" when the kernel itself was asked. Times is how many
	// such calls of the process this stands for.
	Refused string
	Times   uint64
	// Capability is the one that was asked for, as "sys_admin"; "" when that is
	// not known.
	Capability string

	// Result is -errno when the call failed. With a Capability it tells only
	// whether the process has that.
	Result int64

	Cut      bool // a path lacks its beginning or end, or Args lack some
	Detached bool // the file has no path in the mount namespace, as of memfd_create
	Unread   bool // memory of the process could not be read

	Lost    uint64 // KindLost: how many, at least
	Unknown bool   // KindLost: nobody can tell how many more
	Running int    // KindGap: how many processes were there
}

// The flags, as in activity.h.
const (
	flagCut = 1 << iota
	_
	flagDetached
	flagUnread
	flagElevated
)

const headSize = int(unsafe.Sizeof(bpfEvent{}))

// decode also returns how many events of the sandbox were lost before this one
// in all.
func decode(b []byte) (Event, uint64, error) {
	var raw bpfEvent
	if len(b) < headSize {
		return Event{}, 0, fmt.Errorf("an event of %d bytes is short", len(b))
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &raw); err != nil {
		return Event{}, 0, err
	}
	var texts [len(raw.Texts)][]byte
	rest := b[headSize:]
	for i, n := range raw.Texts {
		if int(n) > len(rest) {
			return Event{}, 0, fmt.Errorf("text %d of an event is short", i)
		}
		texts[i], rest = rest[:n], rest[n:]
	}
	e := Event{
		Kind: Kind(raw.Kind), Time: time.Duration(raw.Time), Sandbox: raw.Sandbox, Inode: raw.Inode, Device: device(raw.Dev),
		Process: Process{
			ID: int(raw.Tgid), Thread: int(raw.Tid), Parent: int(raw.Ppid), Inner: int(raw.Inner), Start: time.Duration(raw.Start),
			UID: raw.Uid, GID: raw.Gid, EUID: raw.Euid, Command: command(raw.Comm),
		},
		Result: raw.Ret, Cut: raw.Flags&flagCut != 0, Detached: raw.Flags&flagDetached != 0, Unread: raw.Flags&flagUnread != 0,
	}
	e.details(&raw, texts)
	return e, raw.Lost, nil
}

func (e *Event) details(raw *bpfEvent, texts [4][]byte) {
	switch e.Kind {
	case KindExec:
		e.Path, e.Binary = text(texts[0]), text(texts[1])
		e.Args, e.ArgsSize = arguments(texts[2]), int(raw.ArgsTotal)
		e.Elevated = raw.Flags&flagElevated != 0
	case KindExit:
		e.Status, e.Duration = unix.WaitStatus(raw.Args[0]), e.Time-e.Process.Start
	case KindConnect, KindAccept:
		e.Protocol = raw.Proto
		e.Local = netip.AddrPortFrom(netip.AddrFrom16(raw.Laddr).Unmap(), raw.Lport)
		e.Remote = netip.AddrPortFrom(netip.AddrFrom16(raw.Raddr).Unmap(), raw.Rport)
	case KindPrivilege:
		e.Call, e.CallArgs, e.Path, e.Capability = Call(raw.Call), raw.Args, text(texts[0]), capability(raw.Cap)
	}
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

func arguments(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

func command(c [16]int8) string {
	return text(unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), len(c)))
}

// capabilities are their names in the order of their numbers.
var capabilities = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// capability names the one with the number before n; 0 is none.
func capability(n uint8) string {
	switch {
	case n == 0:
		return ""
	case int(n) <= len(capabilities):
		return capabilities[n-1]
	}
	return fmt.Sprintf("capability-%d", n-1)
}

// device brings the kernel's number into the form of stat.
func device(d uint32) uint64 { return unix.Mkdev(d>>20, d&(1<<20-1)) }
