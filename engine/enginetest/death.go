package enginetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// ErrDead is what a dead process gets from the world.
var ErrDead = errors.New("the process is dead")

// Death ends a process at one of its steps: the writes to the store and the
// calls to runners that pass through Store and Runner. From then on nothing
// the process does has any effect, as after kill -9.
type Death struct {
	at    int  // counted from 1; 0 never
	after bool // the step at which it dies still takes effect

	mu   sync.Mutex
	n    int
	dead bool
}

// NewDeath makes a death at step at, before or after it took effect.
func NewDeath(at int, after bool) *Death { return &Death{at: at, after: after} }

// Steps is how many steps were taken.
func (d *Death) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

func (d *Death) step(do func() error) error {
	d.mu.Lock()
	if d.dead {
		d.mu.Unlock()
		return ErrDead
	}
	d.n++
	here := d.n == d.at
	d.dead = here
	d.mu.Unlock()
	if here && !d.after {
		return ErrDead
	}
	err := do()
	if here {
		return ErrDead
	}
	return err
}

func dying[R any](d *Death, do func() (R, error)) (R, error) {
	var out R
	err := d.step(func() (err error) { out, err = do(); return err })
	return out, err
}

// MortalStore is a store in the hands of a process that will die.
type MortalStore struct {
	*store.Store
	Death *Death
}

// InsertSandbox is a step.
func (m MortalStore) InsertSandbox(ctx context.Context, sb *store.Sandbox, key *store.Idempotency) error {
	return m.Death.step(func() error { return m.Store.InsertSandbox(ctx, sb, key) })
}

// UpdateSandbox is a step.
func (m MortalStore) UpdateSandbox(ctx context.Context, sb *store.Sandbox) error {
	return m.Death.step(func() error { return m.Store.UpdateSandbox(ctx, sb) })
}

// DeleteSandbox is a step.
func (m MortalStore) DeleteSandbox(ctx context.Context, id string) error {
	return m.Death.step(func() error { return m.Store.DeleteSandbox(ctx, id) })
}

// TouchSandboxes happens at any time, so it is no step, but the dead do not.
func (m MortalStore) TouchSandboxes(context.Context, map[string]time.Time) error { return nil }

// UseSnapshot is no step either.
func (m MortalStore) UseSnapshot(context.Context, string, time.Time) error { return nil }

// DecideAccess is a step.
func (m MortalStore) DecideAccess(ctx context.Context, r engine.AccessRequest) error {
	return m.Death.step(func() error { return m.Store.DecideAccess(ctx, r) })
}

// InsertSnapshot is a step.
func (m MortalStore) InsertSnapshot(ctx context.Context, sn engine.Snapshot) error {
	return m.Death.step(func() error { return m.Store.InsertSnapshot(ctx, sn) })
}

// UpdateSnapshot is a step.
func (m MortalStore) UpdateSnapshot(ctx context.Context, sn engine.Snapshot) error {
	return m.Death.step(func() error { return m.Store.UpdateSnapshot(ctx, sn) })
}

// DeleteSnapshot is a step.
func (m MortalStore) DeleteSnapshot(ctx context.Context, id string) error {
	return m.Death.step(func() error { return m.Store.DeleteSnapshot(ctx, id) })
}

// MortalRunner is a runner called by a process that will die. Reads are no
// steps.
type MortalRunner struct {
	engine.Runner
	Death *Death
}

// Launch is a step.
func (m MortalRunner) Launch(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	return dying(m.Death, func() (engine.Launched, error) { return m.Runner.Launch(ctx, l) })
}

// Start is a step.
func (m MortalRunner) Start(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	return dying(m.Death, func() (engine.Launched, error) { return m.Runner.Start(ctx, l) })
}

// Stop is a step.
func (m MortalRunner) Stop(ctx context.Context, sandbox string, o engine.StopOptions) (engine.Instance, error) {
	return dying(m.Death, func() (engine.Instance, error) { return m.Runner.Stop(ctx, sandbox, o) })
}

// Remove is a step.
func (m MortalRunner) Remove(ctx context.Context, sandbox string) error {
	return m.Death.step(func() error { return m.Runner.Remove(ctx, sandbox) })
}

// Resize is a step.
func (m MortalRunner) Resize(ctx context.Context, sandbox string, r engine.Resources) (engine.Instance, error) {
	return dying(m.Death, func() (engine.Instance, error) { return m.Runner.Resize(ctx, sandbox, r) })
}

// SetNetwork is a step.
func (m MortalRunner) SetNetwork(ctx context.Context, sandbox string, p engine.NetworkPolicy) error {
	return m.Death.step(func() error { return m.Runner.SetNetwork(ctx, sandbox, p) })
}

// SetRules is a step.
func (m MortalRunner) SetRules(ctx context.Context, sandbox string, rules *engine.ExecFileRules) error {
	return m.Death.step(func() error { return m.Runner.SetRules(ctx, sandbox, rules) })
}

// SetSecrets is a step.
func (m MortalRunner) SetSecrets(ctx context.Context, sandbox string, on bool) error {
	return m.Death.step(func() error { return m.Runner.SetSecrets(ctx, sandbox, on) })
}

// SaveDisk is a step.
func (m MortalRunner) SaveDisk(ctx context.Context, sandbox, disk string) (engine.SavedDisk, error) {
	return dying(m.Death, func() (engine.SavedDisk, error) { return m.Runner.SaveDisk(ctx, sandbox, disk) })
}

// DropDisk is a step.
func (m MortalRunner) DropDisk(ctx context.Context, disk string) error {
	return m.Death.step(func() error { return m.Runner.DropDisk(ctx, disk) })
}

// EnsureImage is a step.
func (m MortalRunner) EnsureImage(ctx context.Context, req engine.EnsureImage) (engine.Image, error) {
	return dying(m.Death, func() (engine.Image, error) { return m.Runner.EnsureImage(ctx, req) })
}

// DropImage is a step.
func (m MortalRunner) DropImage(ctx context.Context, img engine.Image) error {
	return m.Death.step(func() error { return m.Runner.DropImage(ctx, img) })
}
