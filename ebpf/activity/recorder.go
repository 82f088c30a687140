package activity

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// ErrNotSupported is what Open fails with where the kernel cannot run the
// programs or refuses them.
var ErrNotSupported = ebpf.ErrNotSupported

// Options are the sizes; zero values mean the defaults.
type Options struct {
	Buffer int // bytes of events not yet read, a power of two; 16 MiB
	Budget int // bytes of events of one sandbox in a second; 8 MiB
}

// Recorder is the attached programs. Its methods may be called concurrently,
// Read by one goroutine at a time.
type Recorder struct {
	programs *ebpf.Collection
	maps     bpfMaps
	links    []link.Link
	ring     *ringbuf.Reader
	record   ringbuf.Record  // Read's
	polled   time.Time       // Read's
	looked   time.Time       // Read's: when files were looked at last
	held     []Event         // Read's: what was found then, until all events before are told
	heldAt   time.Duration   // Read's
	refused  []Event         // what Refused was told, until files are looked at
	seen     map[int]Process // Read's: by their number, where the kernel cannot be asked
	rounds   atomic.Uint64   // how often everything was read that files told
	buffer   []byte          // for reading what happened to files
	epoll    int             // of all groups
	budget   uint64
	missing  []string

	mu      sync.Mutex
	watched map[uint32]*watch
	byGroup map[int32]uint32 // sandboxes
	pending []Event
	closed  bool
}

// watch is one sandbox.
type watch struct {
	groups  []uint64
	told    uint64 // lost events that Read told of
	files   []*fileWatch
	counts  fileCounts
	removed time.Time // zero while it is watched
}

// Open loads the programs and attaches them. Nothing is told before Add.
func Open(o Options) (*Recorder, error) {
	kernel.FreeMemlock()
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := o.apply(spec); err != nil {
		return nil, err
	}
	c, missing, err := load(spec)
	if err != nil {
		return nil, err
	}
	r := &Recorder{
		programs: c, missing: missing, budget: uint64(o.Budget),
		watched: map[uint32]*watch{}, byGroup: map[int32]uint32{}, seen: map[int]Process{},
		buffer: make([]byte, 64<<10), epoll: -1,
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("make an epoll instance: %w", err), r.Close())
	}
	raiseGroups()
	if err := c.Assign(&r.maps); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if r.ring, err = ringbuf.NewReader(r.maps.Events); err != nil {
		return nil, errors.Join(fmt.Errorf("open the activity events: %w", err), r.Close())
	}
	if err := r.attach(spec); err != nil {
		return nil, errors.Join(unsupported(err), r.Close())
	}
	return r, nil
}

func (o *Options) apply(spec *ebpf.CollectionSpec) error {
	if o.Buffer == 0 {
		o.Buffer = 16 << 20
	}
	if o.Budget == 0 {
		o.Budget = 8 << 20
	}
	if o.Buffer < os.Getpagesize() || o.Buffer&(o.Buffer-1) != 0 {
		return fmt.Errorf("a buffer of %d bytes is not a power of two of at least a page", o.Buffer)
	}
	if o.Budget < 0 {
		return fmt.Errorf("a budget of %d bytes is negative", o.Budget)
	}
	spec.Maps["events"].MaxEntries = uint32(o.Buffer)
	return errors.Join(spec.Variables["budget"].Set(uint64(o.Budget)), spec.Variables["wake"].Set(uint64(o.Buffer/16)))
}

// unsupported makes of a kernel's refusals the one error to ask for. Refused
// programs give EPERM or what the verifier says, missing hooks ENOENT.
func unsupported(err error) error {
	var v *ebpf.VerifierError
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, os.ErrNotExist) || errors.As(err, &v) {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return err
}

func (r *Recorder) attach(spec *ebpf.CollectionSpec) error {
	for name, p := range r.programs.Programs {
		l, err := attach(spec.Programs[name].SectionName, p)
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		if l != nil {
			r.links = append(r.links, l)
		}
	}
	return nil
}

// attach returns nil for a program that is called, not attached.
func attach(section string, p *ebpf.Program) (link.Link, error) {
	kind, rest, _ := strings.Cut(section, "/")
	switch kind {
	case "syscall":
		return nil, nil
	case "cgroup", "sockops":
		at := map[string]ebpf.AttachType{
			"connect4": ebpf.AttachCGroupInet4Connect, "connect6": ebpf.AttachCGroupInet6Connect, "": ebpf.AttachCGroupSockOps,
		}[rest]
		return link.AttachCgroup(link.CgroupOptions{Path: unifiedRoot(), Attach: at, Program: p})
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}

// Close detaches the programs, which takes a moment because the kernel waits
// for each. What was not read is lost. Read returns os.ErrClosed.
func (r *Recorder) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	var errs []error
	for _, w := range r.watched {
		errs = append(errs, w.closeFiles())
	}
	if r.epoll >= 0 {
		errs = append(errs, unix.Close(r.epoll))
	}
	r.mu.Unlock()
	if r.ring != nil {
		errs = append(errs, r.ring.Close())
	}
	for _, l := range r.links {
		errs = append(errs, l.Close())
	}
	r.programs.Close()
	return errors.Join(errs...)
}

// Stats counts the events of a sandbox since it was added.
type Stats struct {
	Events   uint64 // in the buffer, read or not; of files those that were looked at
	Lost     uint64 // beyond the budget or the buffer, at least
	Repeated uint64 // wishes and opened files that were told within the last minute
	Files    bool   // whether Watch sees its files
}

// Stats returns the counters of a sandbox; the zero value when it is unknown.
func (r *Recorder) Stats(sandbox uint32) (Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statsLocked(sandbox)
}

func (r *Recorder) statsLocked(sandbox uint32) (Stats, error) {
	var s bpfState
	if err := r.maps.States.Lookup(sandbox, &s); err != nil {
		return Stats{}, gone(err)
	}
	out := Stats{Events: s.Events, Lost: s.Lost, Repeated: s.Repeated}
	if w := r.watched[sandbox]; w != nil {
		out.Events, out.Lost, out.Repeated = out.Events+w.counts.told, out.Lost+w.counts.lost, out.Repeated+w.counts.repeated
		out.Files = len(w.files) > 0
	}
	return out, nil
}

// Missed is how often a program did not run because it interrupted itself. It
// is 0 unless something is wrong; such events are in nobody's Lost.
func (r *Recorder) Missed() (uint64, error) {
	var n uint64
	for _, p := range r.programs.Programs {
		s, err := p.Stats()
		if err != nil {
			return 0, err
		}
		n += s.RecursionMisses
	}
	return n, nil
}

// gone takes an absent entry for success.
func gone(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
