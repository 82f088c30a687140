package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// runDir holds what must not outlive a reboot: the claims of indexes.
const runDir = "/run/atoll"

// Config says how to open a Manager.
type Config struct {
	ID    string // of the server; lower-case letters, digits and -, at most 32
	Index int    // 0..15, which of the host's ranges to use, unless another server has it by now; -1: the former or a free one
	Ready int    // slots to keep built ahead of need
	// Resolvers answer the sandboxes' DNS questions. Empty: those of
	// /etc/resolv.conf, which is read again when it changes.
	Resolvers []netip.AddrPort
	// Filter enforces lists. nil: policies that have some are refused.
	Filter Filter
	Log    *slog.Logger
}

// Manager owns the network of one server's sandboxes. Its methods may be
// called concurrently.
type Manager struct {
	log       *slog.Logger
	claim     *claim
	plan      plan
	mtu       int
	nl        *netlink.Handle
	hostNS    *os.File
	table     *table
	resolvers *resolvers
	relay     *relay
	filter    Filter // nil: none
	want      int    // ready slots

	ready  chan Slot
	refill chan struct{} // a hint, capacity 1
	dead   chan struct{} // a hint, capacity 1: something to tear down

	cancel context.CancelFunc
	wg     sync.WaitGroup // background work
	calls  sync.WaitGroup // methods under way; joined under mu while not closed

	mu     sync.Mutex
	slots  map[int]phase // absent: free
	doomed []Slot        // waiting for teardown
	closed bool
}

// phase is what a slot is used for.
type phase int

const (
	phaseBuilding phase = iota
	phaseReady
	phaseInUse
	phaseLeft // by an earlier run; Recover decides
	phaseDying
)

// Open claims an index, makes the guard, and starts the DNS relay and the pool
// of ready slots. Slots that an earlier run of the same server left go on
// working as they are until Recover.
//
// It must run before other programs get private mount namespaces, as
// containerd does, because it makes /run/netns a shared mount.
func Open(ctx context.Context, c Config) (*Manager, error) {
	if !validID.MatchString(c.ID) {
		return nil, engine.Errorf(engine.KindInvalid, "server id %q is not 1 to 32 lower-case letters, digits or -", c.ID)
	}
	if c.Index >= servers {
		return nil, engine.Errorf(engine.KindInvalid, "network index %d is not below %d", c.Index, servers)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		log: c.Log, want: max(c.Ready, 0), slots: map[int]phase{},
		ready: make(chan Slot, max(c.Ready, 0)), refill: make(chan struct{}, 1), dead: make(chan struct{}, 1),
		resolvers: newResolvers(c.Resolvers), filter: c.Filter,
	}
	if err := m.open(ctx, c); err != nil {
		m.closeFiles()
		return nil, fmt.Errorf("open network of server %s: %w", c.ID, err)
	}
	return m, nil
}

func (m *Manager) open(ctx context.Context, c Config) error {
	if err := os.MkdirAll(runDir, 0o711); err != nil {
		return err
	}
	made, err := prepareNetNSDir()
	if err != nil {
		return fmt.Errorf("prepare %s: %w", netnsDir, err)
	}
	if made {
		_ = os.WriteFile(mountMark(), nil, 0o600) // Destroy leaves the mount when this is missing
	}
	if m.claim, err = claimIndex(runDir, c.ID, c.Index); err != nil {
		return err
	}
	if m.hostNS, err = openHostNS(); err != nil {
		return err
	}
	if m.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err := m.choosePlan(); err != nil {
		return err
	}
	return m.start(ctx)
}

func mountMark() string { return filepath.Join(runDir, "netns.mounted") }

// choosePlan fixes the address ranges and stores them with the claim.
func (m *Manager) choosePlan() error {
	p := m.claim.plan
	if !p.Prefix4.IsValid() {
		used, err := m.usedPrefixes()
		if err != nil {
			return err
		}
		if p.Prefix4, err = choosePrefix4(p.Index, used); err != nil {
			return err
		}
		if hasIPv6() {
			if p.Prefix6, err = choosePrefix6(p.ID, used); err != nil {
				return err
			}
		}
	}
	m.plan, m.claim.plan = p, p
	return m.claim.save()
}

// start makes the host's side and the background work.
func (m *Manager) start(ctx context.Context) error {
	m.mtu = m.uplinkMTU()
	if err := m.gatewayAddrs(); err != nil {
		return err
	}
	relay, err := listenRelay(m)
	if err != nil {
		return err
	}
	m.relay = relay
	m.table = newTable(m.plan, relay.port, m.log)
	if m.filter != nil {
		if m.table.marks, err = m.filter.Start(ctx, m); err != nil {
			return fmt.Errorf("start the filter: %w", err)
		}
	}
	if err := m.findLeft(); err != nil {
		return err
	}
	hostNets, err := m.hostNetworks()
	if err != nil {
		return err
	}
	m.table.denied = append(neverAllowed(), hostNets...)
	if err := m.table.install(); err != nil {
		return err
	}
	if err := m.enableForwarding(); err != nil {
		return err
	}
	watch, err := newWatch()
	if err != nil {
		return err
	}
	bg, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = cancel
	m.wg.Go(func() { m.relay.serve(bg) })
	m.wg.Go(func() { m.refillLoop(bg) })
	m.wg.Go(func() { m.teardownLoop(bg) })
	m.wg.Go(func() { m.guardLoop(bg, watch) })
	m.wake(m.refill)
	m.log.Info("network ready", "index", m.plan.Index, "ipv4", m.plan.Prefix4, "ipv6", m.plan.Prefix6)
	return nil
}

// findLeft marks what an earlier run left as taken and adopts its open slots.
func (m *Manager) findLeft() error {
	devices, err := m.listDevices()
	if err != nil {
		return err
	}
	names, err := listNetNS(m.plan.ID)
	if err != nil {
		return err
	}
	for i := range devices {
		m.slots[i] = phaseLeft
	}
	for _, i := range names {
		m.slots[i] = phaseLeft
	}
	if err := m.adoptFilter(devices); err != nil {
		return err
	}
	return m.table.adopt(func(i int) bool { return devices[i] })
}

// Index tells which range was chosen. Give it to Open next time.
func (m *Manager) Index() int { return m.plan.Index }

// Prefixes tells the address ranges of all slots; the second is zero where the
// host has no IPv6.
func (m *Manager) Prefixes() (v4, v6 netip.Prefix) { return m.plan.Prefix4, m.plan.Prefix6 }

// Close stops the DNS relay and the background work, and removes ready slots.
// Slots in use stay as they are, for Open and Recover of the next run.
func (m *Manager) Close() {
	if !m.stop() {
		return
	}
	m.dropReady()
	m.tearDown()
	m.closeFiles()
}

// stop ends all work; false when somebody else did already.
func (m *Manager) stop() bool {
	m.mu.Lock()
	was := m.closed
	m.closed = true
	m.mu.Unlock()
	if was {
		return false
	}
	m.cancel()
	m.relay.close()
	m.wg.Wait()
	m.calls.Wait()
	return true
}

// enter announces a call that uses the host's side; the caller leaves with
// m.calls.Done. It fails once the Manager is closing.
func (m *Manager) enter() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed()
	}
	m.calls.Add(1)
	return nil
}

// closeFiles closes whatever open got to.
func (m *Manager) closeFiles() {
	if m.relay != nil {
		m.relay.close()
	}
	if m.table != nil {
		m.table.hangup()
	}
	if m.nl != nil {
		m.nl.Close()
	}
	if m.hostNS != nil {
		m.hostNS.Close()
	}
	if m.claim != nil {
		m.claim.release()
	}
}

// Destroy removes every slot of this server, used or not, and everything else
// it made on the host, forwarding apart. The Manager is closed after it.
func (m *Manager) Destroy(ctx context.Context) error {
	if !m.stop() {
		return engine.Errorf(engine.KindConflict, "the network is closed")
	}
	m.dropReady()
	err := m.removeAll(ctx)
	err = errors.Join(err, m.table.remove(), m.removeGatewayAddrs())
	m.releaseNetNSDir()
	m.claim.forget()
	m.claim = nil
	m.closeFiles()
	return err
}

// removeAll removes all slots, those of earlier runs too.
func (m *Manager) removeAll(ctx context.Context) error {
	devices, err := m.listDevices()
	if err != nil {
		return err
	}
	names, err := listNetNS(m.plan.ID)
	if err != nil {
		return err
	}
	for _, i := range names {
		devices[i] = true
	}
	var errs []error
	for i := range devices {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		s := m.plan.slot(i)
		errs = append(errs, m.table.close(s), m.destroyLinks(s), m.detachFilter(s), forgetFlows(s))
	}
	return errors.Join(errs...)
}

// releaseNetNSDir undoes prepareNetNSDir when this host's servers did it and
// no other server or namespace needs it.
func (m *Manager) releaseNetNSDir() {
	locks, _ := filepath.Glob(filepath.Join(runDir, "net-*.lock"))
	if _, err := os.Stat(mountMark()); err != nil || len(locks) > 1 {
		return
	}
	if left, err := os.ReadDir(netnsDir); err != nil || len(left) > 0 {
		return
	}
	if unix.Unmount(netnsDir, 0) == nil {
		os.Remove(mountMark())
	}
}

// wake sends a hint that need not be taken.
func (m *Manager) wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// retryAfter is how long to wait when the host refuses something.
const retryAfter = time.Second
