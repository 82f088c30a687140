package enforce

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// Enforcer is the attached programs. Its methods may be called concurrently,
// Read by one goroutine at a time.
type Enforcer struct {
	home string // of all versions of the programs
	maps bpfMaps
	ring *ringbuf.Reader

	mu       sync.Mutex
	boxes    map[uint32]*box // by sandbox
	programs library
}

// box is one sandbox.
type box struct {
	group    uint64
	automata [lists]uint32
	adopted  bool // its rules are an earlier process's
}

const lists = 3

// Open attaches the programs and pins them and their maps below dir, which must
// lie in a BPF file system. What an earlier process pinned there is adopted:
// rules go on as they are until Set or Settle. Other versions of the programs
// go on as well, until Settle. It fails with ErrUnsupported where the kernel
// cannot do it.
func Open(dir string) (*Enforcer, error) {
	kernel.FreeMemlock()
	e := &Enforcer{home: filepath.Join(dir, "enforce"), boxes: map[uint32]*box{}}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	missing := e.missing(spec)
	if len(missing) > 0 {
		if err := Supported(); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"maps", "links"} {
		if err := os.MkdirAll(filepath.Join(e.version(), d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := e.load(spec, missing); err != nil {
		if len(missing) == len(spec.Programs) {
			err = errors.Join(err, os.RemoveAll(e.version()))
		}
		return nil, errors.Join(err, e.Close())
	}
	if err := e.adopt(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// version is the directory of these programs: others have other maps.
func (e *Enforcer) version() string {
	sum := sha256.Sum256(_BpfBytes)
	return filepath.Join(e.home, hex.EncodeToString(sum[:8]))
}

func (e *Enforcer) linkPath(program string) string {
	return filepath.Join(e.version(), "links", program)
}

// missing are the programs that are not attached.
func (e *Enforcer) missing(spec *ebpf.CollectionSpec) (names []string) {
	for name := range spec.Programs {
		if _, err := os.Stat(e.linkPath(name)); err != nil {
			names = append(names, name)
		}
	}
	return names
}

// load opens the maps and attaches what is missing. Programs that are attached
// already keep the maps they have, which are the same.
func (e *Enforcer) load(spec *ebpf.CollectionSpec, missing []string) error {
	for name, m := range spec.Maps {
		if name[0] != '.' { // constants belong to the programs
			m.Pinning = ebpf.PinByName
		}
	}
	all := spec.Programs
	spec.Programs = map[string]*ebpf.ProgramSpec{}
	for _, name := range missing {
		spec.Programs[name] = all[name]
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: filepath.Join(e.version(), "maps")}})
	if err != nil {
		return fmt.Errorf("load the programs that enforce rules: %w", err)
	}
	defer c.Close()
	if err := c.Assign(&e.maps); err != nil {
		return err
	}
	if e.ring, err = ringbuf.NewReader(e.maps.Events); err != nil {
		return fmt.Errorf("open the events of refusals: %w", err)
	}
	for name, p := range c.Programs {
		if err := e.attach(name, p); err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return nil
}

func (e *Enforcer) attach(name string, p *ebpf.Program) error {
	l, err := link.AttachLSM(link.LSMOptions{Program: p})
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Pin(e.linkPath(name))
}

// adopt reads whom the programs judge.
func (e *Enforcer) adopt() error {
	var sandbox uint32
	var b bpfBox
	it := e.maps.Boxes.Iterate()
	for it.Next(&sandbox, &b) {
		e.boxes[sandbox] = &box{automata: b.Automata, adopted: true}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the sandboxes: %w", err)
	}
	var group uint64
	it = e.maps.Groups.Iterate()
	for it.Next(&group, &sandbox) {
		if b := e.boxes[sandbox]; b != nil {
			b.group = group
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the control groups: %w", err)
	}
	var err error
	e.programs, err = openLibrary(e.maps.Automata)
	return err
}

// Number is the sandbox that a control group is of, 0 when its processes are not
// judged.
func (e *Enforcer) Number(group string) (uint32, error) {
	g, err := kernel.FindGroup(group)
	if err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for sandbox, b := range e.boxes {
		if b.group == g.ID {
			return sandbox, nil
		}
	}
	return 0, nil
}

// Last is the highest number of a sandbox with rules, 0 when there is none.
func (e *Enforcer) Last() (last uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for sandbox := range e.boxes {
		last = max(last, sandbox)
	}
	return last
}

// Set gives a sandbox its rules, in place of those it had: every judgement is by
// the old ones or by the new ones. group is the directory of its control group,
// of the version 2 tree or of the pids controller of version 1; the processes in
// it and below it are the sandbox's, and no other's any more. The number must not
// be 0. On error the sandbox keeps the rules it had.
func (e *Enforcer) Set(sandbox uint32, group string, r Rules) error {
	if sandbox == 0 {
		return errors.New("a sandbox cannot have the number 0")
	}
	g, err := kernel.FindGroup(group)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	next := &box{group: g.ID}
	if next.automata, err = e.programs.take(r); err != nil {
		return err
	}
	old := e.boxes[sandbox]
	if err := e.putLocked(sandbox, g, next, old); err != nil {
		e.programs.give(next.automata)
		return err
	}
	e.boxes[sandbox] = next
	if old == nil {
		return nil
	}
	e.programs.give(old.automata)
	if old.group != g.ID {
		return e.dropGroup(old.group, sandbox)
	}
	return nil
}

// dropGroup takes a control group from a sandbox, unless it is another's by now.
func (e *Enforcer) dropGroup(group uint64, sandbox uint32) error {
	var owner uint32
	err := e.maps.Groups.Lookup(group, &owner)
	if err == nil && owner == sandbox {
		err = e.maps.Groups.Delete(group)
	}
	return gone(err)
}

// putLocked writes the group last: from then on its processes are judged.
func (e *Enforcer) putLocked(sandbox uint32, g kernel.Group, next, old *box) error {
	if err := kernel.WatchDepth(e.maps.Depths, g); err != nil {
		return err
	}
	if old == nil {
		if err := e.maps.Counts.Put(sandbox, bpfCount{}); err != nil {
			return err
		}
	}
	if err := e.maps.Boxes.Put(sandbox, bpfBox{First: sandbox, Automata: next.automata, Last: sandbox}); err != nil {
		return err
	}
	if old != nil && old.group == g.ID {
		return nil
	}
	err := e.maps.Groups.Put(g.ID, sandbox)
	if err == nil {
		return nil
	}
	if old != nil {
		return errors.Join(err, e.maps.Boxes.Put(sandbox, bpfBox{First: sandbox, Automata: old.automata, Last: sandbox}))
	}
	return errors.Join(err, gone(e.maps.Boxes.Delete(sandbox)), gone(e.maps.Counts.Delete(sandbox)))
}

// Remove ends the judging of a sandbox; nil when it has no rules.
func (e *Enforcer) Remove(sandbox uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.removeLocked(sandbox)
}

func (e *Enforcer) removeLocked(sandbox uint32) error {
	b := e.boxes[sandbox]
	if b == nil {
		return nil
	}
	err := errors.Join(e.dropGroup(b.group, sandbox), gone(e.maps.Boxes.Delete(sandbox)), gone(e.maps.Counts.Delete(sandbox)))
	if err != nil {
		return err
	}
	delete(e.boxes, sandbox)
	e.programs.give(b.automata)
	return nil
}

// Settle ends what earlier processes left: rules that no Set repeated, and other
// versions of the programs. It is called once every sandbox has its rules.
func (e *Enforcer) Settle() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for sandbox, b := range e.boxes {
		if b.adopted {
			errs = append(errs, e.removeLocked(sandbox))
		}
	}
	errs = append(errs, e.programs.sweep())
	versions, err := os.ReadDir(e.home)
	errs = append(errs, err)
	for _, v := range versions {
		if dir := filepath.Join(e.home, v.Name()); dir != e.version() {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// Stats counts the refusals of a sandbox since it was first given rules.
type Stats struct {
	Denied uint64
	Lost   uint64 // of those, the ones without an event
}

// Stats returns the counters of a sandbox; the zero value when it has no rules.
func (e *Enforcer) Stats(sandbox uint32) (Stats, error) {
	var c bpfCount
	if err := e.maps.Counts.Lookup(sandbox, &c); err != nil {
		return Stats{}, gone(err)
	}
	return Stats{Denied: c.Denied, Lost: c.Lost}, nil
}

// Close gives the file descriptors back. The programs go on.
func (e *Enforcer) Close() error {
	var err error
	if e.ring != nil {
		err = e.ring.Close()
	}
	return errors.Join(err, e.maps.Close())
}

// gone takes an absent entry for success.
func gone(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
