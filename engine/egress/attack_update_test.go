package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

// TestAttacksOnUpdates runs the attacks that hold on to what an earlier policy
// allowed.
func TestAttacksOnUpdates(t *testing.T) {
	f := newField(t)
	for i, a := range updateAttacks() {
		attacks.Add(t, f.try(300+i, a))
	}
}

func updateAttacks() []attack {
	mac := network.InsideMAC()
	// held runs before under an open policy, tightens it and runs after. The
	// ears forget what was allowed.
	held := func(to engine.NetworkPolicy, before func(*field, network.Slot) error, after func(f *field, s network.Slot, mark string) error) func(*field, string) error {
		return func(f *field, mark string) error {
			s := f.slot(engine.NetworkPolicy{})
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			if err := before(f, s); err != nil {
				return err
			}
			f.settle()
			if err := f.manager.Apply(f.t.Context(), s, to); err != nil {
				return err
			}
			f.settle()
			f.ears[0].forget()
			return after(f, s, mark)
		}
	}
	segments := func(port uint16, to engine.NetworkPolicy) func(*field, string) error {
		return func(f *field, mark string) error {
			var c net.Conn
			return held(to, func(f *field, s network.Slot) (err error) {
				c, err = connect(s, "tcp", fmt.Sprintf("%s:%d", evil4, port), wait)
				return err
			}, func(f *field, s network.Slot, mark string) error {
				defer c.Close()
				seq, ack, err := numbers(c)
				if err != nil {
					return err
				}
				from := uint16(c.LocalAddr().(*net.TCPAddr).Port)
				b := ip4(s, evil4, unix.IPPROTO_TCP, segment(s.Addr4, addr(evil4), from, port, seq, ack, flagACK|flagPSH, mark))
				return f.send(s, b, b, b)
			})(f, mark)
		}
	}
	flow := func(f *field, s network.Slot) error {
		return f.send(s, udp4(s, evil4, 9, "flow"), udp6(s, evil6, 9, "flow"), ip4(s, evil4, 1, icmp(8, 0, "flow")))
	}
	names, list := domains("good.example"), networks(good4+"/32")
	return []attack{
		{"update", "web-connection-names", "segments of a connection to a foreign web server go on after the policy became one of names, the sandbox deaf to resets", segments(443, names)},
		{"update", "web-connection-80", "the same on port 80", segments(80, names)},
		{"update", "web-connection-list", "the same after the policy became a list of networks", segments(443, list)},
		{"update", "connection-names", "segments of a connection on another port go on", segments(22, names)},
		{"update", "connection-block", "segments of a connection go on after all was blocked", segments(443, engine.NetworkPolicy{BlockAll: true})},
		{"update", "datagrams", "datagrams and echo of flows that were allowed", held(list, flow, func(f *field, s network.Slot, mark string) error {
			return f.send(s, udp4(s, evil4, 9, mark), udp4(s, evil4, 9, mark), udp6(s, evil6, 9, mark), ip4(s, evil4, 1, icmp(8, 0, mark)))
		})},
		{"update", "icmp-errors", "data in ICMP errors about flows that were allowed", held(list, flow, func(f *field, s network.Slot, mark string) error {
			q := packet4(addr(evil4), s.Addr4, unix.IPPROTO_UDP, 0, 0, nil, datagram(addr(evil4), s.Addr4, 9, 4000, mark))
			r := packet6(addr(evil6), s.Addr6, unix.IPPROTO_UDP, datagram(addr(evil6), s.Addr6, 9, 4000, mark))
			return f.send(s, ip4(s, evil4, 1, icmp(3, 1, string(q))), ip6(s, evil6, unix.IPPROTO_ICMPV6, icmp6(s.Addr6, evil6, 1, 4, string(r))))
		})},
		{"update", "held-fragments", "datagrams whose first fragments were sent in time are completed later", held(list, func(f *field, s network.Slot) error {
			d := datagram(s.Addr4, addr(evil4), 4000, 9, "12345678zq307leak")
			return f.send(s, ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(s.Addr4, addr(evil4), unix.IPPROTO_UDP, 90, 0x2000, nil, d[:16])))
		}, func(f *field, s network.Slot, mark string) error {
			return f.send(s, ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(s.Addr4, addr(evil4), unix.IPPROTO_UDP, 90, 2, nil, []byte(mark))))
		})},
		{"update", "pending-hello", "a TLS connection whose name is being resolved when the policy loses it", pending(443, string(hello("slow.example")), "slow.example")},
		{"update", "pending-request", "an HTTP request whose host is being resolved when the policy loses it", pending(80, "GET /slow-request HTTP/1.1\r\nHost: slow.example\r\n\r\n", "slow-request")},
		{"update", "spliced-connection", "data on a TLS connection that the proxy carries, after the policy lost its name", func(f *field, _ string) error {
			s := f.slot(domains("good.example"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			c, err := connect(s, "tcp", good4+":443", wait)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(wait))
			k := tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
			if err := k.Handshake(); err != nil {
				return err
			}
			must(f.t, f.manager.Apply(f.t.Context(), s, domains("a.cdn.example")))
			fmt.Fprintf(k, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n")
			if got, err := body(k); err == nil {
				return fmt.Errorf("%q", got)
			}
			return nil
		}},
		{"update", "moment", "frames sent without pause while the policy changes: none that was sent after a change returned gets out", func(f *field, mark string) error {
			s := f.slot(list)
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			p := newProber(f, s)
			defer p.stop()
			for range 10 {
				p.say("")
				f.settle()
				must(f.t, f.manager.Apply(f.t.Context(), s, engine.NetworkPolicy{}))
				p.say("while allowed")
				p.said()
				time.Sleep(3 * time.Millisecond)
				must(f.t, f.manager.Apply(f.t.Context(), s, list))
				p.say(mark)
				p.said()
				time.Sleep(10 * time.Millisecond)
			}
			p.say("")
			f.settle()
			stray := f.ears[0].heard(func(b []byte) bool { return bytes.Contains(b, []byte(mark)) })
			arrived := f.ears[0].heard(func(b []byte) bool { return bytes.Contains(b, []byte("while allowed")) }) != nil
			f.ears[0].forget() // what was allowed
			if stray != nil {
				return errors.New("frames arrived after the policy was applied")
			}
			if !arrived {
				return errors.New("nothing arrived while it was allowed, so nothing is proven")
			}
			return nil
		}},
		{"update", "reused-slot", "a sandbox in the place of another one uses that one's flows and names", func(f *field, mark string) error {
			s := f.slot(domains("good.example"))
			if _, _, err := lookup(s, "good.example", dnsmessage.TypeA); err != nil {
				return err
			}
			must(f.t, f.manager.Apply(f.t.Context(), s, engine.NetworkPolicy{}))
			must(f.t, flow(f, s))
			f.settle()
			f.ears[0].forget()
			must(f.t, f.manager.Release(f.t.Context(), s))
			for end, again := time.Now().Add(wait), false; !again; {
				n, err := f.manager.Acquire(f.t.Context())
				must(f.t, err)
				defer func() { _ = f.manager.Release(f.t.Context(), n) }()
				if again = n == s; !again && time.Now().After(end) {
					return errors.New("the slot does not come back")
				}
			}
			must(f.t, f.send(s, udp4(s, evil4, 9, mark)))
			must(f.t, f.manager.Apply(f.t.Context(), s, networks(good6+"/128")))
			must(f.t, f.send(s, udp4(s, evil4, 9, mark), udp6(s, evil6, 9, mark), ip4(s, evil4, 1, icmp(8, 0, mark)), tcp4(s, good4, 443, flagSYN, mark)))
			f.settle()
			if st, err := f.filter.Stats(s); err != nil || st.Flows != 0 || st.Denied == 0 {
				return fmt.Errorf("counters of the one before: %+v, %v", st, err)
			}
			return nil
		}},
	}
}

// numbers tells the next sequence numbers of a connection.
func numbers(c net.Conn) (seq, ack uint32, err error) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	const repairQueue, receiving, sending = 20, 1, 2
	err2 := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return
		}
		for q, to := range map[int]*uint32{receiving: &ack, sending: &seq} {
			if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, repairQueue, q); err != nil {
				return
			}
			var n int
			if n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ); err != nil {
				return
			}
			*to = uint32(n)
		}
	})
	return seq, ack, errors.Join(err, err2)
}

// pending makes a request by a name that resolves only after the policy has
// changed. sign is what of the request would arrive.
func pending(port uint16, text, sign string) func(*field, string) error {
	return func(f *field, _ string) error {
		f.hold()
		f.asked.forget()
		s := f.slot(domains("slow.example"))
		defer func() { _ = f.manager.Release(f.t.Context(), s) }()
		c, err := connect(s, "tcp", fmt.Sprintf("%s:%d", evil4, port), wait)
		if err != nil {
			f.release()
			return err
		}
		defer c.Close()
		_, _ = c.Write([]byte(text))
		for end := time.Now().Add(wait); !f.asked.has("slow.example"); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				f.release()
				return errors.New("the name was not asked for, so nothing is proven")
			}
		}
		must(f.t, f.manager.Apply(f.t.Context(), s, domains("good.example")))
		f.release()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, _ = c.Read(make([]byte, 100))
		time.Sleep(patience / 4)
		return f.found(sign)
	}
}

// prober sends datagrams and segments to the attacker's addresses without
// pause.
type prober struct {
	mu     sync.Mutex
	text   string // empty: silent
	rounds int    // of frames since text was set
	cancel context.CancelFunc
	done   chan struct{}
}

func newProber(f *field, s network.Slot) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = networktest.In(s.NetNS, func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			eth, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			to := &unix.SockaddrLinklayer{Ifindex: eth.Index, Halen: 6}
			for ctx.Err() == nil {
				p.mu.Lock()
				if p.text != "" {
					for _, b := range [][]byte{udp4(s, evil4, 9, p.text), udp6(s, evil6, 9, p.text), tcp4(s, evil4, 443, flagSYN, p.text), tcp4(s, evil4, 22, flagACK, p.text)} {
						_ = unix.Sendto(fd, b, 0, to) // full queues lose frames
					}
					p.rounds++
				}
				p.mu.Unlock()
				time.Sleep(200 * time.Microsecond)
			}
			return nil
		})
	}()
	return p
}

// say changes what is sent from the next frame on.
func (p *prober) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.rounds = text, 0
}

// said waits until what is to be said was sent: on a busy machine a prober may
// not come to it for a while.
func (p *prober) said() {
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		rounds := p.rounds
		p.mu.Unlock()
		if rounds > 0 {
			return
		}
	}
}

func (p *prober) stop() {
	p.cancel()
	<-p.done
}

// TestAttacksOnLifecycle attacks while sandboxes start, and while the server
// dies and comes back.
func TestAttacksOnLifecycle(t *testing.T) {
	f := newField(t)
	for i, a := range []attack{
		{"lifecycle", "start", "frames without pause from the moment the network exists, through the first policy", func(f *field, mark string) error {
			for range 5 {
				s, err := f.manager.Acquire(f.t.Context())
				must(f.t, err)
				p := newProber(f, s)
				p.say(mark)
				p.said()
				time.Sleep(2 * time.Millisecond)
				must(f.t, f.manager.Apply(f.t.Context(), s, networks(good4+"/32")))
				time.Sleep(5 * time.Millisecond)
				p.stop()
				must(f.t, f.manager.Release(f.t.Context(), s))
			}
			return nil
		}},
		{"lifecycle", "warm-claim", "frames without pause from a member of the warm pool, through the moment it becomes somebody's sandbox", func(f *field, mark string) error {
			for _, p := range []engine.NetworkPolicy{networks(good4 + "/32"), domains("good.example"), {BlockAll: true}} {
				s, err := f.manager.Acquire(f.t.Context())
				must(f.t, err)
				claimed := newProber(f, s)
				claimed.say(mark)
				claimed.said()
				time.Sleep(5 * time.Millisecond) // it waits in the pool, already started
				must(f.t, f.manager.Apply(f.t.Context(), s, p))
				time.Sleep(5 * time.Millisecond)
				claimed.stop()
				must(f.t, f.manager.Release(f.t.Context(), s))
			}
			return nil
		}},
		{"lifecycle", "resume", "frames without pause from a network that is taken anew after a stop, under flows that the sandbox had before it", func(f *field, mark string) error {
			s := f.slot(engine.NetworkPolicy{})
			must(f.t, f.send(s, udp4(s, evil4, 9, "flow"), udp6(s, evil6, 9, "flow"), tcp4(s, evil4, 22, flagSYN, "")))
			f.settle()
			must(f.t, f.manager.Release(f.t.Context(), s))
			f.settle()
			f.ears[0].forget()
			for range 3 {
				s, err := f.manager.Acquire(f.t.Context())
				must(f.t, err)
				p := newProber(f, s)
				p.say(mark)
				must(f.t, f.manager.Apply(f.t.Context(), s, networks(good4+"/32")))
				p.said()
				time.Sleep(5 * time.Millisecond)
				p.stop()
				must(f.t, f.manager.Release(f.t.Context(), s))
			}
			return nil
		}},
		{"lifecycle", "fork", "a fork sends from its first moment, in its own name and under the flows and address of its parent", func(f *field, mark string) error {
			parent := f.slot(engine.NetworkPolicy{})
			defer func() { _ = f.manager.Release(f.t.Context(), parent) }()
			must(f.t, f.send(parent, udp4(parent, evil4, 9, "flow"), udp6(parent, evil6, 9, "flow")))
			f.settle()
			f.ears[0].forget()
			child, err := f.manager.Acquire(f.t.Context())
			must(f.t, err)
			defer func() { _ = f.manager.Release(f.t.Context(), child) }()
			p := newProber(f, child)
			p.say(mark)
			must(f.t, f.send(child, udp4(parent, evil4, 9, mark), udp6(parent, evil6, 9, mark)))
			must(f.t, f.manager.Apply(f.t.Context(), child, networks(good4+"/32")))
			must(f.t, f.send(child, udp4(parent, evil4, 9, mark), udp6(parent, evil6, 9, mark)))
			p.said()
			time.Sleep(5 * time.Millisecond)
			p.stop()
			return nil
		}},
		{"lifecycle", "server-restarts", "frames without pause while the server is killed, adopts its sandboxes and applies their policies again, three times", func(f *field, mark string) error {
			kept := map[network.Slot]engine.NetworkPolicy{
				f.list: networks(good4+"/32", good6+"/128"), f.name: domains("good.example"), f.deny: {BlockAll: true}, f.open: {}, f.victim: {},
			}
			for _, s := range []network.Slot{f.list, f.name, f.deny} {
				p := newProber(f, s)
				defer p.stop()
				p.say(mark)
			}
			for range 3 {
				f.told.stop()
				f.close()
				time.Sleep(20 * time.Millisecond)
				if got, err := get(f.name, "good.example", good4+":443"); err == nil {
					return fmt.Errorf("by name, without a server: %q", got)
				}
				if q, err := f.question(f.name, buildQuestion(9, mark+".evil.example", dnsmessage.TypeA)); err == nil {
					return fmt.Errorf("a name, without a server: %x", q)
				}
				f.world.open()
				f.told.watch(f.t, f.filter)
				var slots []network.Slot
				for s := range kept {
					slots = append(slots, s)
				}
				must(f.t, f.manager.Recover(f.t.Context(), slots))
				for s, p := range kept {
					must(f.t, f.manager.Apply(f.t.Context(), s, p))
				}
			}
			if who, err := greets(f.list, good4+":9000", wait); err != nil || who != "good" {
				return fmt.Errorf("what is allowed does not work after it: %q, %v", who, err)
			}
			return nil
		}},
		{"lifecycle", "resolver-dead", "names while the host's resolver does not answer", func(f *field, mark string) error {
			f.hold()
			defer f.release()
			s := f.slot(domains("slow.example"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			if _, err := f.question(s, buildQuestion(9, "slow.example", dnsmessage.TypeA)); err == nil {
				return errors.New("it was answered")
			}
			return f.send(s, udp4(s, evil4, 53, mark), udp4(s, good4, 53, mark), tcp4(s, good4, 22, flagSYN, mark))
		}},
		{"lifecycle", "lost-pins", "the programs are taken from a device while the sandbox sends to what was allowed", func(f *field, mark string) error {
			s := f.slot(networks(good4 + "/32"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			if who, err := greets(s, good4+":22", wait); err != nil || who != "good" {
				return fmt.Errorf("before: %q, %v", who, err)
			}
			f.unpin(s)
			if who, err := greets(s, good4+":22", patience); err == nil {
				return fmt.Errorf("without programs: %q", who)
			}
			if err := f.send(s, udp4(s, evil4, 9, mark), udp4(s, good4, 9, mark), tcp4(s, evil4, 443, flagSYN, mark), udp6(s, good6, 9, mark), udp4(s, f.victim.Addr4.String(), 9, mark), udp4(s, metadata4, 9, mark)); err != nil {
				return err
			}
			for end := time.Now().Add(wait); ; {
				who, err := greets(s, good4+":22", patience)
				if who == "good" {
					break
				}
				if time.Now().After(end) {
					return fmt.Errorf("the programs do not come back: %q, %w", who, errOr(err))
				}
			}
			return f.reaches(s, "tcp", evil4+":22", mark)
		}},
	} {
		attacks.Add(t, f.try(400+i, a))
	}
}

// TestHostileListOfNames is about a list whose name grows beyond what a
// question can hold when it is written in ASCII: the relay must say no.
func TestHostileListOfNames(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("ü.", 60) + "example"
	p := domains(long)
	if _, err := FromNetwork(p); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("a name of more than 253 bytes in ASCII is taken: %v", err)
	}
	s := w.slot(domains("good.example"))
	f := &field{world: w}
	if a, err := f.question(s, rawQuestion(long)); err == nil && a[3]&0xf == 0 {
		t.Errorf("it was answered: %x", a)
	}
	if _, _, err := lookup(s, "good.example", dnsmessage.TypeA); err != nil {
		t.Errorf("the relay is gone: %v", err)
	}
}
