package activity

import (
	"errors"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// actor is a process that changed a file.
type actor struct {
	Process
	sandbox uint32
	end     time.Duration // 0 while it lives
	known   bool
}

// actor looks a process up that did something a moment ago. One that has ended
// since is known only when it was a sandbox's.
func (r *Recorder) actor(pid int, sandbox uint32) actor {
	live, tried := r.living(pid)
	if live.known && live.sandbox == sandbox {
		return live
	}
	// The number may be another process's already.
	var p bpfProcess
	if r.maps.Ended.Lookup(uint32(pid), &p) == nil && p.Sandbox == sandbox {
		return newActor(&p)
	}
	if !live.known && !tried {
		return actor{Process: Process{ID: pid}, sandbox: sandbox, known: true}
	}
	return live
}

// living asks the kernel; false when this kernel cannot be asked.
func (r *Recorder) living(pid int) (actor, bool) {
	find := r.programs.Programs["find"]
	if find == nil {
		return actor{}, false
	}
	p := bpfProcess{Tgid: uint32(pid)}
	_, err := find.Run(&ebpf.RunOptions{Context: &p, ContextOut: &p})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return actor{}, false
	}
	if err != nil || p.Start == 0 {
		return actor{}, true
	}
	return newActor(&p), true
}

func newActor(p *bpfProcess) actor {
	comm := unsafe.Slice((*byte)(unsafe.Pointer(&p.Comm[0])), len(p.Comm))
	return actor{
		Process: Process{
			ID: int(p.Tgid), Thread: int(p.Tgid), Parent: int(p.Ppid), Inner: int(p.Inner), Start: time.Duration(p.Start),
			UID: p.Uid, GID: p.Gid, EUID: p.Euid, Command: text(comm),
		},
		sandbox: p.Sandbox, end: time.Duration(p.End), known: true,
	}
}

// remember keeps who has a number, for kernels that cannot be asked.
func (r *Recorder) remember(e *Event) {
	switch {
	case r.programs.Programs["find"] != nil:
	case e.Kind == KindExit:
		delete(r.seen, e.Process.ID)
	default:
		r.seen[e.Process.ID] = e.Process
	}
}

// recall completes an event of a file with what is known of its process.
func (r *Recorder) recall(e *Event) {
	if p, ok := r.seen[e.Process.ID]; ok && e.Process.Start == 0 {
		e.Process = p
	}
}
