package network

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// Filter judges the packets of slots on their devices, ahead of the guard, and
// the names they ask for. engine/egress is one. Its methods may be called
// concurrently.
type Filter interface {
	// Start begins the filter's work on the addresses that host has by then.
	Start(ctx context.Context, host Host) (Marks, error)
	// Attach closes a slot's device, which is down or was attached before, until
	// Apply. One that was attached by an earlier run keeps its policy.
	Attach(s Slot, device int) error
	// Apply makes p the policy of an attached slot, at once and as a whole.
	Apply(s Slot, p engine.NetworkPolicy) error
	// Detach forgets a slot whose device is gone; nil when it is unknown.
	Detach(s Slot) error
	// Question judges a DNS question of a slot. It returns the question to pass
	// on, or the answer to give at once.
	Question(slot int, q []byte) (ask, answer []byte)
	// NoQuestion is told of a message of a slot to the relay that is no DNS
	// question, which goes no further.
	NoQuestion(slot int, message []byte)
	// Unasked is told how many packets from outside to an open slot the guard has
	// dropped since it was told last, because they were no answers.
	Unasked(slot int, packets uint64)
	// Answer judges the answer to a question that it let pass, and returns what
	// the sandbox gets to see.
	Answer(ctx context.Context, slot int, q, a []byte) []byte
}

// Marks are packet marks. The zero value means that nothing marks packets.
type Marks struct {
	Mark, Mask uint32
	// Proxy is the whole mark of packets that go to the proxy, which listens on
	// ProxyPort of the gateway addresses. 0: there is no proxy.
	Proxy     uint32
	ProxyPort uint16
}

// Host is what a Filter needs of the Manager.
type Host interface {
	// Gateways are the addresses on which the server answers sandboxes.
	Gateways() []netip.Addr
	// SlotOf finds the slot of a sandbox's address, when it is open.
	SlotOf(a netip.Addr) (int, bool)
	// Denied tells whether no sandbox may reach an address, even by proxy: it
	// is not of the public internet, or of one of the host's networks.
	Denied(a netip.Addr) bool
	// Resolve asks the resolvers a DNS question and returns their answer, or
	// one of a failure.
	Resolve(ctx context.Context, q []byte) []byte
}

// Gateways implements Host.
func (m *Manager) Gateways() []netip.Addr {
	var out []netip.Addr
	for _, f := range m.plan.slot(firstSlot).families() {
		out = append(out, f.gateway)
	}
	return out
}

// SlotOf implements Host.
func (m *Manager) SlotOf(a netip.Addr) (int, bool) { return m.openSlot(a) }

// Resolve implements Host.
func (m *Manager) Resolve(ctx context.Context, q []byte) []byte {
	return m.relay.resolve(ctx, "udp", q)
}

// Denied implements Host.
func (m *Manager) Denied(a netip.Addr) bool { return m.table.denies(a.Unmap()) }

// attachFilter closes the slot's device while it is down.
func (m *Manager) attachFilter(s Slot, device int) error {
	if m.filter == nil {
		return nil
	}
	if err := m.filter.Attach(s, device); err != nil {
		return fmt.Errorf("attach the filter to %s: %w", s.Device, err)
	}
	return nil
}

// detachFilter is called when the device is gone.
func (m *Manager) detachFilter(s Slot) error {
	if m.filter == nil {
		return nil
	}
	return m.filter.Detach(s)
}

// adoptFilter attaches the devices that an earlier run left, so that they pass
// the guard, which asks for marks.
func (m *Manager) adoptFilter(devices map[int]bool) error {
	if m.filter == nil {
		return nil
	}
	for i := range devices {
		s := m.plan.slot(i)
		dev, err := m.nl.LinkByName(s.Device)
		if err != nil {
			continue // it went meanwhile
		}
		if err := m.attachFilter(s, dev.Attrs().Index); err != nil {
			return err
		}
	}
	return nil
}

// applyFilter makes p the policy of the slot's filter.
func (m *Manager) applyFilter(s Slot, p engine.NetworkPolicy) error {
	if m.filter != nil {
		return m.filter.Apply(s, p)
	}
	if p.NeedsFilter() || p.OutboundProxyURL != "" {
		return engine.Errorf(engine.KindUnsupported, "this host can enforce neither network allow lists nor an outbound proxy").
			WithHint("use networkBlockAll or policy offline, or allow all by leaving them empty; atoll doctor says what the kernel lacks")
	}
	return nil
}

// addMarkRules refuses what the filter did not judge, first thing in a chain
// that sees packets of our devices only. What is the proxy's is not forwarded:
// NAT leaves packets alone whose connection stood before the policy gave it to
// the proxy, so they would go on to where the sandbox wants them.
func (t *table) addMarkRules(r ruleset) {
	if t.marks.Mask == 0 {
		return
	}
	for _, chain := range []string{"out", "local"} {
		r.add(r.plain[chain],
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(t.marks.Mask), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(t.marks.Mark)},
			drop())
	}
	r.add(r.plain["out"],
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(t.marks.Proxy)},
		jumpTo("refuse"))
}

// addProxyRules leads what the filter marked for the proxy there.
func (t *table) addProxyRules(r ruleset, pre *nftables.Chain) {
	for _, f := range t.plan.slot(firstSlot).families() {
		r.add(pre, t.ours(expr.MetaKeyIIFNAME), nfproto(f.gateway.Is6()), l4(unix.IPPROTO_TCP),
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(t.marks.Proxy)},
			destination4or6(f.gateway, t.marks.ProxyPort))
		r.add(r.plain["local"], t.isOpenExpr(expr.MetaKeyIIFNAME, f.gateway.Is6(), source),
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(t.marks.Proxy)},
			load(f.gateway.Is6(), destination, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: f.gateway.AsSlice()},
			l4(unix.IPPROTO_TCP), dport(t.marks.ProxyPort), accept())
	}
}

// destination4or6 rewrites where a packet goes.
func destination4or6(a netip.Addr, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(proto(a.Is6())), RegAddrMin: 1, RegProtoMin: 2},
	}
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
