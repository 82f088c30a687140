package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

// world is an internet: a namespace behind the host's uplink that has the
// addresses below and a server on port 80 (TCP) and 9 (UDP) of each, which
// answers with the address it was asked from.
type world struct {
	ns string
}

const (
	far4, far4b = "198.51.100.7", "203.0.113.9"
	far6        = "2001:db8:1::7"
	uplink      = "up0"
	hostUp4     = "192.0.2.65" // of the host on its uplink
	hostUp6     = "2001:db8:ffff::1"
	gate4       = "192.0.2.66" // of the internet there
	gate6       = "2001:db8:ffff::2"
	metadata    = "169.254.169.254"
	private4    = "192.168.77.1" // networks behind the uplink that no sandbox may see
	shared4     = "100.127.0.1"
	ula6        = "fd77::1"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ns: t.TempDir() + "/internet"}
	host, err := os.Open("/proc/self/ns/net")
	must(t, err)
	defer host.Close()
	must(t, createNetNS(w.ns, func() error { return buildWorld(int(host.Fd())) }))
	up, err := netlink.LinkByName(uplink)
	must(t, err)
	t.Cleanup(func() {
		must(t, netlink.LinkDel(up))
		must(t, deleteNetNS(w.ns))
	})
	must(t, networktest.AddAddrs(up, hostUp4+"/26", hostUp6+"/64"))
	must(t, netlink.LinkSetUp(up))
	for dst, gw := range map[string]string{"0.0.0.0/0": gate4, "::/0": gate6, metadata + "/32": gate4} {
		_, n, err := net.ParseCIDR(dst)
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Dst: n, Gw: net.ParseIP(gw)}))
	}
	var closers []io.Closer
	must(t, inNS(w.ns, func() error {
		var err error
		closers, err = serveWorld()
		return err
	}))
	t.Cleanup(func() {
		for _, c := range closers {
			c.Close()
		}
	})
	eventually(t, "the host reaches the internet", func() bool {
		_, err4 := greet("/proc/self/ns/net", "tcp", far4, patience)
		_, err6 := greet("/proc/self/ns/net", "tcp", far6, patience)
		return err4 == nil && err6 == nil
	})
	return w
}

func buildWorld(host int) error {
	if err := sysctl("net/ipv6/conf/default/accept_dad", "0"); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "in0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(host)}); err != nil {
		return err
	}
	for _, name := range []string{"lo", "in0"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		addrs := []string{gate4 + "/26", gate6 + "/64"}
		if name == "lo" {
			addrs = []string{
				far4 + "/32", far4b + "/32", far6 + "/128", metadata + "/32", private4 + "/32", shared4 + "/32", ula6 + "/128",
				"64:ff9b::c633:6407/128", "2002:c633:6407::1/128",
			}
		}
		if err := networktest.AddAddrs(l, addrs...); err != nil {
			return err
		}
	}
	return nil
}

// serveWorld listens in the namespace of the calling thread.
func serveWorld() ([]io.Closer, error) {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return nil, err
	}
	go echoTCP(l)
	closers := []io.Closer{l}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return closers, err
	}
	for _, a := range addrs { // one by one, so that answers come from where the question went
		ip := a.(*net.IPNet).IP
		if ip.IsLinkLocalUnicast() && ip.To4() == nil {
			continue
		}
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: 9})
		if err != nil {
			return closers, err
		}
		closers = append(closers, u)
		go echoUDP(u)
	}
	return closers, nil
}

// echoTCP greets with the peer's address and then repeats what it hears.
func echoTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "hello %s\n", c.RemoteAddr().(*net.TCPAddr).IP)
			_, _ = io.Copy(c, c)
		}()
	}
}

func echoUDP(u net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		_, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = u.WriteTo(fmt.Appendf(nil, "hello %s\n", from.(*net.UDPAddr).IP), from)
	}
}

// inNS runs fn on a thread in the namespace at path.
func inNS(path string, fn func() error) error {
	return onThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

const (
	// patience is how long a packet that must not arrive is waited for.
	// Refusals come at once; only silence takes this long.
	patience = 300 * time.Millisecond
	// again is how long to wait before a datagram is sent once more.
	again = 8 * time.Second
	// long is how long a packet that must arrive is waited for on a busy machine.
	long = time.Minute
)

// dial connects from a namespace. The address must be a literal.
func dial(ns, network, address string, wait time.Duration) (c net.Conn, err error) {
	err = inNS(ns, func() error {
		d := net.Dialer{Timeout: wait}
		c, err = d.Dial(network, address)
		return err
	})
	return c, err
}

// greet tells what the server at address says to ns, or an error.
func greet(ns, network, ip string, wait time.Duration) (string, error) {
	port := "80"
	if network == "udp" {
		port = "9"
	}
	return greetAt(ns, network, net.JoinHostPort(ip, port), wait)
}

func greetAt(ns, network, address string, wait time.Duration) (string, error) {
	c, err := dial(ns, network, address, wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if network == "udp" {
		b, err := ask(c, []byte("?"), wait)
		return strings.TrimSpace(string(b)), err
	}
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

// ask sends a datagram until it is answered: a busy machine may lose one.
func ask(c net.Conn, q []byte, wait time.Duration) ([]byte, error) {
	buf := make([]byte, 2000)
	var n int
	var err error
	for end := time.Now().Add(wait); time.Now().Before(end); {
		if _, err = c.Write(q); err != nil {
			return nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(min(wait, again)))
		if n, err = c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return buf[:n], err
}

func reaches(t *testing.T, ns string, networks []string, ips ...string) {
	t.Helper()
	for _, n := range networks {
		for _, ip := range ips {
			if got, err := greet(ns, n, ip, long); err != nil {
				t.Errorf("%s to %s: got %q, %v; want an answer", n, ip, got, err)
			}
		}
	}
}

func fails(t *testing.T, ns string, networks []string, ips ...string) {
	t.Helper()
	for _, n := range networks {
		for _, ip := range ips {
			if got, err := greet(ns, n, ip, patience); err == nil {
				t.Errorf("%s to %s: got %q, want no answer", n, ip, got)
			}
		}
	}
}

func both() []string { return []string{"tcp", "udp"} }

// open opens a manager on the test host and destroys it at the end.
func open(t *testing.T, c Config) *Manager {
	t.Helper()
	if c.ID == "" {
		c.ID = "t1"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	m, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() {
		if err := m.Destroy(context.Background()); err != nil && engine.KindOf(err) != engine.KindConflict {
			t.Errorf("destroy: %v", err)
		}
	})
	return m
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(b)))
	return len(b), nil
}

func acquire(t *testing.T, m *Manager, p *engine.NetworkPolicy) Slot {
	t.Helper()
	s, err := m.Acquire(t.Context())
	must(t, err)
	if p != nil {
		must(t, m.Apply(t.Context(), s, *p))
	}
	must(t, networktest.Carries(s.NetNS, "eth0"))
	return s
}

func allowAll() *engine.NetworkPolicy { return &engine.NetworkPolicy{} }
func blockAll() *engine.NetworkPolicy { return &engine.NetworkPolicy{BlockAll: true} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addrOf(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	must(t, err)
	return a
}
