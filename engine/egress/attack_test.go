package egress

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	results "github.com/atoll-sh/atoll/engine/enginetest/attack"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

// attack is one way by which a program that is root in its sandbox's network
// might get out. run tries it and returns what it got, if anything; besides,
// nothing of it may arrive in the internet or at another sandbox.
type attack struct {
	group, name, story string
	run                func(f *field, mark string) error
}

// field is where the attacks of one test take place: a world with a sandbox of
// each kind of policy, and ears behind the host's uplink and in the victim.
type field struct {
	*world
	deny, list, name, open, victim network.Slot
	ears                           []*ear
	told                           *told
	fences                         int
}

// What the attackers are after. Their own policies allow good.example, the
// good addresses, or all of the internet.
const (
	evil6      = "2001:db8:2::9"
	metadata4  = "169.254.169.254"
	private4   = "10.66.0.1"
	serverPort = "7777" // of the host, on every address
)

func newField(t *testing.T) *field {
	t.Helper()
	f := &field{world: newWorld(t)}
	f.told = watchEvents(t, f.filter)
	f.deny = f.slot(engine.NetworkPolicy{BlockAll: true})
	f.list = f.slot(networks(good4+"/32", good6+"/128"))
	f.name = f.slot(domains("good.example", "*.cdn.example", "meta.example", "host.example", "rebind.example", "half.example", "alias.example", "private-alias.example", "flip.example"))
	f.open = f.slot(engine.NetworkPolicy{})
	f.victim = f.slot(engine.NetworkPolicy{})
	f.listen()
	return f
}

func (f *field) listen() {
	f.ears = []*ear{listenOn(f.t, f.net.NS, "the internet"), listenOn(f.t, f.victim.NetNS, "another sandbox")}
}

// ear hears the frames that arrive in a namespace.
type ear struct {
	where  string
	mu     sync.Mutex
	frames [][]byte
}

func listenOn(t testing.TB, ns, where string) *ear {
	t.Helper()
	e := &ear{where: where}
	var fd int
	must(t, networktest.In(ns, func() (err error) {
		fd, err = packetSocket()
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		}
		if err == nil {
			tv := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		}
		return err
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for ctx.Err() == nil {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			if !ok || ll.Pkttype == unix.PACKET_OUTGOING || ll.Hatype == unix.ARPHRD_LOOPBACK {
				continue
			}
			e.mu.Lock()
			e.frames = append(e.frames, bytes.Clone(buf[:n]))
			e.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		unix.Close(fd)
	})
	return e
}

// heard returns the first frame that leaked says yes to.
func (e *ear) heard(leaked func([]byte) bool) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.frames {
		if leaked(b) {
			return b
		}
	}
	return nil
}

func (e *ear) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frames = nil
}

// expected are the destinations that the host, the proxy and allowed sandboxes
// send to. A frame for any other address is a leak.
var expected = map[netip.Addr]bool{
	netip.MustParseAddr(good4): true, netip.MustParseAddr(good6): true,
	netip.MustParseAddr(proxy4): true, netip.MustParseAddr("192.0.2.66"): true, netip.MustParseAddr("2001:db8:ffff::2"): true,
}

// escaped tells whether a frame behind the uplink ought not to be there. The
// host itself resets, without data, what no sandbox has any more.
func escaped(b []byte, mark string) bool {
	if bytes.Contains(b, []byte(mark)) {
		return true
	}
	if len(b) < 34 || len(b) == 54 && b[23] == unix.IPPROTO_TCP && b[47]&4 != 0 {
		return false
	}
	switch to := destinationOf(b); {
	case !to.IsValid(): // ARP between the two routers
		return uint16(b[12])<<8|uint16(b[13]) != unix.ETH_P_ARP
	default:
		return !expected[to] && !to.IsLinkLocalUnicast() && !to.IsMulticast()
	}
}

func destinationOf(b []byte) netip.Addr {
	switch uint16(b[12])<<8 | uint16(b[13]) {
	case unix.ETH_P_IP:
		return netip.AddrFrom4([4]byte(b[30:34]))
	case unix.ETH_P_IPV6:
		if len(b) >= 54 {
			return netip.AddrFrom16([16]byte(b[38:54]))
		}
	}
	return netip.Addr{}
}

// settle waits until what was sent so far has arrived, if it ever will: frames
// of an open sandbox, sent later over the same devices, have.
func (f *field) settle() {
	f.t.Helper()
	if f.open.Device == "" {
		time.Sleep(patience)
		return
	}
	for range 2 {
		f.fences++
		mark := fmt.Sprintf("fence%06d.", f.fences)
		for end := time.Now().Add(wait); ; {
			must(f.t, f.send(f.open, udp4(f.open, good4, 4, mark)))
			time.Sleep(10 * time.Millisecond)
			if f.ears[0].heard(func(b []byte) bool { return bytes.Contains(b, []byte(mark)) }) != nil {
				break
			}
			if time.Now().After(end) {
				f.t.Fatal("what an open sandbox sends does not arrive, so nothing is proven")
			}
		}
	}
}

// try runs one attack and says whether it was withstood.
func (f *field) try(i int, a attack) results.Verdict {
	f.t.Helper()
	for _, e := range f.ears {
		e.forget()
	}
	f.told.mark(f.t.Context())
	mark := fmt.Sprintf("zq%03dleak", i)
	begin := time.Now()
	err := a.run(f, mark)
	f.t.Logf("%s/%s took %v", a.group, a.name, time.Since(begin).Round(time.Millisecond))
	f.settle()
	v := results.Verdict{Name: a.name, Group: a.group, Class: "container", Blocked: err == nil, Detail: a.story, Event: f.told.of(f.t.Context(), a.group+"/"+a.name)}
	if v.Event == "" {
		f.t.Errorf("%s/%s: nothing was recorded of it", a.group, a.name)
	}
	if err != nil {
		v.Detail = "LEAK: " + err.Error()
	}
	for _, e := range f.ears {
		leaked := func(b []byte) bool { return bytes.Contains(b, []byte(mark)) }
		if e.where == "the internet" {
			leaked = func(b []byte) bool { return escaped(b, mark) }
		}
		if b := e.heard(leaked); b != nil {
			v.Blocked, v.Detail = false, fmt.Sprintf("LEAK: arrived at %s: %.120x", e.where, b)
		}
	}
	return v
}

var attacks results.Verdicts // filled by the tests, written when all are over

// TestAttacks runs every attack that leaves the sandboxes as they are, all in
// one world.
func TestAttacks(t *testing.T) {
	f := newField(t)
	f.controls()
	seen := map[string]bool{}
	i := 0
	for _, group := range [][]attack{
		policyAttacks(), dnsAttacks(), resolverAttacks(), tlsAttacks(), httpAttacks(), ipv6Attacks(), rawAttacks(),
		fragmentAttacks(), metadataAttacks(), hostAttacks(), sandboxAttacks(), nameAttacks(),
	} {
		for _, a := range group {
			if seen[a.group+"/"+a.name] {
				t.Errorf("two attacks are called %s/%s", a.group, a.name)
			}
			seen[a.group+"/"+a.name] = true
			i++
			attacks.Add(t, f.try(i, a))
		}
	}
}

// controls shows that the probes that must fail below work where they may: an
// attack is worth something only then.
func (f *field) controls() {
	f.t.Helper()
	for _, s := range []network.Slot{f.list, f.open} {
		for _, a := range []string{good4 + ":9000", "[" + good6 + "]:9000"} {
			if who, err := greets(s, a, wait); err != nil || who != "good" {
				f.t.Errorf("control %s: %q, %v", a, who, err)
			}
		}
	}
	if got, err := get(f.name, "good.example", good4+":443"); err != nil || !strings.HasPrefix(got, "200 good") {
		f.t.Errorf("control, TLS by name: %q, %v", got, err)
	}
	for name, frame := range map[string]string{
		"UDP": string(udp4(f.list, good4, 4, "control")), "UDP over IPv6": string(udp6(f.list, good6, 4, "control")),
		"echo": string(ip4(f.list, good4, 1, icmp(8, 0, "control"))), "echo over IPv6": string(ip6(f.list, good6, 58, icmp6(f.list.Addr6, good6, 128, 0, "control"))),
	} {
		f.ears[0].forget()
		arrived := false
		for end := time.Now().Add(wait); !arrived && time.Now().Before(end); {
			must(f.t, f.send(f.list, []byte(frame)))
			time.Sleep(10 * time.Millisecond)
			arrived = f.ears[0].heard(func(b []byte) bool { return bytes.Contains(b, []byte("control")) }) != nil
		}
		if !arrived {
			f.t.Errorf("control, %s by AF_PACKET: did not arrive", name)
		}
	}
}

// reaches reports a connection that ought to fail. For protocols without
// connections, what counts is what arrives.
func (f *field) reaches(s network.Slot, nw, address, mark string) error {
	c, err := connect(s, nw, address, patience)
	if err != nil {
		return nil
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = c.Write([]byte(mark))
	if strings.HasPrefix(nw, "udp") {
		return nil
	}
	if b := make([]byte, 200); s == f.name { // the proxy accepts, so look who answers
		if n, _ := c.Read(b); bytes.Contains(b[:n], []byte("evil")) {
			return fmt.Errorf("%s answered %q", address, b[:n])
		}
		return nil
	}
	return fmt.Errorf("connected to %s", address)
}

// frames sends what an attacker with a packet socket would.
func frames(pick func(*field) network.Slot, build func(s network.Slot, mark string) [][]byte) func(*field, string) error {
	return func(f *field, mark string) error {
		s := pick(f)
		return f.send(s, build(s, mark)...)
	}
}

// every sends the frames from all kinds of sandboxes.
func every(build func(s network.Slot, mark string) [][]byte) func(*field, string) error {
	return func(f *field, mark string) error {
		for _, s := range []network.Slot{f.deny, f.list, f.name} {
			if err := f.send(s, build(s, mark)...); err != nil {
				return err
			}
		}
		return nil
	}
}

func theList(f *field) network.Slot { return f.list }
func theName(f *field) network.Slot { return f.name }
func theOpen(f *field) network.Slot { return f.open }
