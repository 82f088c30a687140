package egress

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// open loads the programs in a BPF file system of the test's own.
func open(t testing.TB) *Filter {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bpf")
	if err := kernel.Mount(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernel.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return openAt(t, dir)
}

func openAt(t testing.TB, dir string) *Filter {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// loopback is the device that test runs of a program come from.
var loopback = Device{
	Name: "lo", Index: 1, Slot: 7, MAC: [6]byte{2, 0, 0, 0, 0, 1}, DNSPort: 53,
	Addr4: netip.MustParseAddr("10.77.0.1"), Gateway4: netip.MustParseAddr("10.77.0.254"),
	Addr6: netip.MustParseAddr("2001:db8:77::1"), Gateway6: netip.MustParseAddr("2001:db8:77::fe"),
}

// packet is a frame of the sandbox.
type packet struct {
	mac       [6]byte
	ethertype uint16
	from, to  string
	proto     uint8
	port      uint16 // or the type of ICMP, in the upper byte
	change    func([]byte)
}

func (p packet) frame() []byte {
	if p.mac == [6]byte{} {
		p.mac = loopback.MAC
	}
	src, dst := loopback.Addr4, netip.MustParseAddr(p.to)
	if dst.Is6() {
		src = loopback.Addr6
	}
	if p.from != "" {
		src = netip.MustParseAddr(p.from)
	}
	f := append([]byte{2, 0, 0, 0xff, 0, 1}, p.mac[:]...)
	if p.ethertype == 0 {
		p.ethertype = 0x0800
		if dst.Is6() {
			p.ethertype = 0x86dd
		}
	}
	f = binary.BigEndian.AppendUint16(f, p.ethertype)
	upper := make([]byte, 40)
	binary.BigEndian.PutUint16(upper, 40000)
	binary.BigEndian.PutUint16(upper[2:], p.port)
	upper[12], upper[13] = 5<<4, 2 // of TCP: header length, SYN
	if p.proto == 1 || p.proto == 58 {
		binary.BigEndian.PutUint16(upper, p.port)
	}
	if src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, p.proto
		binary.BigEndian.PutUint16(h[2:], 60)
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		f = append(f, h...)
	} else {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, p.proto, 64
		binary.BigEndian.PutUint16(h[4:], 40)
		copy(h[8:], src.AsSlice())
		copy(h[24:], dst.AsSlice())
		f = append(f, h...)
	}
	f = append(f, upper...)
	if p.change != nil {
		p.change(f)
	}
	return f
}

// passes runs the real program on a frame, without any network.
func passes(t *testing.T, program *ebpf.Program, p packet) bool {
	t.Helper()
	ret, _, err := program.Test(p.frame())
	if err != nil {
		t.Fatal(err)
	}
	switch int32(ret) {
	case -1:
		return true
	case 2:
		return false
	}
	t.Fatalf("the program returned %d", int32(ret))
	return false
}

func network(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestVerdicts(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	if err := f.SetBlocked(map[netip.Prefix]uint32{network("169.254.0.0/16"): 900, network("10.77.0.254/32"): 901}); err != nil {
		t.Fatal(err)
	}
	policy := Policy{Silent: true, Rules: []Rule{
		{ID: 1, Network: network("198.51.100.0/24"), Ranges: []Range{{TCP, 443, 443}}},
		{ID: 2, Network: network("198.51.100.7/32"), Ranges: []Range{{UDP, 53, 53}}},
		{ID: 3, Network: network("198.51.100.66/32"), Deny: true},
		{ID: 4, Network: network("169.254.169.254/32")},
		{ID: 5, Network: network("2001:db8:1::/64")},
		{ID: 6, Network: network("198.51.100.80/28")},
		{ID: 7, Network: network("198.51.100.80/28"), Deny: true, Ranges: []Range{{TCP, 25, 25}}},
		{ID: 8, Network: network("192.0.2.8/32"), Ranges: []Range{{Protocol: ICMP}}},
		{ID: 9, Network: network("169.254.7.7/32"), Override: true},
	}}
	if err := f.Apply(loopback, 1, policy); err != nil {
		t.Fatal(err)
	}
	for addr, ttl := range map[string]time.Duration{"203.0.113.9": time.Minute, "203.0.113.10": -time.Second, "169.254.1.1": time.Minute, "198.51.100.66": time.Minute} {
		if err := f.Learn(1, netip.MustParseAddr(addr), Name{Rule: 1, Domain: 1, TTL: ttl, Ranges: []Range{{TCP, 443, 443}}}); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		p    packet
		want bool
	}{
		{"allowed port", packet{to: "198.51.100.9", proto: 6, port: 443}, true},
		{"other port", packet{to: "198.51.100.9", proto: 6, port: 80}, false},
		{"other protocol", packet{to: "198.51.100.9", proto: 17, port: 443}, false},
		{"a narrower rule keeps the ports of the wider one", packet{to: "198.51.100.7", proto: 6, port: 443}, true},
		{"and has its own", packet{to: "198.51.100.7", proto: 17, port: 53}, true},
		{"deny inside allow", packet{to: "198.51.100.66", proto: 6, port: 443}, false},
		{"any port", packet{to: "198.51.100.81", proto: 17, port: 9}, true},
		{"but one denied", packet{to: "198.51.100.81", proto: 6, port: 25}, false},
		{"metadata stays blocked", packet{to: "169.254.169.254", proto: 6, port: 80}, false},
		{"blocked unless overridden", packet{to: "169.254.7.7", proto: 6, port: 80}, true},
		{"default", packet{to: "192.0.2.1", proto: 6, port: 443}, false},
		{"IPv6", packet{to: "2001:db8:1::5", proto: 6, port: 22}, true},
		{"IPv6 default", packet{to: "2001:db8:2::5", proto: 6, port: 22}, false},
		{"name relay", packet{to: "10.77.0.254", proto: 17, port: 53}, true},
		{"name relay, IPv6", packet{to: "2001:db8:77::fe", proto: 6, port: 53}, true},
		{"another port of the gateway", packet{to: "10.77.0.254", proto: 6, port: 7777}, false},
		{"another resolver", packet{to: "192.0.2.53", proto: 17, port: 53}, false},
		{"echo", packet{to: "192.0.2.8", proto: 1, port: 8 << 8}, true},
		{"echo elsewhere", packet{to: "192.0.2.9", proto: 1, port: 8 << 8}, false},
		{"echo where TCP is allowed only", packet{to: "198.51.100.9", proto: 1, port: 8 << 8}, false},
		{"echo reply nobody asked for", packet{to: "192.0.2.8", proto: 1, port: 0}, false},
		{"redirect", packet{to: "192.0.2.8", proto: 1, port: 5 << 8}, false},
		{"timestamp", packet{to: "192.0.2.8", proto: 1, port: 13 << 8}, false},
		{"error about nothing", packet{to: "192.0.2.8", proto: 1, port: 3 << 8}, false},
		{"ICMPv6 in IPv4", packet{to: "192.0.2.8", proto: 58, port: 128 << 8}, false},
		{"echo, IPv6", packet{to: "2001:db8:1::5", proto: 58, port: 128 << 8}, true},
		{"router advertisement", packet{to: "2001:db8:1::5", proto: 58, port: 134 << 8}, false},
		{"router solicitation to the internet", packet{to: "2001:db8:1::5", proto: 58, port: 133 << 8}, false},
		{"router solicitation to the link", packet{to: "ff02::2", proto: 58, port: 133 << 8}, true},
		{"neighbour solicitation to the internet", packet{to: "2001:db8:1::5", proto: 58, port: 135 << 8}, false},
		{"GRE where all is allowed", packet{to: "198.51.100.81", proto: 47}, false},
		{"SCTP", packet{to: "198.51.100.81", proto: 132}, false},
		{"IP in IP", packet{to: "198.51.100.81", proto: 4}, false},
		{"learned name", packet{to: "203.0.113.9", proto: 6, port: 443}, true},
		{"learned name, other port", packet{to: "203.0.113.9", proto: 6, port: 22}, false},
		{"learned name, expired", packet{to: "203.0.113.10", proto: 6, port: 443}, false},
		{"learned name at a blocked address", packet{to: "169.254.1.1", proto: 6, port: 443}, false},
		{"learned name at a denied address", packet{to: "198.51.100.66", proto: 6, port: 443}, false},
		{"spoofed address", packet{from: "10.77.0.2", to: "198.51.100.9", proto: 6, port: 443}, false},
		{"spoofed IPv6 address", packet{from: "2001:db8:77::2", to: "2001:db8:1::5", proto: 6, port: 443}, false},
		{"spoofed MAC", packet{mac: [6]byte{2, 0, 0, 0, 0, 9}, to: "198.51.100.9", proto: 6, port: 443}, false},
		{"mapped address in IPv6", packet{from: "2001:db8:77::1", to: "::ffff:198.51.100.9", ethertype: 0x86dd, proto: 6, port: 443}, false},
		{"IP options", packet{to: "198.51.100.9", proto: 6, port: 443, change: func(b []byte) { b[14] = 0x46 }}, false},
		{"later fragment without a first", packet{to: "198.51.100.9", proto: 6, port: 443, change: func(b []byte) { b[21] = 5 }}, false},
		{"routing header", packet{to: "2001:db8:1::5", proto: 43, port: 443}, false},
		{"hop-by-hop header", packet{to: "2001:db8:1::5", proto: 0, port: 443}, false},
		{"unknown ethertype", packet{to: "198.51.100.9", ethertype: 0x88cc, proto: 6, port: 443}, false},
		{"forged ARP", packet{to: "198.51.100.9", ethertype: 0x0806, proto: 6, port: 443}, false},
		{"wrong version", packet{to: "198.51.100.9", proto: 6, port: 443, change: func(b []byte) { b[14] = 0x55 }}, false},
	}
	for _, tt := range tests {
		if got := passes(t, f.objs.FromSandbox, tt.p); got != tt.want {
			t.Errorf("%s: passes %v, want %v", tt.name, got, tt.want)
		}
	}
	s, err := f.Stats(1)
	if err != nil {
		t.Fatal(err)
	}
	if s.Flows == 0 || s.Denied == 0 || s.Drops["blocked"] == 0 || s.Drops["spoofed-mac"] != 1 || s.Drops["protocol"] == 0 {
		t.Errorf("counters: %+v", s)
	}
}

func TestDefaultAllow(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	if err := f.SetBlocked(map[netip.Prefix]uint32{network("169.254.0.0/16"): 900}); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(loopback, 1, Policy{Silent: true, DefaultAllow: true, NoRelay: true, Rules: []Rule{{ID: 1, Network: network("192.0.2.0/24"), Deny: true, Ranges: []Range{{TCP, 25, 25}}}}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		p    packet
		want bool
	}{
		{"anything", packet{to: "192.0.2.1", proto: 6, port: 443}, true},
		{"a denied port", packet{to: "192.0.2.1", proto: 6, port: 25}, false},
		{"echo", packet{to: "192.0.2.1", proto: 1, port: 8 << 8}, true},
		{"GRE", packet{to: "192.0.2.1", proto: 47}, false},
		{"metadata", packet{to: "169.254.169.254", proto: 6, port: 80}, false},
	} {
		if got := passes(t, f.objs.FromSandbox, tt.p); got != tt.want {
			t.Errorf("%s: passes %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestApplyJudgesStandingFlowsAgain(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	kept, ended := packet{to: "198.51.100.9", proto: 17, port: 443}, packet{to: "198.51.100.10", proto: 17, port: 443}
	both := []Rule{{ID: 1, Network: network("198.51.100.9/32")}, {ID: 2, Network: network("198.51.100.10/32")}}
	if err := f.Apply(loopback, 1, Policy{Silent: true, Rules: both}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []packet{kept, ended} {
		if !passes(t, f.objs.FromSandbox, p) {
			t.Fatalf("%s is refused", p.to)
		}
	}
	if err := f.Apply(loopback, 1, Policy{Silent: true, Rules: both[:1]}); err != nil {
		t.Fatal(err)
	}
	if !passes(t, f.objs.FromSandbox, kept) {
		t.Error("a flow that is still allowed was cut")
	}
	if passes(t, f.objs.FromSandbox, ended) {
		t.Error("a flow outlived its rule")
	}
	if n := len(f.entries); n != 1 {
		t.Errorf("%d policies are in the map, want 1", n)
	}
}

func TestClosedUntilApplied(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	if err := f.objs.Early.Put(uint32(loopback.Index), uint64(0)); err != nil {
		t.Fatal(err)
	}
	p := packet{to: "198.51.100.9", proto: 6, port: 443}
	if passes(t, f.objs.FromSandbox, p) || passes(t, f.objs.ToSandbox, p) {
		t.Error("a device without a policy is open")
	}
	p.change = func(b []byte) { b[0], b[1] = 0x33, 0x33 } // what its kernel sends by itself
	if passes(t, f.objs.FromSandbox, p) {
		t.Error("a device without a policy is open to multicast")
	}
	p.change = nil
	if n := f.Early(loopback); n != 1 {
		t.Errorf("%d packets came before the policy, want 1", n)
	}
	if err := f.Apply(loopback, 1, Policy{DefaultAllow: true}); err != nil {
		t.Fatal(err)
	}
	if !passes(t, f.objs.FromSandbox, p) {
		t.Error("the policy does nothing")
	}
	if err := f.Shut(loopback); err != nil {
		t.Fatal(err)
	}
	if passes(t, f.objs.FromSandbox, p) {
		t.Error("a device that was shut is open")
	}
	if err := f.Apply(loopback, 1, Policy{Silent: true}); err != nil {
		t.Fatal(err)
	}
	if passes(t, f.objs.FromSandbox, p) {
		t.Error("a flow of before the shutting counts as judged")
	}
	if err := f.Detach(loopback); err != nil {
		t.Errorf("detach: %v", err)
	}
	if err := f.Detach(loopback); err != nil {
		t.Errorf("detach again: %v", err)
	}
}

func TestAdoption(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	rules := []Rule{{ID: 1, Network: network("198.51.100.0/24")}}
	if err := f.Apply(loopback, 5, Policy{Silent: true, Rules: rules}); err != nil {
		t.Fatal(err)
	}
	// What a process that died in the middle of Apply leaves.
	if err := f.insertLocked(77, []keyed{{network: network("192.0.2.0/24")}}); err != nil {
		t.Fatal(err)
	}
	p := packet{to: "198.51.100.9", proto: 17, port: 443}
	if !passes(t, f.objs.FromSandbox, p) {
		t.Fatal("refused")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	g := openAt(t, filepath.Dir(f.dir))
	if got := g.Sandboxes(); !slices.Equal(got, []uint32{5}) {
		t.Errorf("adopted sandboxes %v", got)
	}
	if !passes(t, g.objs.FromSandbox, p) {
		t.Error("the policy was lost")
	}
	if len(g.entries) != 1 || len(g.entries[77]) != 0 {
		t.Errorf("adopted policies %v", g.entries)
	}
	if s, err := g.Stats(5); err != nil || s.Flows != 1 {
		t.Errorf("the flow was lost: %+v, %v", s, err)
	}
	var key bpfFlowKey
	var flow bpfFlow
	if !flowTableOf(t, g, loopback).Iterate().Next(&key, &flow) || flow.TxPackets != 2 {
		t.Errorf("the flow was lost: %+v", flow)
	}
	if err := g.Apply(loopback, 5, Policy{Silent: true}); err != nil {
		t.Fatal(err)
	}
	if passes(t, g.objs.FromSandbox, p) {
		t.Error("the adopted flow outlived its rule")
	}
}

func TestNamesAreForgotten(t *testing.T) {
	f := open(t)
	a := netip.MustParseAddr("203.0.113.9")
	for sandbox := range uint32(3) {
		if err := f.Learn(sandbox, a, Name{TTL: time.Duration(int(sandbox)-1) * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (n int) {
		var k bpfNameKey
		var v bpfNameRule
		for it := f.objs.Names.Iterate(); it.Next(&k, &v); {
			n++
		}
		return n
	}
	if err := f.ExpireNames(time.Minute); err != nil || count() != 2 {
		t.Errorf("after expiry %d names, %v; want 2", count(), err)
	}
	if err := f.ForgetNames(2); err != nil || count() != 1 {
		t.Errorf("after forgetting %d names, %v; want 1", count(), err)
	}
}

func TestEvents(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(loopback, 9, Policy{Silent: true, LogAllow: true, Rules: []Rule{{ID: 42, Network: network("198.51.100.0/24")}}}); err != nil {
		t.Fatal(err)
	}
	r, err := f.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	passes(t, f.objs.FromSandbox, packet{to: "198.51.100.9", proto: 6, port: 443})
	passes(t, f.objs.FromSandbox, packet{to: "192.0.2.1", proto: 17, port: 53})
	for _, want := range []Event{
		{Type: EventNew, Sandbox: 9, Rule: 42, Protocol: TCP, Local: netip.MustParseAddrPort("10.77.0.1:40000"), Remote: netip.MustParseAddrPort("198.51.100.9:443")},
		{Type: EventDeny, Reason: 3, Sandbox: 9, Protocol: UDP, Local: netip.MustParseAddrPort("10.77.0.1:40000"), Remote: netip.MustParseAddrPort("192.0.2.1:53")},
	} {
		got, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if got.Time <= 0 {
			t.Errorf("event without a time: %+v", got)
		}
		got.Time, got.Cookie = 0, 0
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	r.Close()
	if _, err := r.Read(); err != os.ErrClosed {
		t.Errorf("read after close: %v", err)
	}
}

func TestBudgetOfEvents(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(loopback, 3, Policy{Silent: true}); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		passes(t, f.objs.FromSandbox, packet{to: "192.0.2.1", proto: 17, port: uint16(i + 1)})
	}
	s, err := f.Stats(3)
	if err != nil || s.Denied != 300 || s.Suppressed < 100 {
		t.Errorf("%+v, %v", s, err)
	}
	// The flood hides nothing of another kind.
	passes(t, f.objs.FromSandbox, packet{to: "192.0.2.1", proto: 17, port: 1, change: func(b []byte) { b[6] ^= 4 }})
	if after, err := f.Stats(3); err != nil || after.Suppressed != s.Suppressed || after.Drops["spoofed-mac"] != 1 {
		t.Errorf("%+v, %v", after, err)
	}
}

func TestCompile(t *testing.T) {
	many := make([]Range, 17)
	for i := range many {
		many[i] = Range{TCP, uint16(i + 1), uint16(i + 1)}
	}
	if _, err := compile([]Rule{{Network: network("192.0.2.0/24"), Ranges: many}}); err == nil {
		t.Error("17 ranges were taken")
	}
	out, err := compile([]Rule{
		{ID: 2, Network: network("192.0.2.0/25"), Ranges: []Range{{TCP, 80, 80}}},
		{ID: 1, Network: network("192.0.2.0/24"), Ranges: []Range{{TCP, 1, 100}}},
		{ID: 3, Network: network("192.0.3.0/24"), Deny: true},
		{ID: 4, Network: network("192.0.3.4/32")},
	})
	if err != nil || len(out) != 4 {
		t.Fatalf("%+v, %v", out, err)
	}
	for _, e := range out {
		switch e.network.String() {
		case "192.0.2.0/24", "192.0.2.0/25":
			if e.rule.Count != 1 || e.rule.Ranges[0].Last != 100 {
				t.Errorf("%s: %+v", e.network, e.rule)
			}
		case "192.0.3.4/32":
			if e.rule.Flags != ruleAny|ruleDeny {
				t.Errorf("%s: a narrower rule lifted the wider one's denial", e.network)
			}
		}
	}
}

// flowTableOf opens a device's flow table.
func flowTableOf(t *testing.T, f *Filter, d Device) *ebpf.Map {
	t.Helper()
	var id ebpf.MapID
	if err := f.objs.Flows.Lookup(uint32(d.Slot), &id); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}
