package trace

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	kernel "github.com/atoll-sh/atoll/ebpf/activity"
	"github.com/atoll-sh/atoll/engine"
)

// ids is how many users a sandbox has.
const ids = 65536

// fileLate is how much later than they happened files may be told of: the
// kernel's word on a file system has no time.
const fileLate = 150 * time.Millisecond

// operations are what records call the kinds of events.
var operations = map[kernel.Kind]string{kernel.KindOpen: "write", kernel.KindUnlink: "delete"}

// record makes a record of a process's event.
func (r *run) record(e kernel.Event, p *process, now instant) engine.ActivityRecord {
	rec := engine.ActivityRecord{
		Time: now.at(e.Time), Call: r.table.callOf(p, e.Time), Process: text(p.key), Parent: text(p.parent),
		PID: p.inner, Operation: operations[e.Kind], Cut: e.Cut,
	}
	if id := e.Process.UID - r.base; id < ids {
		rec.UID = &id
	}
	if rec.Operation == "" {
		rec.Operation = e.Kind.String()
	}
	switch e.Kind {
	case kernel.KindExec:
		execRecord(&rec, e)
	case kernel.KindExit:
		rec.Kind, rec.Operation = engine.ActivityExit, ""
		rec.Duration, rec.Code = e.Duration.Milliseconds(), e.Status.ExitStatus()
		if e.Status.Signaled() {
			rec.Code, rec.Signal = 128+int(e.Status.Signal()), unix.SignalName(e.Status.Signal())
		}
	case kernel.KindConnect, kernel.KindAccept:
		rec.Kind, rec.Operation, rec.Inbound = engine.ActivityConnect, "", e.Kind == kernel.KindAccept
		rec.Protocol, rec.Local, rec.Remote = protocol(e.Protocol), address(e.Local), address(e.Remote)
		failed(&rec, e.Result)
	case kernel.KindPrivilege:
		privilegeRecord(&rec, e)
	default:
		rec.Kind, rec.Detail = engine.ActivityFile, e.Path
		rec.Call = r.table.callDuring(p, max(e.Time-fileLate, p.Start), e.Time)
		if e.To != "" {
			rec.Detail = e.Path + " → " + e.To
		}
		failed(&rec, e.Result)
	}
	return rec
}

func execRecord(rec *engine.ActivityRecord, e kernel.Event) {
	rec.Kind, rec.Operation, rec.Program = engine.ActivityExec, "", e.Binary
	rec.Detail = commandLine(e.Args)
	if rec.Detail == "" {
		rec.Detail = e.Path
	}
	var notes []string
	if e.Elevated {
		notes = append(notes, "the program has rights that its user lacks")
	}
	if e.Detached {
		notes = append(notes, "the program lies in no file system, as after memfd_create")
	}
	if e.Cut {
		notes = append(notes, fmt.Sprintf("its arguments are cut: they have %d bytes", e.ArgsSize))
	}
	if e.Unread {
		notes = append(notes, "its arguments could not be read")
	}
	rec.Reason = strings.Join(notes, "; ")
}

func privilegeRecord(rec *engine.ActivityRecord, e kernel.Event) {
	rec.Kind, rec.Operation, rec.Detail = engine.ActivityPrivilege, e.Call.String(), e.Path
	rec.Verdict = "allow"
	if e.Result < 0 {
		rec.Verdict = "deny"
	}
	failed(rec, e.Result)
	switch {
	case e.Refused != "":
		rec.Operation = e.Refused
		if e.Times > 1 {
			rec.Reason += fmt.Sprintf(", %d times since this was told last", e.Times)
		}
	case e.Call.String() == "foreign":
		rec.Reason = "the system call filter killed the thread"
		rec.Detail = fmt.Sprintf("32-bit call %d", e.CallArgs[0])
		if e.CallArgs[1] == 64 {
			rec.Detail = fmt.Sprintf("x32 call %d", e.CallArgs[0])
		}
	case e.Capability != "":
		rec.Detail = "CAP_" + strings.ToUpper(e.Capability)
	}
}

// commandLine puts arguments into a line that a shell would take apart again.
func commandLine(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if a == "" || strings.ContainsFunc(a, func(c rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,=", c)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words[i] = a
	}
	return strings.Join(words, " ")
}

// failed notes why a call of the kernel did not do what it was asked for.
func failed(rec *engine.ActivityRecord, result int64) {
	if errno := unix.Errno(-result); result < 0 && result > -4096 && errno != unix.EINPROGRESS {
		rec.Code, rec.Reason = int(errno), errno.Error()
	}
}

func protocol(n uint8) string {
	switch n {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp"
	}
	return strconv.Itoa(int(n))
}

func address(a netip.AddrPort) string {
	if !a.Addr().IsValid() || a.Addr().IsUnspecified() && a.Port() == 0 {
		return ""
	}
	return a.String()
}

func lossReason(e kernel.Event) string {
	if e.Unknown {
		return "the processes did more than the kernel could tell, and nobody can tell how much more"
	}
	return "the processes did more than the kernel could tell"
}

// gap is the record of a time in which nobody looked.
func (r *run) gap(e kernel.Event, now instant) engine.ActivityRecord {
	to := now.at(e.Time)
	rec := engine.ActivityRecord{Time: to, Kind: engine.ActivityGap, Operation: "processes"}
	if r.fault != nil {
		rec.Reason = "what its processes do is not recorded: " + r.fault.Error()
		return rec
	}
	rec.Reason = fmt.Sprintf("%d processes ran before they were watched", e.Running)
	from := r.tracer.down
	if rec.To = &to; !from.IsZero() && from.Before(to) {
		rec.From = &from
	}
	return rec
}
