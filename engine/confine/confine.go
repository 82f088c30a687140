// Package confine makes the rules of policies about programs and files hold, by
// the kernel (ebpf/enforce). Rules stand from before anything of a sandbox runs
// until its control group is gone, also while no server runs.
package confine

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/atoll-sh/atoll/ebpf/enforce"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Kernel is what a Confiner needs of ebpf/enforce.
type Kernel interface {
	Set(sandbox uint32, group string, r enforce.Rules) error
	Remove(sandbox uint32) error
	Number(group string) (uint32, error)
	Last() uint32
	Settle() error
	Read(ctx context.Context) (enforce.Event, error)
	Close() error
}

// Confiner implements runner.Confiner.
type Confiner struct {
	log    *slog.Logger
	kernel Kernel
	groups driver.Grouper

	mu      sync.Mutex
	last    uint32
	numbers map[string]uint32 // of instances with rules
	ids     map[uint32]string // and back, also of some that are gone
	past    []uint32          // those, the oldest first
}

// maxPast bounds the instances that are remembered for refusals told late.
const maxPast = 1024

// Open loads the programs, or adopts what an earlier run left below dir, which
// is in a BPF file system. It fails with KindUnsupported where the kernel or the
// driver cannot do it.
func Open(dir string, d driver.Driver, log *slog.Logger) (*Confiner, error) {
	groups, ok := driver.As[driver.Grouper](d)
	if !ok {
		return nil, engine.Errorf(engine.KindUnsupported, "driver %s has no control groups", d.Name())
	}
	k, err := enforce.Open(dir)
	if errors.Is(err, enforce.ErrUnsupported) {
		return nil, engine.Errorf(engine.KindUnsupported, "%v", err).
			WithHint("Linux 6.1 or later with BPF LSM is needed, as Debian has it")
	}
	if err != nil {
		return nil, err
	}
	return New(k, groups, log), nil
}

// New makes a Confiner of its parts.
func New(k Kernel, groups driver.Grouper, log *slog.Logger) *Confiner {
	return &Confiner{log: log, kernel: k, groups: groups, last: k.Last(), numbers: map[string]uint32{}, ids: map[uint32]string{}}
}

// Confine implements runner.Confiner. The instance must run, or have ended when
// rules is nil: setting it up is the runtime's doing, which no rule is about.
func (c *Confiner) Confine(ctx context.Context, h driver.Handle, rules *engine.ExecFileRules) error {
	if rules == nil {
		return c.release(h.ID)
	}
	compiled := compile(rules)
	group, err := c.groups.Group(ctx, h)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.numberLocked(h.ID, group)
	if err != nil {
		return err
	}
	if err := c.kernel.Set(n, group, compiled); err != nil {
		return engine.Errorf(engine.KindInvalid, "policy %s: the rules about programs and files cannot be enforced: %v", rules.Policy, err).
			WithHint("use fewer or simpler patterns").Wrap(err)
	}
	c.numbers[h.ID], c.ids[n] = n, h.ID
	return nil
}

// numberLocked is the number of an instance: that of an earlier run, when one
// gave it rules.
func (c *Confiner) numberLocked(id, group string) (uint32, error) {
	if n, ok := c.numbers[id]; ok {
		return n, nil
	}
	n, err := c.kernel.Number(group)
	if n == 0 && err == nil {
		c.last++
		n = c.last
	}
	return n, err
}

func (c *Confiner) release(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.numbers[id]
	if !ok {
		return nil
	}
	if err := c.kernel.Remove(n); err != nil {
		return err
	}
	delete(c.numbers, id)
	c.past = append(c.past, n)
	if len(c.past) > maxPast {
		delete(c.ids, c.past[0])
		c.past = c.past[1:]
	}
	return nil
}

// Settle ends what earlier runs left. It is called once every instance that
// still runs has its rules again.
func (c *Confiner) Settle() error { return c.kernel.Settle() }

// Close gives the file descriptors back. The rules go on.
func (c *Confiner) Close() error { return c.kernel.Close() }
