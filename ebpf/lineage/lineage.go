// Package lineage remembers who began whom. The kernel forgets the parent of a
// process whose parent ended; a process that makes another and leaves, twice in
// a row, would have no origin that anybody could follow. Here the maker of each
// process of a sandbox is kept from the moment of the fork.
//
// The last 16384 processes of all sandboxes are known, whether they live or
// not, while the Lineage is open.
package lineage

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// ErrNotSupported is what Open fails with where the kernel cannot run the
// program or refuses it.
var ErrNotSupported = ebpf.ErrNotSupported

// Lineage is the attached program. Its methods may be called concurrently.
type Lineage struct {
	maps    bpfMaps
	program *ebpf.Program
	link    link.Link
}

// Process names a process until the next boot.
type Process struct {
	ID    int           // as the host counts
	Start time.Duration // since boot
}

// Open loads the program and attaches it. Nothing is kept before Watch.
func Open() (*Lineage, error) {
	kernel.FreeMemlock()
	var o bpfObjects
	if err := loadBpfObjects(&o, nil); err != nil {
		return nil, fmt.Errorf("load the lineage program: %w", unsupported(err))
	}
	l := &Lineage{maps: o.bpfMaps, program: o.OnFork}
	var err error
	if l.link, err = link.AttachTracing(link.TracingOptions{Program: o.OnFork}); err != nil {
		return nil, errors.Join(fmt.Errorf("attach the lineage program: %w", unsupported(err)), l.Close())
	}
	return l, nil
}

func unsupported(err error) error {
	var v *ebpf.VerifierError
	if !errors.Is(err, ErrNotSupported) && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) || errors.As(err, &v)) {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return err
}

// Space is a pid namespace.
type Space uint32

// Watch begins to keep the processes that begin in the pid namespace of a
// process, and in those below it.
func (l *Lineage) Watch(pid int) (Space, error) {
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/ns/pid", pid)
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	s := Space(st.Ino)
	return s, l.maps.Spaces.Put(uint32(s), uint32(1))
}

// Forget ends what Watch began. nil when the namespace is unknown.
func (l *Lineage) Forget(s Space) error {
	if err := l.maps.Spaces.Delete(uint32(s)); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// Origin returns which process made p, and the number that p has in the
// namespace that is watched.
func (l *Lineage) Origin(p Process) (maker Process, inner int, ok bool) {
	var o bpfOrigin
	if l.maps.Origins.Lookup(bpfProcess{Start: uint64(p.Start), Tgid: uint32(p.ID)}, &o) != nil {
		return Process{}, 0, false
	}
	return Process{int(o.Tgid), time.Duration(o.Start)}, int(o.Inner), true
}

// Close detaches the program.
func (l *Lineage) Close() error {
	var errs []error
	if l.link != nil {
		errs = append(errs, l.link.Close())
	}
	return errors.Join(append(errs, l.program.Close(), l.maps.Close())...)
}
