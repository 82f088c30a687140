package activity

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
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
	record   ringbuf.Record // Read's
	polled   time.Time      // Read's

	mu      sync.Mutex
	watched map[uint32]*watch
	pending []Event
	closed  bool
}

// watch is one sandbox.
type watch struct {
	groups  []uint64
	told    uint64    // lost events that Read told of
	removed time.Time // zero while it is watched
}

// Open loads the programs and attaches them. Nothing is told before Add.
func Open(o Options) (*Recorder, error) {
	kernel.FreeMemlock()
	if err := kernel.MountTracing(); err != nil {
		return nil, unsupported(err)
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := o.apply(spec); err != nil {
		return nil, err
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the activity programs: %w", unsupported(err))
	}
	r := &Recorder{programs: c, watched: map[uint32]*watch{}}
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

func (o Options) apply(spec *ebpf.CollectionSpec) error {
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

// needed are hooks that every kernel has; some calls exist on some only.
var needed = map[string]bool{"after_openat": true, "after_connect": true, "after_unlinkat": true, "after_renameat2": true}

func (r *Recorder) attach(spec *ebpf.CollectionSpec) error {
	for name, p := range r.programs.Programs {
		l, err := attach(spec.Programs[name].SectionName, p)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "after_") && !needed[name] {
			continue
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		r.links = append(r.links, l)
	}
	return nil
}

func attach(section string, p *ebpf.Program) (link.Link, error) {
	if rest, ok := strings.CutPrefix(section, "tp/"); ok {
		group, name, _ := strings.Cut(rest, "/")
		return link.Tracepoint(group, name, p, nil)
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}

// Close detaches the programs, which takes seconds because the kernel waits
// for each. What was not read is lost. Read returns os.ErrClosed.
func (r *Recorder) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	var errs []error
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
	Events   uint64 // in the buffer, read or not
	Lost     uint64 // beyond the budget or the buffer
	Repeated uint64 // opens of a file that was opened within the last minute
}

// Stats returns the counters of a sandbox; the zero value when it is unknown.
func (r *Recorder) Stats(sandbox uint32) (Stats, error) {
	var s bpfState
	if err := r.maps.States.Lookup(sandbox, &s); err != nil {
		return Stats{}, gone(err)
	}
	return Stats{Events: s.Events, Lost: s.Lost, Repeated: s.Repeated}, nil
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
