package network

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// eventually waits until ok, for what happens in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf("still not so after %v: %s", long, what)
}

// traces lists all that servers leave on a host.
func traces(t *testing.T) []string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		out = append(out, "device "+l.Attrs().Name)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range addrs {
		out = append(out, "address "+a.IPNet.String())
	}
	names, _ := os.ReadDir(netnsDir)
	for _, n := range names {
		out = append(out, "netns "+n.Name())
	}
	locks, _ := filepath.Glob(runDir + "/*")
	out = append(out, locks...)
	c, err := nftables.New()
	must(t, err)
	tables, err := c.ListTables()
	must(t, err)
	for _, x := range tables {
		out = append(out, "table "+x.Name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		out = append(out, "mount "+strings.Fields(line)[4])
	}
	slices.Sort(out)
	return out
}

func TestDestroyLeavesNothing(t *testing.T) {
	newWorld(t)
	before := traces(t)
	leaks := goleak.IgnoreCurrent()
	m, err := Open(t.Context(), Config{ID: "gone", Index: -1, Ready: 3})
	must(t, err)
	for range 3 {
		acquire(t, m, allowAll())
	}
	released := acquire(t, m, allowAll())
	must(t, m.Release(t.Context(), released))
	must(t, m.Destroy(t.Context()))
	if d := cmp.Diff(before, traces(t)); d != "" {
		t.Errorf("the host changed (-before +after):\n%s", d)
	}
	goleak.VerifyNone(t, leaks)
	if _, err := m.Acquire(t.Context()); engine.KindOf(err) != engine.KindUnavailable {
		t.Errorf("acquire after destroy: got %v, want unavailable", err)
	}
}

func TestRestartKeepsConnections(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1, Ready: 1})
	s, blocked, lost := acquire(t, m, allowAll()), acquire(t, m, nil), acquire(t, m, allowAll())
	c, err := dial(s.NetNS, "tcp", net.JoinHostPort(far4, "80"), long)
	must(t, err)
	defer c.Close()
	m.Close()
	if !echoes(c, long) {
		t.Error("a connection ended with the server")
	}
	m = open(t, Config{Index: m.Index()})
	if !echoes(c, long) {
		t.Error("a connection ended with the restart")
	}
	kept := []Slot{jsonTrip(t, s), jsonTrip(t, blocked)}
	must(t, m.Recover(t.Context(), kept))
	if !echoes(c, long) {
		t.Error("a connection ended with recovery")
	}
	fails(t, blocked.NetNS, both(), far4, far6)
	eventually(t, "the slot that was not kept is gone", func() bool {
		_, err1 := os.Stat(lost.NetNS)
		_, err2 := netlink.LinkByName(lost.Device)
		return err1 != nil && err2 != nil
	})
	if err := m.Apply(t.Context(), lost, *allowAll()); err == nil {
		t.Error("a policy was applied to a slot that is gone")
	}
	must(t, m.Apply(t.Context(), blocked, *allowAll()))
	reaches(t, blocked.NetNS, both(), far4, far6)
	if next := acquire(t, m, nil); next == s || next == blocked {
		t.Errorf("slot %d was handed out twice", next.Index)
	}
}

func jsonTrip(t *testing.T, s Slot) Slot {
	t.Helper()
	b, err := json.Marshal(s)
	must(t, err)
	var out Slot
	must(t, json.Unmarshal(b, &out))
	if out != s {
		t.Fatalf("through JSON: got %+v, want %+v", out, s)
	}
	return out
}

func TestRecoverReportsMissingSlots(t *testing.T) {
	m := open(t, Config{Index: -1})
	there, gone := acquire(t, m, nil), acquire(t, m, nil)
	m.Close()
	must(t, deleteNetNS(gone.NetNS))
	m = open(t, Config{Index: m.Index()})
	err := m.Recover(t.Context(), []Slot{gone, there})
	if got, want := engine.KindOf(err), engine.KindUnavailable; got != want {
		t.Errorf("kind: got %s (%v), want %s", got, err, want)
	}
	must(t, m.Apply(t.Context(), there, *allowAll()))
	foreign := there
	foreign.Addr4 = gone.Addr4
	if err := m.Recover(t.Context(), []Slot{foreign}); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("a slot with another address: got %v, want invalid", err)
	}
}

func TestFlushedTableComesBack(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s, blocked := acquire(t, m, allowAll()), acquire(t, m, nil)
	flush := func() {
		c, err := nftables.New()
		must(t, err)
		c.FlushRuleset()
		must(t, c.Flush())
	}
	flush()
	eventually(t, "the table is back", func() bool { _, err := greet(s.NetNS, "tcp", far4, patience); return err == nil })
	fails(t, blocked.NetNS, both(), far4)
	fails(t, s.NetNS, both(), private4)

	// Flushed while the server is down.
	m.Close()
	flush()
	m = open(t, Config{Index: m.Index()})
	must(t, m.Recover(t.Context(), []Slot{s, blocked}))
	fails(t, s.NetNS, both(), far4)
	must(t, m.Apply(t.Context(), s, *allowAll()))
	reaches(t, s.NetNS, both(), far4, far6)
	fails(t, blocked.NetNS, both(), far4)
}

func TestTamperedTableIsMended(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s, blocked := acquire(t, m, allowAll()), acquire(t, m, nil)
	tricks := map[string]func(*nftables.Conn) error{
		"an element more": func(c *nftables.Conn) error {
			return c.SetAddElements(m.table.setOpen(false), openElements([]Slot{blocked}, false))
		},
		"an element less": func(c *nftables.Conn) error {
			return c.SetDeleteElements(m.table.setOpen(false), openElements([]Slot{s}, false))
		},
		"no rules":        func(c *nftables.Conn) error { c.FlushTable(m.table.ref()); return nil },
		"no denied":       func(c *nftables.Conn) error { c.FlushSet(m.table.setDeny(false)); return nil },
		"no table at all": func(c *nftables.Conn) error { c.DelTable(m.table.ref()); return nil },
	}
	for what, do := range tricks {
		c, err := nftables.New()
		must(t, err)
		must(t, do(c))
		must(t, c.Flush())
		eventually(t, "mended: "+what, func() bool {
			_, yes := greet(s.NetNS, "tcp", far4, patience)
			_, no := greet(blocked.NetNS, "tcp", far4, patience)
			_, private := greet(s.NetNS, "tcp", private4, patience)
			return yes == nil && no != nil && private != nil
		})
	}
}

func TestNewHostNetworksAreDenied(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	reaches(t, s.NetNS, both(), far4)
	up, err := netlink.LinkByName(uplink)
	must(t, err)
	_, n, err := net.ParseCIDR(far4 + "/24")
	must(t, err)
	// The internet's address becomes part of a network the host sits in.
	r := &netlink.Route{LinkIndex: up.Attrs().Index, Dst: n, Scope: netlink.SCOPE_LINK}
	must(t, netlink.RouteAdd(r))
	eventually(t, "the new network is denied", func() bool { _, err := greet(s.NetNS, "tcp", far4, patience); return err != nil })
	must(t, netlink.RouteDel(r))
	eventually(t, "the network is allowed again", func() bool { _, err := greet(s.NetNS, "tcp", far4, patience); return err == nil })
}

func TestServersSideBySide(t *testing.T) {
	newWorld(t)
	m, n := open(t, Config{ID: "one", Index: -1}), open(t, Config{ID: "two", Index: -1})
	if m.Index() == n.Index() {
		t.Fatalf("both have index %d", m.Index())
	}
	a, b := acquire(t, m, allowAll()), acquire(t, n, allowAll())
	if a.UIDBase == b.UIDBase || a.Addr4 == b.Addr4 || a.Addr6 == b.Addr6 {
		t.Errorf("slots overlap: %+v and %+v", a, b)
	}
	reaches(t, a.NetNS, both(), far4, far6)
	reaches(t, b.NetNS, both(), far4, far6)
	must(t, m.Destroy(t.Context()))
	reaches(t, b.NetNS, both(), far4, far6)
}

func TestIndexBelongsToOneServer(t *testing.T) {
	m := open(t, Config{ID: "one", Index: -1})
	if _, err := Open(t.Context(), Config{ID: "one", Index: -1}); engine.KindOf(err) != engine.KindConflict {
		t.Errorf("the same server twice: got %v, want a conflict", err)
	}
	acquire(t, m, nil)
	m.Close()
	// It is down, but its sandboxes live.
	n := open(t, Config{ID: "two", Index: -1})
	if n.Index() == m.Index() {
		t.Errorf("index %d was taken from living sandboxes", n.Index())
	}
	again := open(t, Config{ID: "one", Index: -1})
	if again.Index() != m.Index() || again.plan != m.plan {
		t.Errorf("after a restart: got %+v, want %+v", again.plan, m.plan)
	}
}

// A server that holds nothing gives its index up when it ends. One that comes
// meanwhile may have it, and does not keep the first from a start.
func TestIndexOfAServerThatHeldNothing(t *testing.T) {
	m := open(t, Config{ID: "one", Index: -1})
	m.Close()
	n := open(t, Config{ID: "two", Index: -1})
	if n.Index() != m.Index() {
		t.Fatalf("index %d was not given up, so the test shows nothing", m.Index())
	}
	again := open(t, Config{ID: "one", Index: m.Index()})
	if again.Index() == n.Index() {
		t.Errorf("two servers have index %d", n.Index())
	}
	acquire(t, again, nil)
	again.Close()
	if last := open(t, Config{ID: "one", Index: again.Index()}); last.Index() != again.Index() {
		t.Errorf("it moved from %d to %d, away from what lives there", again.Index(), last.Index())
	}
}

func TestParallelAcquireAndRelease(t *testing.T) {
	m := open(t, Config{Index: -1, Ready: 4})
	var mu sync.Mutex
	held := map[int]bool{}
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			s, err := m.Acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if held[s.Index] {
				t.Errorf("slot %d was handed out twice", s.Index)
			}
			held[s.Index] = true
			mu.Unlock()
			if err := m.Apply(t.Context(), s, *allowAll()); err != nil {
				t.Error(err)
			}
			mu.Lock()
			delete(held, s.Index) // from here on another one may have it
			mu.Unlock()
			if err := m.Release(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m.Close()
	left, err := listNetNS("t1")
	must(t, err)
	if len(left) != 0 {
		t.Errorf("after Close with nothing in use: %d namespaces left", len(left))
	}
	open(t, Config{Index: m.Index()}) // so that the rest is destroyed
}

// A process that dies in the middle of building a slot leaves some of it.
func TestHalfBuiltSlotsAreRemoved(t *testing.T) {
	m := open(t, Config{Index: -1})
	m.Close()
	file, device := m.plan.slot(7), m.plan.slot(8)
	must(t, os.WriteFile(file.NetNS, nil, 0o444))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device.Device
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "half"}))
	m = open(t, Config{Index: m.Index()})
	must(t, m.Recover(context.Background(), nil))
	eventually(t, "both are gone", func() bool {
		_, err1 := os.Stat(file.NetNS)
		_, err2 := netlink.LinkByName(device.Device)
		return err1 != nil && err2 != nil
	})
}

func TestOnThreadLeavesTheProcessAlone(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	for range 50 {
		must(t, onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }))
	}
	after, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if before != after {
		t.Errorf("the process moved from %s to %s", before, after)
	}
}
