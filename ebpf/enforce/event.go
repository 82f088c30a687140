package enforce

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
)

// Op is what a process tried.
type Op uint8

// The operations, numbered as in enforce.h.
const (
	OpExec Op = iota + 1
	OpOpen
	OpCreate
	OpUnlink
	OpMkdir
	OpRmdir
	OpSymlink
	OpLink
	OpRename
	OpTruncate
	OpChmod
	OpChown
)

var ops = []string{"", "exec", "open", "create", "unlink", "mkdir", "rmdir", "symlink", "link", "rename", "truncate", "chmod", "chown"}

func (o Op) String() string {
	if int(o) < len(ops) {
		return ops[o]
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// Access is which list refused.
type Access uint8

// The lists, numbered as in enforce.h.
const (
	Exec Access = iota
	Write
	Read
)

func (a Access) String() string { return [...]string{"exec", "write", "read"}[min(a, Read)] }

// Why says what kind of refusal it was.
type Why uint8

// The reasons.
const (
	ByRule   Why = iota // a rule, or the default when Rule is empty
	Unjudged            // the path is too deep to be judged
	Looser              // it would be refused less under its new name
)

// Event is one refusal.
type Event struct {
	Time    time.Duration // since the host started
	Sandbox uint32
	Op      Op
	Access  Access
	Path    string // of a rename or a link the name that refused; may lack its end when Cut
	Cut     bool
	Rule    string // name of the rule; empty for the default
	Why     Why
	Process int // on the host
	Thread  int
	UID     int // on the host
	Command string
}

// Read waits for the next refusal. It returns os.ErrClosed after Close.
func (e *Enforcer) Read(ctx context.Context) (Event, error) {
	defer context.AfterFunc(ctx, func() { _ = e.ring.Flush() })() // it fails when it is closed
	rec, err := e.ring.Read()
	for errors.Is(err, ringbuf.ErrFlushed) {
		if ctx.Err() != nil {
			return Event{}, context.Cause(ctx)
		}
		rec, err = e.ring.Read() // it was about an earlier call
	}
	switch {
	case errors.Is(err, ringbuf.ErrClosed):
		return Event{}, os.ErrClosed
	case err != nil:
		return Event{}, fmt.Errorf("read refusals: %w", err)
	}
	ev, automaton, rule, err := decode(rec.RawSample)
	if err != nil {
		return Event{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ev.Rule = e.programs.rule(automaton, rule)
	return ev, nil
}

const (
	flagCut = 1 << iota
	flagUnsure
	flagMoved
)

const headSize = int(unsafe.Offsetof(bpfEvent{}.Text))

func decode(b []byte) (e Event, automaton, rule uint32, err error) {
	var raw bpfEvent
	if len(b) < headSize || len(b) > int(unsafe.Sizeof(raw)) {
		return e, 0, 0, fmt.Errorf("a refusal has %d bytes", len(b))
	}
	full := make([]byte, unsafe.Sizeof(raw))
	copy(full, b)
	if _, err := binary.Decode(full, binary.NativeEndian, &raw); err != nil {
		return e, 0, 0, err
	}
	n := headSize + int(raw.Length)
	if n > len(b) {
		return e, 0, 0, fmt.Errorf("a refusal with a path of %d bytes has %d", raw.Length, len(b))
	}
	comm, _, _ := bytes.Cut(text(raw.Comm[:]), []byte{0})
	e = Event{
		Time: time.Duration(raw.Time), Sandbox: raw.Sandbox, Op: Op(raw.Op), Access: Access(raw.List),
		Path: string(b[headSize:n]), Cut: raw.Flags&flagCut != 0,
		Process: int(raw.Tgid), Thread: int(raw.Tid), UID: int(raw.Uid), Command: string(comm),
	}
	switch {
	case raw.Flags&flagUnsure != 0:
		e.Why = Unjudged
	case raw.Flags&flagMoved != 0:
		e.Why = Looser
	}
	return e, raw.Automaton, raw.Rule, nil
}

func text(c []int8) []byte {
	b := make([]byte, len(c))
	for i, v := range c {
		b[i] = byte(v)
	}
	return b
}
