package network

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// addRules adds the chains. In nft's words, "ours" being a device of this
// server, for IPv4 (IPv6 is the same with its own sets):
//
//	prerouting  iif ours, source not routed to that device: drop (spoofed)
//	forward     iif ours: goto out · oif ours: goto in · to our addresses: drop
//	out, local  without the filter's mark, where there is a filter: drop
//	out         with the filter's mark for the proxy: goto refuse
//	out         device and source in open4, else goto refuse;
//	            destination in deny4: goto refuse · ct invalid: drop · accept
//	in          device and destination in open4, ct established or related: accept;
//	            device and destination in open4: count in unasked4 · drop
//	input       iif ours: goto local · to our addresses from elsewhere but lo: drop
//	local       device and source in open4, to the gateway's DNS port: accept · goto refuse
//	output      oif ours: ct established or related: accept · drop
//	            to our addresses by any device but ours and lo: drop
//	refuse      tcp: reset · else ICMP "administratively prohibited"
//	redirect    to the gateway's port 53, where the relay has another: there ·
//	            with the filter's mark for the proxy: there
//	postrouting source in our prefix, oif not ours: masquerade
//
// The open sets are asked before conntrack, so closing a slot ends its live
// connections too. Each base chain accepts what is not ours.
//
// It returns the number of rules of each chain.
func (t *table) addRules(c *nftables.Conn) map[string]int {
	r := ruleset{conn: c, table: t.ref(), plain: map[string]*nftables.Chain{}, count: map[string]int{}}
	for _, name := range []string{"refuse", "out", "in", "local", "deliver"} {
		r.plain[name] = c.AddChain(&nftables.Chain{Name: name, Table: r.table})
	}
	t.addSpoofRules(r)
	t.addMarkRules(r)
	t.addForwardRules(r)
	t.addHostRules(r)
	t.addNAT(r)
	r.add(r.plain["local"], jumpTo("refuse"))
	r.add(r.plain["refuse"], l4(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	r.add(r.plain["refuse"], &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	return r.count
}

type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
	plain map[string]*nftables.Chain // those without a hook
	count map[string]int             // rules added, per chain
}

func (r ruleset) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: prio, Policy: &accept})
}

// add appends a rule of expressions and slices of them.
func (r ruleset) add(ch *nftables.Chain, parts ...any) {
	var es []expr.Any
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			es = append(es, p...)
		case expr.Any:
			es = append(es, p)
		}
	}
	r.count[ch.Name]++
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: ch, Exprs: es})
}

func (t *table) addSpoofRules(r ruleset) {
	ch := r.base("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	noRoute := []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
	r.add(ch, t.ours(expr.MetaKeyIIFNAME), noRoute, drop())
}

func (t *table) addForwardRules(r ruleset) {
	ch := r.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	r.add(ch, t.ours(expr.MetaKeyIIFNAME), jumpTo("out"))
	r.add(ch, t.ours(expr.MetaKeyOIFNAME), jumpTo("in"))
	for _, v6 := range []bool{false, true} {
		out := r.conn.AddChain(&nftables.Chain{Name: name("out", v6), Table: r.table})
		r.add(r.plain["out"], t.isOpenExpr(expr.MetaKeyIIFNAME, v6, source), jumpTo(out.Name))
		r.add(out, load(v6, destination, 1), lookup(t.setDeny(v6)), jumpTo("refuse"))
		r.add(out, ctState(expr.CtStateBitINVALID), drop())
		r.add(out, accept())
		r.add(r.plain["in"], t.isOpenExpr(expr.MetaKeyOIFNAME, v6, destination), ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	}
	r.add(r.plain["out"], jumpTo("refuse"))
	for _, v6 := range []bool{false, true} {
		r.add(r.plain["in"], t.isOpenExpr(expr.MetaKeyOIFNAME, v6, destination), load(v6, destination, 1), countIn(t.setUnasked(v6)))
	}
	r.add(r.plain["in"], drop())
	for _, v6 := range []bool{false, true} { // an answer to a sandbox that is gone
		if own := t.prefix(v6); own.IsValid() {
			r.add(ch, nfproto(v6), inPrefix(own, destination), drop())
		}
	}
}

func (t *table) addHostRules(r ruleset) {
	input := r.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	output := r.base("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	r.add(input, t.ours(expr.MetaKeyIIFNAME), jumpTo("local"))
	for _, v6 := range []bool{false, true} {
		own := t.prefix(v6)
		if !own.IsValid() {
			continue
		}
		r.add(input, nfproto(v6), inPrefix(own, destination), notLoopback(expr.MetaKeyIIFNAME), drop())
		gw := t.plan.slot(firstSlot).families()[index(v6)].gateway
		for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			r.add(r.plain["local"], t.isOpenExpr(expr.MetaKeyIIFNAME, v6, source),
				load(v6, destination, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: gw.AsSlice()},
				l4(p), dport(t.port), accept())
		}
	}
	r.add(output, t.ours(expr.MetaKeyOIFNAME), jumpTo("deliver"))
	for _, v6 := range []bool{false, true} { // as in forward
		if own := t.prefix(v6); own.IsValid() {
			r.add(output, nfproto(v6), inPrefix(own, destination), notLoopback(expr.MetaKeyOIFNAME), drop())
		}
	}
	r.add(r.plain["deliver"], ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	r.add(r.plain["deliver"], drop())
}

func (t *table) addNAT(r ruleset) {
	post := r.base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, v6 := range []bool{false, true} {
		if p := t.prefix(v6); p.IsValid() {
			r.add(post, nfproto(v6), inPrefix(p, source), t.byDevice(expr.MetaKeyOIFNAME, expr.CmpOpNeq), &expr.Masq{FullyRandom: true})
		}
	}
	proxy := t.marks.ProxyPort != 0
	if t.port == dnsPort && !proxy {
		return
	}
	pre := r.base("redirect", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	if proxy {
		t.addProxyRules(r, pre)
	}
	if t.port != dnsPort {
		t.addRelayRules(r, pre)
	}
}

// addRelayRules leads DNS questions to a relay that has another port.
func (t *table) addRelayRules(r ruleset, pre *nftables.Chain) {
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		for _, f := range t.plan.slot(firstSlot).families() {
			r.add(pre, t.ours(expr.MetaKeyIIFNAME), nfproto(f.gateway.Is6()),
				load(f.gateway.Is6(), destination, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: f.gateway.AsSlice()},
				l4(p), dport(dnsPort), destination4or6(f.gateway, t.port))
		}
	}
}

func (t *table) prefix(v6 bool) netip.Prefix {
	if v6 {
		return t.plan.Prefix6
	}
	return t.plan.Prefix4
}

// ours matches this server's devices by the start of their names.
func (t *table) ours(key expr.MetaKey) []expr.Any { return t.byDevice(key, expr.CmpOpEq) }

func (t *table) byDevice(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte(t.device)}}
}

// isOpenExpr matches packets whose device and address are in the open set.
func (t *table) isOpenExpr(key expr.MetaKey, v6 bool, side uint32) []expr.Any {
	es := append([]expr.Any{}, nfproto(v6)...)
	es = append(es, &expr.Meta{Key: key, Register: 1}) // 16 bytes, so the address follows in register 2
	es = append(es, load(v6, side, 2))
	return append(es, lookup(t.setOpen(v6)))
}

// Which address of a packet.
const (
	source      = 0
	destination = 1
)

func load(v6 bool, side, register uint32) expr.Any {
	at, size := uint32(12), uint32(4)
	if v6 {
		at, size = 8, 16
	}
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: at + side*size, Len: size}
}

func inPrefix(p netip.Prefix, side uint32) []expr.Any {
	size := uint32(p.Addr().BitLen() / 8)
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		load(p.Addr().Is6(), side, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func nfproto(v6 bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto(v6)}}}
}

func proto(v6 bool) byte {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func l4(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}}}
}

func dport(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func ctState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func notLoopback(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte("lo\x00")}}
}

func lookup(s *nftables.Set) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: s.Name} }

// countIn counts a packet at the address that was loaded.
func countIn(s *nftables.Set) expr.Any {
	return &expr.Dynset{SrcRegKey: 1, SetName: s.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{&expr.Counter{}}}
}

func jumpTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }
func accept() expr.Any             { return &expr.Verdict{Kind: expr.VerdictAccept} }
func drop() expr.Any               { return &expr.Verdict{Kind: expr.VerdictDrop} }

func name(chain string, v6 bool) string {
	if v6 {
		return chain + "6"
	}
	return chain + "4"
}

func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}
