package network

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

func TestOpenSlotReachesTheInternet(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	reaches(t, s.NetNS, both(), far4, far4b, far6)
	if got, err := greet(s.NetNS, "tcp", far4, long); got != "hello "+hostUp4 {
		t.Errorf("seen from outside as %q, %v; want the host's address", got, err)
	}
	if got, err := greet(s.NetNS, "tcp", far6, long); got != "hello "+hostUp6 {
		t.Errorf("seen from outside as %q, %v; want the host's address", got, err)
	}
}

func TestSlotIsBlockedUntilApply(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, nil)
	fails(t, s.NetNS, both(), far4, far6, s.Gateway4.String(), s.Gateway6.String())
	must(t, m.Apply(t.Context(), s, *blockAll()))
	fails(t, s.NetNS, both(), far4, far6)
	must(t, m.Apply(t.Context(), s, *allowAll()))
	reaches(t, s.NetNS, both(), far4, far6)
	must(t, m.Apply(t.Context(), s, *blockAll()))
	fails(t, s.NetNS, both(), far4, far6)
}

func TestRefusalIsImmediate(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, nil)
	if _, err := greet(s.NetNS, "tcp", far4, long); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("blocked: got %v, want %v", err, unix.ECONNREFUSED)
	}
	must(t, m.Apply(t.Context(), s, *allowAll()))
	if _, err := greet(s.NetNS, "tcp", private4, long); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("private: got %v, want %v", err, unix.ECONNREFUSED)
	}
}

func TestListsAreRefusedAndBlock(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	err := m.Apply(t.Context(), s, engine.NetworkPolicy{AllowCIDRs: []string{far4 + "/32"}})
	if got, want := engine.KindOf(err), engine.KindUnsupported; got != want {
		t.Errorf("kind: got %s (%v), want %s", got, err, want)
	}
	fails(t, s.NetNS, both(), far4, far4b)
}

func TestPrivateNetworksAreOutOfReach(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	// All of these answer the host itself.
	targets := []string{metadata, private4, shared4, ula6, gate4, gate6, "64:ff9b::c633:6407", "2002:c633:6407::1"}
	host := "/proc/self/ns/net"
	reaches(t, host, both(), targets...)
	fails(t, s.NetNS, both(), targets...)
}

func TestHostIsOutOfReach(t *testing.T) {
	newWorld(t)
	l, err := net.Listen("tcp", ":80")
	must(t, err)
	defer l.Close()
	go echoTCP(l)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	reaches(t, "/proc/self/ns/net", []string{"tcp"}, hostUp4, hostUp6, s.Gateway4.String())
	fails(t, s.NetNS, []string{"tcp"}, hostUp4, hostUp6, s.Gateway4.String(), s.Gateway6.String())
	// 127.0.0.1 and ::1 are the sandbox's own.
	fails(t, s.NetNS, []string{"tcp"}, "127.0.0.1", "::1")
}

func TestSandboxesAreApart(t *testing.T) {
	newWorld(t)
	m, n := open(t, Config{Index: -1}), open(t, Config{ID: "t2", Index: -1})
	a, b, c := acquire(t, m, allowAll()), acquire(t, m, allowAll()), acquire(t, n, allowAll())
	for _, s := range []Slot{b, c} {
		must(t, inNS(s.NetNS, func() error {
			closers, err := serveWorld()
			for _, x := range closers {
				t.Cleanup(func() { x.Close() })
			}
			return err
		}))
		reaches(t, s.NetNS, both(), s.Addr4.String(), s.Addr6.String())
		fails(t, a.NetNS, both(), s.Addr4.String(), s.Addr6.String())
		// Nor does the host itself, or the network behind it.
		fails(t, "/proc/self/ns/net", both(), s.Addr4.String(), s.Addr6.String())
	}
}

func TestNothingComesInFromOutside(t *testing.T) {
	w := newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	must(t, inNS(s.NetNS, func() error {
		closers, err := serveWorld()
		for _, x := range closers {
			t.Cleanup(func() { x.Close() })
		}
		return err
	}))
	// A neighbour of the host that knows where the sandboxes are.
	for dst, gw := range map[string]string{m.plan.Prefix4.String(): hostUp4, m.plan.Prefix6.String(): hostUp6} {
		must(t, inNS(w.ns, func() error { return addRoute(dst, gw) }))
	}
	fails(t, w.ns, both(), s.Addr4.String(), s.Addr6.String(), s.Gateway4.String(), s.Gateway6.String())
	if _, err := greetAt(w.ns, "udp", net.JoinHostPort(s.Gateway4.String(), "53"), patience); err == nil {
		t.Error("the relay answers a neighbour of the host")
	}
	counts, err := m.table.unasked()
	if err != nil || len(counts) != 2 || counts[s.Addr4] == 0 || counts[s.Addr6] == 0 {
		t.Errorf("what was dropped is counted as %v, %v", counts, err)
	}
	reaches(t, s.NetNS, both(), far4, far6)
}

func TestBlockingCutsLiveConnections(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	for _, ip := range []string{far4, far6} {
		s := acquire(t, m, allowAll())
		c, err := dial(s.NetNS, "tcp", net.JoinHostPort(ip, "80"), long)
		must(t, err)
		defer c.Close()
		if !echoes(c, long) {
			t.Fatalf("%s: no echo on a live connection", ip)
		}
		must(t, m.Apply(t.Context(), s, *blockAll()))
		if echoes(c, patience) {
			t.Errorf("%s: the connection lives on", ip)
		}
		must(t, m.Apply(t.Context(), s, *allowAll()))
		if echoes(c, patience) {
			t.Errorf("%s: the connection came back", ip)
		}
	}
}

// echoes says a word and tells whether it, or the greeting, came back.
func echoes(c net.Conn, wait time.Duration) bool {
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	for {
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			return false
		}
		if b[n-1] == 'x' {
			return true
		}
	}
}

func TestSpoofedSourcesAreDropped(t *testing.T) {
	w := newWorld(t)
	m := open(t, Config{Index: -1})
	s, other := acquire(t, m, allowAll()), acquire(t, m, allowAll())
	heard := listenFar(t, w)
	eventually(t, "a packet with the right source arrives", func() bool {
		must(t, inNS(s.NetNS, func() error { return sendRaw(s, s.Addr4.String(), far4) }))
		return heard(patience)
	})
	for heard(patience) { // late copies
	}
	for _, src := range []string{other.Addr4.String(), hostUp4, "203.0.113.200", s.Gateway4.String()} {
		must(t, inNS(s.NetNS, func() error { return sendRaw(s, src, far4) }))
		if heard(patience / 2) {
			t.Errorf("a packet from %s arrived", src)
		}
	}
	eventually(t, "an IPv6 packet with the right source arrives", func() bool {
		must(t, inNS(s.NetNS, func() error { return sendRaw6(s, s.Addr6.String(), far6) }))
		return heard(patience)
	})
	for heard(patience) {
	}
	for _, src := range []string{other.Addr6.String(), hostUp6, "2001:db8::99", s.Gateway6.String(), "fe80::1"} {
		must(t, inNS(s.NetNS, func() error { return sendRaw6(s, src, far6) }))
		if heard(patience / 2) {
			t.Errorf("a packet from %s arrived", src)
		}
	}
}

func TestNeighbourTricksReachNobody(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	a, b := acquire(t, m, allowAll()), acquire(t, m, allowAll())
	stop := sniff(t, b.NetNS)
	must(t, inNS(a.NetNS, func() error {
		for _, frame := range neighbourTricks(a, b) {
			if err := sendFrame(frame); err != nil {
				return err
			}
		}
		return nil
	}))
	if n := stop(); n != 0 {
		t.Errorf("%d frames arrived at the other sandbox, want none", n)
	}
	// And the host still knows both by their one hardware address.
	for _, s := range []Slot{a, b} {
		reaches(t, s.NetNS, both(), far4, far6)
	}
}

func TestUnprivilegedPingAndPorts(t *testing.T) {
	newWorld(t)
	m := open(t, Config{Index: -1})
	s := acquire(t, m, allowAll())
	must(t, inNS(s.NetNS, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(time.Second.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		to := &unix.SockaddrInet4{Addr: addrOf(t, far4).As4()}
		buf := make([]byte, 100)
		for end := time.Now().Add(long); ; { // a busy machine may lose one
			if err := unix.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 1, 'h', 'i'}, 0, to); err != nil {
				return err
			}
			_, _, err = unix.Recvfrom(fd, buf, 0)
			if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
				return err
			}
		}
	}))
	for key, want := range map[string]string{"net/ipv4/ping_group_range": "0\t2147483647", "net/ipv4/ip_unprivileged_port_start": "0"} {
		must(t, inNS(s.NetNS, func() error {
			if got := threadSysctl(key); got != want {
				t.Errorf("%s: got %q, want %q", key, got, want)
			}
			return nil
		}))
	}
}
