package egress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// longWay loads the programs without their short way, on the maps of f.
func longWay(t *testing.T, f *Filter) *bpfPrograms {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range spec.Maps {
		if name[0] != '.' {
			m.Pinning = ebpf.PinByName
		}
	}
	spec.Maps["flows"].InnerMap = flowTable()
	if err := spec.Variables["short_way"].Set(uint8(0)); err != nil {
		t.Fatal(err)
	}
	var objs bpfObjects
	if err := spec.LoadAndAssign(&objs, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: filepath.Join(f.dir, "maps")}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objs.Close() })
	return &objs.bpfPrograms
}

// outcome is what a program made of a frame.
type outcome struct {
	verdict, mark uint32
	flows         map[bpfFlowKey]bpfFlow
	frame         []byte
}

func (o outcome) equal(p outcome) bool {
	return o.verdict == p.verdict && o.mark == p.mark && maps.Equal(o.flows, p.flows) && bytes.Equal(o.frame, p.frame)
}

// table is the flow table of a device, with one flow in it.
type table struct {
	*ebpf.Map
	key  bpfFlowKey
	flow bpfFlow
}

// holding makes a flow of a frame and returns the table that it is in.
func holding(t *testing.T, f *Filter, d Device, frame []byte) table {
	t.Helper()
	if err := gone(f.objs.Flows.Delete(uint32(d.Slot))); err != nil {
		t.Fatal(err)
	}
	if err := f.makeFlows(uint32(d.Slot)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.objs.FromSandbox.Run(&ebpf.RunOptions{Data: frame}); err != nil {
		t.Fatal(err)
	}
	tab := table{Map: flowTableOf(t, f, d)}
	if !tab.Iterate().Next(&tab.key, &tab.flow) {
		t.Fatal("the frame made no flow")
	}
	return tab
}

// run runs a program on a frame while the table has its one flow.
func (tab table) run(t *testing.T, program *ebpf.Program, frame []byte) outcome {
	t.Helper()
	for k := range tab.all(t) {
		if err := tab.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Put(tab.key, tab.flow); err != nil {
		t.Fatal(err)
	}
	var skb [192]byte // a __sk_buff, whose mark is its third number
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: skb[:], ContextOut: skb[:]}
	verdict, err := program.Run(&opts)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(frame), err)
	}
	return outcome{verdict, binary.NativeEndian.Uint32(skb[8:]), tab.all(t), opts.DataOut}
}

func (tab table) all(t *testing.T) map[bpfFlowKey]bpfFlow {
	t.Helper()
	all := map[bpfFlowKey]bpfFlow{}
	var k bpfFlowKey
	var v bpfFlow
	it := tab.Iterate()
	for it.Next(&k, &v) {
		v.Cookie = 0
		all[k] = v
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// reverse turns a frame into one of the other side.
func reverse(frame []byte) []byte {
	f := bytes.Clone(frame)
	swap := func(a, b, n int) {
		for i := range n {
			f[a+i], f[b+i] = f[b+i], f[a+i]
		}
	}
	swap(0, 6, 6)
	if f[12] == 0x08 {
		swap(26, 30, 4)
		swap(34, 36, 2)
	} else {
		swap(22, 38, 16)
		swap(54, 56, 2)
	}
	return f
}

// variants are a frame with each byte of its headers changed in some ways, with
// each length behind IP's, and as it is.
func variants(frame []byte) map[string][]byte {
	all := map[string][]byte{"as it is": frame}
	for i := range min(len(frame), 74) {
		for _, v := range []byte{0, 0xff, frame[i] ^ 1, frame[i] ^ 4} {
			if v != frame[i] {
				f := bytes.Clone(frame)
				f[i] = v
				all[fmt.Sprintf("byte %d is %#x", i, v)] = f
			}
		}
	}
	ip := 34
	if frame[12] == 0x86 {
		ip = 54
	}
	for n := ip; n < ip+24; n++ { // test runs want the whole head of IP
		all[fmt.Sprintf("%d bytes", n)] = frame[:n]
	}
	return all
}

// TestShortWay compares the short way with the long one: what a packet of a
// standing flow, or one like it, comes to must be the same, with the policy it
// was judged under and with the next.
func TestShortWay(t *testing.T) {
	f := open(t)
	if err := f.makeFlows(uint32(loopback.Slot)); err != nil {
		t.Fatal(err)
	}
	long := longWay(t, f)
	apply := func(networks ...string) {
		t.Helper()
		p := Policy{Silent: true, Proxy: true}
		for i, n := range networks {
			p.Rules = append(p.Rules, Rule{ID: uint32(i + 1), Network: network(n)})
		}
		if err := f.Apply(loopback, 1, p); err != nil {
			t.Fatal(err)
		}
	}
	established := func(f []byte) {
		if f[12] == 0x08 {
			f[14+20+13] = 0x10
		} else {
			f[14+40+13] = 0x10
		}
	}
	stories := map[string]packet{
		"TCP":         {to: "198.51.100.9", proto: 6, port: 22, change: established},
		"UDP":         {to: "198.51.100.9", proto: 17, port: 5000},
		"proxy":       {to: "203.0.113.7", proto: 6, port: 443, change: established},
		"TCP of IPv6": {to: "2001:db8:1::5", proto: 6, port: 22, change: established},
		"UDP of IPv6": {to: "2001:db8:1::5", proto: 17, port: 5000},
		"echo":        {to: "198.51.100.9", proto: 1, port: 0x0800},
	}
	allows := []string{"198.51.100.0/24", "2001:db8:1::/48"}
	passed, compared := 0, 0
	for story, p := range stories {
		for _, then := range [][]string{allows, {"192.0.2.0/24"}} {
			apply(allows...)
			tab := holding(t, f, loopback, p.frame())
			apply(then...)
			if slices.Equal(then, allows) {
				tab = holding(t, f, loopback, p.frame())
			}
			for _, way := range []struct {
				name        string
				frame       []byte
				short, long *ebpf.Program
			}{
				{"out", p.frame(), f.objs.FromSandbox, long.FromSandbox},
				{"in", reverse(p.frame()), f.objs.ToSandbox, long.ToSandbox},
			} {
				for change, frame := range variants(way.frame) {
					want, got := tab.run(t, way.long, frame), tab.run(t, way.short, frame)
					if !got.equal(want) {
						t.Errorf("%s, %s, %s, then %v: the short way came to %+v, the long way to %+v", story, way.name, change, then, got, want)
					}
					compared++
					if got.flows[tab.key].TxPackets+got.flows[tab.key].RxPackets > 1 {
						passed++
					}
				}
			}
		}
	}
	t.Logf("%d frames, %d of which were of the flow", compared, passed)
	if passed < compared/10 {
		t.Error("too few frames were of the flow")
	}
}
