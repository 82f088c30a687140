package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/network/networktest"
)

// The far side is a namespace that plays the internet. Of its addresses, all
// documentation ranges, sandboxes may reach allowed4 alone.
const (
	farHost4, farGate4 = "203.0.113.201", "203.0.113.202" // of the link
	farHost6, farGate6 = "2001:db8:cafe::1", "2001:db8:cafe::2"
	allowed4           = "203.0.113.210"
	sometimes4         = "203.0.113.211" // that policies open and close
	denied4, denied6   = "203.0.113.213", "2001:db8:beef::9"
)

type farSide struct {
	ns    string
	bytes atomic.Int64 // got by the server at allowed4
	conns atomic.Int64 // accepted there
	asked atomic.Int64 // questions that its name server got
}

// newFarSide makes it, with an echo server and a name server at allowed4. It
// counts the packets that arrive for any other address.
func newFarSide(t *testing.T) *farSide {
	t.Helper()
	name := fmt.Sprintf("atollfar%d", os.Getpid())
	link := fmt.Sprintf("far%d", os.Getpid())
	f := &farSide{ns: "/run/netns/" + name}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	run("ip", "netns", "add", name)
	t.Cleanup(func() { run("ip", "netns", "del", name) })
	run("ip", "link", "add", link, "type", "veth", "peer", "name", "far0", "netns", name)
	t.Cleanup(func() { run("ip", "link", "del", link) })
	for _, line := range []string{
		"addr add " + farHost4 + "/30 dev " + link, "addr add " + farHost6 + "/64 dev " + link + " nodad", "link set " + link + " up",
		"-n " + name + " addr add " + farGate4 + "/30 dev far0", "-n " + name + " addr add " + farGate6 + "/64 dev far0 nodad",
		"-n " + name + " link set lo up", "-n " + name + " link set far0 up",
		"-n " + name + " addr add " + allowed4 + "/32 dev lo", "-n " + name + " addr add " + sometimes4 + "/32 dev lo",
		"-n " + name + " addr add " + denied4 + "/32 dev lo", "-n " + name + " addr add " + denied6 + "/128 dev lo nodad",
		"route add 203.0.113.208/29 via " + farGate4, "-6 route add 2001:db8:beef::/64 via " + farGate6,
	} {
		run(append([]string{"ip"}, strings.Fields(line)...)...)
	}
	for _, line := range []string{
		"add table inet far", "add counter inet far strays", "add chain inet far pre { type filter hook prerouting priority raw; }",
		"add rule inet far pre iifname far0 ip daddr != { " + allowed4 + ", " + sometimes4 + ", " + farGate4 + ", 224.0.0.0/4 } counter name strays",
		"add rule inet far pre iifname far0 ip6 daddr 2001:db8:beef::/64 counter name strays",
	} {
		run("ip", "netns", "exec", name, "nft", line)
	}
	if err := networktest.In(f.ns, func() error { return f.serve(t) }); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *farSide) serve(t *testing.T) error {
	l, err := net.Listen("tcp", allowed4+":9000")
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.conns.Add(1)
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, io.TeeReader(c, counter{&f.bytes}))
			}()
		}
	}()
	u, err := net.ListenPacket("udp", allowed4+":53")
	if err != nil {
		return err
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		for buf := make([]byte, 2000); ; {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			f.asked.Add(1)
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(allowed4).As4()},
				}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = u.WriteTo(b, from)
			}
		}
	}()
	return nil
}

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

var packets = regexp.MustCompile(`packets (\d+)`)

// strays is how many packets have arrived that no sandbox may send.
func (f *farSide) strays(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", strings.TrimPrefix(f.ns, "/run/netns/"), "nft", "list counter inet far strays").CombinedOutput()
	m := packets.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("read the counter: %v\n%s", err, out)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fence sends from the host to denied4, and returns how many packets had
// arrived before. What sandboxes sent earlier took the same way.
func (f *farSide) fence(t *testing.T) int {
	t.Helper()
	before := f.strays(t)
	c, err := net.Dial("udp", denied4+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("fence")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a packet of the host arrives", time.Minute, true, func() bool { return f.strays(t) > before })
	return before
}

// prober runs in the sandbox: one connection to where it may go, and without
// pause tries of TCP and UDP to where it may not.
const prober = `
import os, socket, sys, threading, time
allowed, denied4, denied6 = sys.argv[1:]
done = {'tcp': 0, 'udp': 0, 'udp6': 0}
def keep():
    s = socket.create_connection((allowed, 9000))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        s.sendall(b'x')
        if not s.recv(10): os._exit(3)
        time.sleep(.003)
def udp(kind, family, to):
    s = socket.socket(family, socket.SOCK_DGRAM)
    ports, n = (9, 53, 443, 8853), 0
    while True:
        try: s.sendto(b'stray', (to, ports[n % 4]))
        except OSError: pass
        n += 1
        done[kind] += 1
        if n % 4 == 0: time.sleep(.001)
def tcp():
    n = 0
    while True:
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((denied4, (22, 80, 443, 9000)[n % 4]))
        n += 1
        done['tcp'] += 1
        time.sleep(.001)
        s.close()
for f, a in ((keep, ()), (udp, ('udp', socket.AF_INET, denied4)), (udp, ('udp6', socket.AF_INET6, denied6)), (tcp, ())):
    threading.Thread(target=f, args=a, daemon=True).start()
while True:
    time.sleep(.2)
    with open('/tmp/done.new', 'w') as f: f.write(' '.join(str(v) for v in done.values()))
    os.rename('/tmp/done.new', '/tmp/done')
`

// TestMachineProber kills the server again and again, some times while it
// starts, and changes the policy in between, while processes in a sandbox, and
// somebody with every right in its network, try without pause what its policy
// denies. No packet of that may arrive; a connection that the policy allows must
// go on; what needs the server must be refused meanwhile.
func TestMachineProber(t *testing.T) {
	t.Parallel()
	f := newFarSide(t)
	m := newMachineWith(t, []string{"ATOLL_RESOLVERS=" + allowed4 + ":53"}, noPool...)
	policy := map[string]any{"networkAllowList": allowed4 + "/32", "domainAllowList": "allowed.example"}
	sb := m.create(policy)
	base := f.fence(t) + 1 // the host's own
	m.sh(sb.ID, "echo "+base64.StdEncoding.EncodeToString([]byte(prober))+" | base64 -d >/tmp/prober.py")
	m.sh(sb.ID, fmt.Sprintf("nohup python3 /tmp/prober.py %s %s %s >/tmp/prober.log 2>&1 &", allowed4, denied4, denied6))
	pids := cgroupPIDs(m)
	if len(pids) == 0 {
		t.Fatal("the sandbox has no processes")
	}
	ns := "/proc/" + pids[0] + "/ns/net"
	frames := probeByFrames(t, ns)

	flows := func(story string) {
		t.Helper()
		before := f.bytes.Load()
		eventually(t, story+": the allowed connection goes on", time.Minute, true, func() bool { return f.bytes.Load() > before+20 })
	}
	resolves := func() bool { return asks(t, ns, "allowed.example") }
	flows("at first")
	eventually(t, "an allowed name resolves", time.Minute, true, resolves)

	for round := range 3 {
		story := fmt.Sprintf("round %d", round)
		m.kill()
		flows(story + ", without a server")
		if resolves() {
			t.Errorf("%s: a name resolves without a server", story)
		}
		if c, err := dialIn(ns, denied4+":443"); err == nil {
			c.Close()
			t.Errorf("%s: a connection by name stands without a server", story)
		}
		for _, after := range []time.Duration{5, 40, 120, 300, 700} {
			m.launch()
			time.Sleep(after * time.Millisecond) // any instant will do
			m.kill()
		}
		m.start()
		flows(story + ", adopted")
		for _, list := range []string{allowed4 + "/32," + sometimes4 + "/32", allowed4 + "/32"} {
			policy["networkAllowList"] = list
			m.must("POST", "/api/sandbox/"+sb.ID+"/network-settings", policy, nil)
			flows(story + ", with another policy")
		}
		eventually(t, story+": an allowed name resolves again", time.Minute, true, resolves)
		if n := f.fence(t) - base; n != 0 {
			t.Fatalf("%s: %d packets got out", story, n)
		}
		base++
	}
	if n := f.conns.Load(); n != 1 {
		t.Errorf("the sandbox connected %d times, want once: its connection was cut", n)
	}
	_, out := m.sh(sb.ID, "cat /tmp/done; cat /tmp/prober.log >&2")
	tried := strings.Fields(out)
	if len(tried) < 3 {
		t.Fatalf("the probers did nothing: %q", out)
	}
	for i, kind := range []string{"tcp", "udp", "udp6"} {
		if n, err := strconv.Atoi(tried[i]); err != nil || n < 1000 {
			t.Errorf("only %s probes by %s", tried[i], kind)
		}
	}
	if n := frames.Load(); n < 1000 {
		t.Errorf("only %d frames", n)
	}
	t.Logf("tried in vain: tcp, udp, udp6 %s; icmp and frames %d; the allowed connection carried %d bytes", strings.Join(tried[:3], ", "), frames.Load(), f.bytes.Load())
}

// probeByFrames sends echo requests from a raw socket, and frames of its own,
// from the sandbox's network, and counts them.
func probeByFrames(t *testing.T, ns string) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	var raw, packet int
	var device *net.Interface
	var own net.IP
	err := networktest.In(ns, func() (err error) {
		if raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); err != nil {
			return err
		}
		if packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		if device, err = net.InterfaceByName("eth0"); err != nil {
			return err
		}
		addrs, err := device.Addrs()
		for _, a := range addrs {
			if ip := a.(*net.IPNet).IP.To4(); ip != nil {
				own = ip
			}
		}
		return err
	})
	if err != nil || own == nil {
		t.Fatalf("look into the sandbox's network: %v, address %v", err, own)
	}
	to := unix.SockaddrInet4{Addr: netip.MustParseAddr(denied4).As4()}
	echo := []byte{8, 0, 0xf7, 0xfe, 0, 1, 0, 0}
	frame := udpFrame(device.HardwareAddr, own, netip.MustParseAddr(denied4))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = unix.Sendto(raw, echo, 0, &to)
			_ = unix.Sendto(packet, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index, Halen: 6})
			if n.Add(2)%8 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		unix.Close(raw)
		unix.Close(packet)
	})
	return &n
}

// udpFrame is a datagram of the sandbox, in a frame to whoever is on the link.
func udpFrame(mac net.HardwareAddr, from net.IP, to netip.Addr) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
	b = append(b, 8, 0, 0x45, 0, 0, 33, 0, 1, 0, 0, 64, 17, 0, 0)
	b = append(append(b, from...), to.AsSlice()...)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum&0xffff + sum>>16
	b[24], b[25] = ^byte(sum>>8), ^byte(sum)
	return append(b, 0x9c, 0x40, 0, 9, 0, 13, 0, 0, 's', 't', 'r', 'a', 'y')
}

// dialIn connects from a network, and is refused or not within a second.
func dialIn(ns, address string) (c net.Conn, err error) {
	err = networktest.In(ns, func() error {
		d := net.Dialer{Timeout: time.Second}
		c, err = d.Dial("tcp", address)
		return err
	})
	return c, err
}

// asks tells whether a name has an address to a sandbox.
func asks(t *testing.T, ns, name string) bool {
	t.Helper()
	var got bool
	err := networktest.In(ns, func() error {
		routes, err := os.ReadFile("/proc/thread-self/net/route")
		if err != nil {
			return err
		}
		c, err := net.Dial("udp", net.JoinHostPort(defaultRoute(string(routes)), "53"))
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		q, err := m.Pack()
		if err != nil {
			return err
		}
		if _, err := c.Write(q); err != nil {
			return err
		}
		buf := make([]byte, 2000)
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err != nil {
			return err
		}
		got = m.Unpack(buf[:n]) == nil && len(m.Answers) > 0
		return nil
	})
	if err != nil {
		t.Fatalf("ask for %s: %v", name, err)
	}
	return got
}

// defaultRoute reads the next hop of the route of /proc/net/route.
func defaultRoute(routes string) string {
	for line := range strings.Lines(routes) {
		f := strings.Fields(line)
		if len(f) > 2 && f[1] == "00000000" {
			if v, err := strconv.ParseUint(f[2], 16, 32); err == nil {
				return netip.AddrFrom4([4]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}).String()
			}
		}
	}
	return ""
}
