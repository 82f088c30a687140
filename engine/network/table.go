package network

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/nftables"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// table is the server's one nftables table and what ought to be in it.
type table struct {
	plan   plan
	device string // start of our devices' names
	port   uint16 // of the DNS relay on the gateway addresses
	marks  Marks  // that packets of our devices must carry; zero: none
	log    *slog.Logger
	author atomic.Uint32 // netlink port of conn

	mu     sync.Mutex // serializes transactions and guards what follows
	conn   *nftables.Conn
	open   map[int]Slot
	denied []netip.Prefix
	rules  map[string]int // per chain, as sent
	stamp  []string       // chains and rules as the kernel told them after install; nil: unknown
}

func newTable(p plan, port uint16, log *slog.Logger) *table {
	return &table{plan: p, device: devicePrefix(p.ID), port: port, log: log, open: map[int]Slot{}}
}

func tableName(id string) string { return "atoll_" + strings.ReplaceAll(id, "-", "_") }

func (t *table) ref() *nftables.Table {
	return &nftables.Table{Name: tableName(t.plan.ID), Family: nftables.TableFamilyINet}
}

// The sets. Elements of open sets are a device name and the address it may use.
func (t *table) setOpen(v6 bool) *nftables.Set {
	s := &nftables.Set{Table: t.ref(), Name: "open4", Concatenation: true}
	s.KeyType = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)
	if v6 {
		s.Name, s.KeyType = "open6", nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr)
	}
	return s
}

func (t *table) setDeny(v6 bool) *nftables.Set {
	if v6 {
		return &nftables.Set{Table: t.ref(), Name: "deny6", Interval: true, KeyType: nftables.TypeIP6Addr}
	}
	return &nftables.Set{Table: t.ref(), Name: "deny4", Interval: true, KeyType: nftables.TypeIPAddr}
}

// setUnasked counts, by address of an open slot, the packets from outside that
// were no answers. It has room for all slots.
func (t *table) setUnasked(v6 bool) *nftables.Set {
	s := &nftables.Set{Table: t.ref(), Name: "unasked4", KeyType: nftables.TypeIPAddr, Dynamic: true, Counter: true, Size: perServer}
	if v6 {
		s.Name, s.KeyType = "unasked6", nftables.TypeIP6Addr
	}
	return s
}

// unasked returns the counts, which begin anew when the table is replaced.
func (t *table) unasked() (map[netip.Addr]uint64, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	out := map[netip.Addr]uint64{}
	for _, v6 := range []bool{false, true} {
		es, err := c.GetSetElements(t.setUnasked(v6))
		if err != nil {
			return nil, fmt.Errorf("read what the guard counts: %w", err)
		}
		for _, e := range es {
			if a, ok := netip.AddrFromSlice(e.Key); ok && e.Counter != nil {
				out[a] = e.Counter.Packets
			}
		}
	}
	return out, nil
}

func openElement(s Slot, a netip.Addr) nftables.SetElement {
	key := make([]byte, 16, 32)
	copy(key, s.Device)
	return nftables.SetElement{Key: append(key, a.AsSlice()...)}
}

func openElements(slots []Slot, v6 bool) []nftables.SetElement {
	var out []nftables.SetElement
	for _, s := range slots {
		switch {
		case !v6:
			out = append(out, openElement(s, s.Addr4))
		case s.Addr6.IsValid():
			out = append(out, openElement(s, s.Addr6))
		}
	}
	return out
}

// transact runs one transaction on a lasting connection. After an error the
// connection is closed, since answers may be left on it.
func (t *table) transactLocked(fill func(*nftables.Conn) error) error {
	if t.conn == nil {
		c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(bigBuffers, t.learnPort))
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		t.conn = c
	}
	err := fill(t.conn)
	if err == nil {
		err = t.conn.Flush()
	}
	if err != nil {
		t.conn.CloseLasting()
		t.conn = nil
	}
	return err
}

// bigBuffers lets a transaction with all slots of a server fit.
func bigBuffers(c *mdnetlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		for _, o := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 4<<20) // the default serves smaller hosts
		}
	})
}

// learnPort keeps the address of our socket, by which the kernel names the
// author of a transaction.
func (t *table) learnPort(c *mdnetlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		if a, err := unix.Getsockname(int(fd)); err == nil {
			t.author.Store(a.(*unix.SockaddrNetlink).Pid)
		}
	})
}

// byOthers tells whether a message from the kernel announces a transaction of
// somebody else.
func (t *table) byOthers(b []byte) bool {
	ms, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(ms, func(m syscall.NetlinkMessage) bool {
		return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN && m.Header.Pid != t.author.Load()
	})
}

// install replaces the whole table, with the given slots open, in one step:
// a connection of an open sandbox does not notice.
func (t *table) install() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.installLocked()
}

func (t *table) installLocked() error {
	err := t.transactLocked(func(c *nftables.Conn) error {
		c.AddTable(t.ref()) // so that deleting it cannot fail
		c.DelTable(t.ref())
		c.AddTable(t.ref())
		return t.fill(c)
	})
	if err != nil {
		return fmt.Errorf("install nftables table %s: %w", tableName(t.plan.ID), err)
	}
	// Somebody may have changed the table since; then the next check must see it.
	stamp, counts, err := t.look()
	if err != nil || !maps.Equal(counts, t.rules) {
		stamp = nil
	}
	t.stamp = stamp
	return nil
}

// chunk bounds the elements per message, which must stay below 64 KiB.
const chunk = 400

func (t *table) fill(c *nftables.Conn) error {
	slots := slices.Collect(maps.Values(t.open))
	for _, v6 := range []bool{false, true} {
		deny, open := t.setDeny(v6), t.setOpen(v6)
		if err := c.AddSet(deny, elements(spans(t.denied, v6))); err != nil {
			return err
		}
		if err := c.AddSet(open, nil); err != nil {
			return err
		}
		if err := c.AddSet(t.setUnasked(v6), nil); err != nil {
			return err
		}
		for part := range slices.Chunk(openElements(slots, v6), chunk) {
			if err := c.SetAddElements(open, part); err != nil {
				return err
			}
		}
	}
	t.rules = t.addRules(c)
	return nil
}

// allow opens slots; close shuts them. Both are one transaction.
func (t *table) allow(s Slot) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[s.Index]; ok {
		return nil
	}
	err := t.transactLocked(func(c *nftables.Conn) error {
		for _, v6 := range []bool{false, true} {
			if e := openElements([]Slot{s}, v6); len(e) > 0 {
				if err := c.SetAddElements(t.setOpen(v6), e); err != nil {
					return err
				}
			}
		}
		return nil
	})
	t.open[s.Index] = s
	if err == nil {
		return nil
	}
	// Somebody may have flushed the table under us.
	if err2 := t.installLocked(); err2 != nil {
		delete(t.open, s.Index)
		return errors.Join(err, err2)
	}
	return nil
}

func (t *table) close(slots ...Slot) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var was []Slot
	for _, s := range slots {
		if old, ok := t.open[s.Index]; ok {
			was = append(was, old)
			delete(t.open, s.Index)
		}
	}
	if len(was) == 0 {
		return nil
	}
	err := t.transactLocked(func(c *nftables.Conn) error {
		for _, v6 := range []bool{false, true} {
			for part := range slices.Chunk(openElements(was, v6), chunk) {
				if err := c.SetDeleteElements(t.setOpen(v6), part); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	return t.installLocked()
}

func (t *table) isOpen(i int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.open[i]
	return ok
}

// deny replaces the networks that no sandbox may reach.
func (t *table) deny(ps []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(spans(ps, false), spans(t.denied, false)) && slices.Equal(spans(ps, true), spans(t.denied, true)) {
		return nil
	}
	t.denied = ps
	err := t.transactLocked(func(c *nftables.Conn) error {
		for _, v6 := range []bool{false, true} {
			c.FlushSet(t.setDeny(v6))
			if err := c.SetAddElements(t.setDeny(v6), elements(spans(ps, v6))); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	return t.installLocked()
}

func (t *table) denies(a netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.denied, func(p netip.Prefix) bool { return p.Contains(a) })
}

// adopt takes over the open slots of a table that an earlier run left. Those
// that keep says no to are left out.
func (t *table) adopt(keep func(int) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(x *nftables.Table) bool { return x.Name == tableName(t.plan.ID) }) {
		return nil
	}
	es, err := c.GetSetElements(t.setOpen(false))
	if err != nil { // a table of another shape, which install replaces
		t.log.Warn("the former network guard cannot be read, so running sandboxes stay blocked until their policies are applied", "err", err)
		return nil
	}
	for _, e := range es {
		if len(e.Key) < 16 {
			continue
		}
		i, ok := indexAfter(strings.TrimRight(string(e.Key[:16]), "\x00"), t.device)
		if ok && keep(i) {
			t.open[i] = t.plan.slot(i)
		}
	}
	return nil
}

// mend rebuilds the table when somebody changed it, and says what was wrong.
func (t *table) mend() (fault string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, _, err := t.look()
	switch {
	case err != nil:
		fault = err.Error()
	case t.stamp == nil || !slices.Equal(now, t.stamp):
		fault = "chains or rules differ"
	default:
		if fault = t.strayLocked(); fault == "" {
			return "", nil
		}
	}
	return fault, t.installLocked()
}

// look describes the table as the kernel has it, a rule by its handle, which
// changes when the rule is replaced. It also counts the rules of each chain.
func (t *table) look() (stamp []string, rules map[string]int, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, nil, fmt.Errorf("list chains: %w", err)
	}
	rules = map[string]int{}
	for _, ch := range chains {
		if ch.Table.Name != tableName(t.plan.ID) {
			continue
		}
		policy := "-"
		if ch.Policy != nil {
			policy = fmt.Sprint(*ch.Policy)
		}
		stamp = append(stamp, fmt.Sprint("chain ", ch.Name, " ", policy))
		rs, err := c.GetRules(t.ref(), &nftables.Chain{Name: ch.Name})
		if err != nil {
			return nil, nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rs {
			stamp = append(stamp, fmt.Sprint("rule ", ch.Name, " ", r.Handle))
		}
		rules[ch.Name] = len(rs)
	}
	if len(stamp) == 0 {
		return nil, nil, errors.New("the table is gone")
	}
	return stamp, rules, nil
}

// strayLocked compares the sets with what they ought to hold.
func (t *table) strayLocked() string {
	c, err := nftables.New()
	if err != nil {
		return err.Error()
	}
	slots := slices.Collect(maps.Values(t.open))
	for _, v6 := range []bool{false, true} {
		if s := differ(c, t.setOpen(v6), openElements(slots, v6)); s != "" {
			return s
		}
		if s := differ(c, t.setDeny(v6), elements(spans(t.denied, v6))); s != "" {
			return s
		}
	}
	return ""
}

func differ(c *nftables.Conn, s *nftables.Set, want []nftables.SetElement) string {
	got, err := c.GetSetElements(s)
	if err != nil {
		return err.Error()
	}
	key := func(e nftables.SetElement) string { return fmt.Sprintf("%x %t", e.Key, e.IntervalEnd) }
	have := map[string]bool{}
	for _, e := range got {
		have[key(e)] = true
	}
	for _, e := range want {
		if !have[key(e)] {
			return "an element of set " + s.Name + " is missing"
		}
		delete(have, key(e))
	}
	// The kernel reports the open end of an interval set's gap at address zero.
	for k := range have {
		if zero := fmt.Sprintf("%x true", make([]byte, s.KeyType.Bytes)); k != zero {
			return "set " + s.Name + " has an element too many"
		}
	}
	return ""
}

// remove deletes the table; nil when already gone.
func (t *table) remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.open)
	err := t.transactLocked(func(c *nftables.Conn) error {
		c.AddTable(t.ref())
		c.DelTable(t.ref())
		return nil
	})
	t.hangupLocked()
	return err
}

func (t *table) hangup() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hangupLocked()
}

func (t *table) hangupLocked() {
	if t.conn != nil {
		t.conn.CloseLasting()
		t.conn = nil
	}
}
