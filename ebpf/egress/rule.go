package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Protocols of a Range.
const (
	TCP  = 6
	UDP  = 17
	ICMP = 1 // echo requests, over IPv4 and IPv6
)

// Range is a range of ports of one protocol; both ends are included. ICMP has
// the range 0 to 0.
type Range struct {
	Protocol    uint8
	First, Last uint16
}

// Rule is about the addresses of a network.
type Rule struct {
	ID      uint32 // told in events
	Network netip.Prefix
	Deny    bool
	Ranges  []Range // empty: everything there is
	// Override lifts the block list for this network. Of all rules only the
	// operator's may have it.
	Override bool
}

// Policy is what a device lets through. The zero Policy refuses everything but
// the name relay.
type Policy struct {
	DefaultAllow bool
	Rules        []Rule
	LogAllow     bool // events for the beginning and the end of each flow that is allowed
	Learn        bool // report what would be refused and let it pass; the block list holds
	Silent       bool // drop without an answer
	NoRelay      bool // the name relay is closed too
	// Proxy marks TCP to 80 and 443 that no rule about an address decides with
	// MarkProxy, for the guard to redirect, and refuses UDP to 443.
	Proxy bool
	// ProxyAll, with Proxy, leads there what a rule about an address allows,
	// too, and refuses UDP to 443 even then.
	ProxyAll bool
}

// keyed is one entry of the trie.
type keyed struct {
	network netip.Prefix
	rule    bpfRule
}

// compile flattens rules into entries. The trie finds the longest prefix only,
// so each entry carries what all rules whose networks cover it say; one that
// denies wins. It fails when more ranges meet than an entry holds.
func compile(rules []Rule) ([]keyed, error) {
	sorted := slices.Clone(rules)
	for i := range sorted {
		sorted[i].Network = sorted[i].Network.Masked()
	}
	slices.SortStableFunc(sorted, func(a, b Rule) int {
		return cmp.Or(a.Network.Addr().Compare(b.Network.Addr()), cmp.Compare(a.Network.Bits(), b.Network.Bits()))
	})
	var out []keyed
	var stack []int // entries that cover the current one, widest first
	for _, r := range sorted {
		for len(stack) > 0 && !covers(out[stack[len(stack)-1]].network, r.Network) {
			stack = stack[:len(stack)-1]
		}
		if n := len(stack); n > 0 && out[stack[n-1]].network == r.Network {
			if err := merge(&out[stack[n-1]].rule, r); err != nil {
				return nil, err
			}
			continue
		}
		e := keyed{network: r.Network}
		if n := len(stack); n > 0 {
			e.rule = out[stack[n-1]].rule
		}
		if err := merge(&e.rule, r); err != nil {
			return nil, err
		}
		out = append(out, e)
		stack = append(stack, len(out)-1)
	}
	return out, nil
}

func covers(wide, narrow netip.Prefix) bool {
	return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}

// The flags of rules and ranges, as in egress.h.
const (
	ruleDeny     = 1 << 0
	ruleAny      = 1 << 1
	ruleOverride = 1 << 2
)

// merge adds what r says to an entry.
func merge(e *bpfRule, r Rule) error {
	e.Id = r.ID
	if r.Override {
		e.Flags |= ruleOverride
	}
	if len(r.Ranges) == 0 {
		e.Flags |= ruleAny
		if r.Deny {
			e.Flags |= ruleDeny
		}
		return nil
	}
	for _, g := range r.Ranges {
		if err := addRange(e, g, r); err != nil {
			return err
		}
	}
	return nil
}

func addRange(e *bpfRule, g Range, r Rule) error {
	var flags uint8
	if r.Deny {
		flags = ruleDeny
	}
	for _, have := range e.Ranges[:e.Count] {
		if have.Proto == g.Protocol && have.Flags == flags && have.First <= g.First && g.Last <= have.Last {
			return nil
		}
	}
	if int(e.Count) == len(e.Ranges) {
		return fmt.Errorf("more than %d port ranges meet at %s", len(e.Ranges), r.Network)
	}
	slot := &e.Ranges[e.Count]
	slot.Proto, slot.Flags, slot.First, slot.Last = g.Protocol, flags, g.First, g.Last
	e.Count++
	return nil
}

// trieKey is the key of a network's entry. The policy's number comes first.
func trieKey(policy uint32, n netip.Prefix) bpfRuleKey {
	bits := n.Bits()
	if n.Addr().Is4() {
		bits += 96
	}
	return bpfRuleKey{Prefixlen: uint32(32 + bits), Policy: policy, Addr: n.Masked().Addr().As16()}
}
