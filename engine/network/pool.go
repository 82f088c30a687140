package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Acquire hands out a slot that nobody else has, from the ready ones when
// there are some. It is blocked until Apply.
func (m *Manager) Acquire(ctx context.Context) (Slot, error) {
	if err := ctx.Err(); err != nil {
		return Slot{}, err
	}
	if err := m.enter(); err != nil {
		return Slot{}, err
	}
	defer m.calls.Done()
	for {
		select {
		case s := <-m.ready:
			m.wake(m.refill)
			if m.setPhase(s, phaseInUse) {
				return s, nil
			}
		default:
			m.wake(m.refill)
			return m.make(phaseInUse)
		}
	}
}

// make builds a slot now.
func (m *Manager) make(to phase) (Slot, error) {
	s, err := m.reserve()
	if err != nil {
		return Slot{}, err
	}
	if err := m.build(s); err != nil {
		m.free(s)
		return Slot{}, err
	}
	if !m.setPhase(s, to) {
		m.doom(s)
		return Slot{}, errClosed()
	}
	return s, nil
}

func errClosed() error { return engine.Errorf(engine.KindUnavailable, "the server is stopping") }

// reserve picks the lowest free slot, because others keep things by UIDBase.
// Nothing of the former user can reach the new one: its connections were
// forgotten when the slot was taken apart.
func (m *Manager) reserve() (Slot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Slot{}, errClosed()
	}
	for i := firstSlot; i <= m.plan.last(); i++ {
		if _, taken := m.slots[i]; !taken {
			m.slots[i] = phaseBuilding
			return m.plan.slot(i), nil
		}
	}
	return Slot{}, engine.Errorf(engine.KindExhausted, "all %d network slots are in use", m.plan.last()-firstSlot+1).
		WithHint("delete sandboxes that are not needed, or add a runner")
}

// setPhase tells whether the slot may be used; not after Close.
func (m *Manager) setPhase(s Slot, p phase) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.slots[s.Index] = p
	return true
}

func (m *Manager) free(s Slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.slots, s.Index)
}

// Apply makes p the slot's policy. Without a filter, policies with lists are
// refused and leave the slot blocked. Connections that p does not allow end,
// the others go on.
func (m *Manager) Apply(_ context.Context, s Slot, p engine.NetworkPolicy) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.calls.Done()
	if err := m.inUse(s); err != nil {
		return err
	}
	if err := m.applyFilter(s, p); err != nil {
		return errors.Join(err, m.block(s))
	}
	if p.BlockAll && len(p.Grants) == 0 {
		return m.block(s)
	}
	if err := m.table.allow(s); err != nil {
		return fmt.Errorf("open network slot %d: %w", s.Index, err)
	}
	return nil
}

func (m *Manager) block(s Slot) error {
	if !m.table.isOpen(s.Index) {
		return nil
	}
	if err := m.table.close(s); err != nil {
		return fmt.Errorf("block network slot %d: %w", s.Index, err)
	}
	// So that an idle connection does not come back when the slot opens again.
	if err := forgetFlows(s); err != nil {
		m.log.Warn("old connections of a blocked sandbox stay known", "device", s.Device, "err", err)
	}
	return nil
}

// inUse checks that s is a slot of this server that somebody holds.
func (m *Manager) inUse(s Slot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.slots[s.Index]
	if s != m.plan.slot(s.Index) || !ok || (p != phaseInUse && p != phaseLeft) {
		return engine.Errorf(engine.KindNotFound, "network slot %d is not in use", s.Index)
	}
	return nil
}

// Release gives a slot back. It returns at once; the slot is blocked and taken
// apart in the background. Releasing an unknown slot does nothing.
func (m *Manager) Release(_ context.Context, s Slot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.slots[s.Index]
	if s != m.plan.slot(s.Index) || !ok || (p != phaseInUse && p != phaseLeft) {
		return nil
	}
	m.doomLocked(s)
	return nil
}

func (m *Manager) doom(s Slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doomLocked(s)
}

func (m *Manager) doomLocked(s Slot) {
	m.slots[s.Index] = phaseDying
	m.doomed = append(m.doomed, s)
	m.wake(m.dead)
}

// refillLoop keeps the ready slots at their number.
func (m *Manager) refillLoop(ctx context.Context) {
	for {
		for len(m.ready) < m.want && ctx.Err() == nil {
			s, err := m.make(phaseReady)
			if err != nil {
				m.log.Warn("building a network slot ahead of need", "err", err)
				break
			}
			m.ready <- s // has room: nobody else fills it
		}
		// A failed build is tried again with the next hint or a while later.
		var again <-chan time.Time
		if len(m.ready) < m.want {
			again = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.refill:
			pause(ctx, refillPause)
		case <-again:
		}
	}
}

// refillPause keeps the building of slots out of the way of the sandbox that
// has just taken one and is about to start.
const refillPause = 250 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (m *Manager) teardownLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.dead:
			m.tearDown()
		}
	}
}

// tearDown takes all doomed slots apart. What fails stays taken, so that a
// half-removed slot is never handed out; the next run removes it.
func (m *Manager) tearDown() {
	m.mu.Lock()
	doomed := m.doomed
	m.doomed = nil
	m.mu.Unlock()
	if len(doomed) == 0 {
		return
	}
	if err := m.table.close(doomed...); err != nil {
		m.log.Error("blocking released network slots", "err", err)
	}
	for _, s := range doomed {
		if err := m.destroyLinks(s); err != nil {
			m.log.Error("removing a network slot", "device", s.Device, "err", err)
			continue
		}
		if err := errors.Join(m.detachFilter(s), forgetFlows(s)); err != nil {
			m.log.Warn("connections of a removed sandbox stay known", "device", s.Device, "err", err)
		}
		m.free(s)
	}
}

// dropReady dooms the ready slots. The background work has ended.
func (m *Manager) dropReady() {
	for {
		select {
		case s := <-m.ready:
			m.doom(s)
		default:
			return
		}
	}
}

// Recover adopts the slots in keep, open or blocked as the guard has them, and
// removes every other slot that an earlier run left. The caller then applies
// their policies again, which matters when the guard's table was lost
// meanwhile. A kept slot whose device or namespace is missing is reported in
// the error, after all others were seen to; Release it.
func (m *Manager) Recover(_ context.Context, keep []Slot) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.calls.Done()
	devices, err := m.listDevices()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, s := range keep {
		if err := m.adoptLocked(s, devices); err != nil {
			errs = append(errs, err)
		}
	}
	for i, p := range m.slots {
		if p == phaseLeft {
			m.doomLocked(m.plan.slot(i))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) adoptLocked(s Slot, devices map[int]bool) error {
	if s != m.plan.slot(s.Index) {
		return engine.Errorf(engine.KindInvalid, "network slot %d belongs to another server or range", s.Index)
	}
	switch p, ok := m.slots[s.Index]; {
	case ok && p != phaseLeft && p != phaseInUse:
		return engine.Errorf(engine.KindConflict, "network slot %d is taken", s.Index)
	case !devices[s.Index] || !isNetNS(s.NetNS):
		return engine.Errorf(engine.KindUnavailable, "network slot %d is gone", s.Index).
			WithHint("stop and start the sandbox")
	}
	m.slots[s.Index] = phaseInUse
	return nil
}
