package network

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ask4 is a question for the A record of a.test.
func ask4(id uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	return append(b, 1, 'a', 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1)
}

// nameServer answers every question with its last octets and an extra record.
func nameServer(t *testing.T) netip.AddrPort {
	t.Helper()
	reply := func(q []byte) []byte {
		a := append([]byte(nil), q...)
		a[2] |= flagResponse
		a[7] = 1
		return append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7)
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	t.Cleanup(func() { u.Close() })
	at := u.LocalAddr().(*net.UDPAddr).AddrPort()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			// First an answer to something else, which must not be believed.
			_, _ = u.WriteTo(withID(reply(buf[:n]), binary.BigEndian.Uint16(buf)+1), from)
			_, _ = u.WriteTo(reply(buf[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if q, err := readFrame(c); err == nil {
					_ = writeFrame(c, reply(q))
				}
			}()
		}
	}()
	return at
}

// resolve asks the relay from inside a slot.
func resolve(s Slot, network string, server netip.Addr, q []byte) ([]byte, error) {
	c, err := dial(s.NetNS, network, netip.AddrPortFrom(server, dnsPort).String(), long)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(long))
	if network == "tcp" {
		if err := writeFrame(c, q); err != nil {
			return nil, err
		}
		return readFrame(c)
	}
	return ask(c, q, long)
}

func TestRelayAnswersOpenSlots(t *testing.T) {
	m := open(t, Config{Index: -1, Resolvers: []netip.AddrPort{nameServer(t)}})
	s, blocked := acquire(t, m, allowAll()), acquire(t, m, nil)
	for _, network := range both() {
		for _, f := range s.families() {
			a, err := resolve(s, network, f.gateway, ask4(7))
			if err != nil || binary.BigEndian.Uint16(a) != 7 || !bytes.HasSuffix(a, []byte{198, 51, 100, 7}) {
				t.Errorf("%s to %s: got %x, %v; want the record", network, f.gateway, a, err)
			}
			if a, err := resolve(blocked, network, f.gateway, ask4(7)); err == nil {
				t.Errorf("%s to %s from a blocked slot: got %x", network, f.gateway, a)
			}
		}
	}
	m.Close()
	if a, err := resolve(s, "udp", s.Gateway4, ask4(7)); err == nil {
		t.Errorf("with the server down: got %x", a)
	}
	open(t, Config{Index: m.Index()})
}

func TestRelayMovesWhenPort53IsTaken(t *testing.T) {
	other, err := net.ListenUDP("udp", &net.UDPAddr{Port: dnsPort})
	must(t, err)
	defer other.Close()
	m := open(t, Config{Index: -1, Resolvers: []netip.AddrPort{nameServer(t)}})
	if m.relay.port == dnsPort {
		t.Fatal("the port is not taken, so the test shows nothing")
	}
	s := acquire(t, m, allowAll())
	for _, network := range both() {
		for _, f := range s.families() {
			if a, err := resolve(s, network, f.gateway, ask4(7)); err != nil || !bytes.HasSuffix(a, []byte{198, 51, 100, 7}) {
				t.Errorf("%s to %s: got %x, %v; want the record", network, f.gateway, a, err)
			}
		}
	}
}

func TestRelayFailsWhenResolversDo(t *testing.T) {
	dead, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	at := dead.LocalAddr().(*net.UDPAddr).AddrPort()
	dead.Close()
	m := open(t, Config{Index: -1, Resolvers: []netip.AddrPort{at}})
	s := acquire(t, m, allowAll())
	a, err := resolve(s, "udp", s.Gateway4, ask4(9))
	if err != nil || a[3]&0xf != rcodeServfail {
		t.Errorf("got %x, %v; want a server failure", a, err)
	}
}

func TestQuestionsThatAreNone(t *testing.T) {
	good := ask4(1)
	for what, change := range map[string]func([]byte) []byte{
		"an answer":     func(b []byte) []byte { b[2] |= flagResponse; return b },
		"an update":     func(b []byte) []byte { b[2] |= 5 << 3; return b },
		"two questions": func(b []byte) []byte { b[5] = 2; return b },
		"a pointer":     func(b []byte) []byte { b[headerSize] = 0xc0; return b },
		"cut short":     func(b []byte) []byte { return b[:len(b)-2] },
		"only a header": func(b []byte) []byte { return b[:headerSize] },
		"nothing":       func([]byte) []byte { return nil },
	} {
		if isQuestion(change(bytes.Clone(good))) {
			t.Errorf("%s passes as a question", what)
		}
	}
	if !isQuestion(good) {
		t.Error("a question does not pass")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(ask4(1), ask4(2))
	f.Fuzz(func(_ *testing.T, a, b []byte) {
		if isQuestion(a) {
			failure(a, rcodeRefused)
			isAnswerTo(b, a)
		}
	})
}

func TestLimits(t *testing.T) {
	l := newLimits()
	for i := range slotBusy {
		if !l.take(1) {
			t.Fatalf("question %d was refused", i)
		}
	}
	if l.take(1) {
		t.Error("more questions at once than allowed")
	}
	if !l.take(2) {
		t.Error("one sandbox's questions count for another")
	}
	l.give(1)
	if !l.take(1) {
		t.Error("an ended question still counts")
	}
}

func TestParseResolvConf(t *testing.T) {
	in := "# x\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nsearch a b\nnameserver nonsense\nnameserver\nnameserver ::1\nnameserver 9.9.9.9\n"
	var got []string
	for _, a := range parseResolvConf([]byte(in)) {
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"10.0.0.53:53", "[fe80::1%eth0]:53", "[::1]:53"}, got); d != "" {
		t.Error(d)
	}
	if got := parseResolvConf(nil)[0].String(); got != "127.0.0.1:53" {
		t.Errorf("none: got %s, want 127.0.0.1:53", got)
	}
}
