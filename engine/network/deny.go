package network

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// neverAllowed lists what an open sandbox still cannot reach: everything that
// is not the public internet. The host's own addresses are not here, because
// packets to them never get as far as being forwarded.
func neverAllowed() []netip.Prefix {
	text := []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
		// In IPv6 all but 2000::/3 is private, reserved, multicast, v4-mapped or NAT64,
		"::/3", "4000::/2", "8000::/1",
		// and these two carry IPv4 addresses: Teredo and 6to4.
		"2001::/32", "2002::/16",
	}
	out := make([]netip.Prefix, len(text))
	for i, s := range text {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// span is an inclusive range of addresses.
type span struct{ from, to netip.Addr }

// spans merges the prefixes of one family into ranges that neither overlap nor
// touch, which is what an interval set takes.
func spans(ps []netip.Prefix, v6 bool) []span {
	var in []span
	for _, p := range ps {
		if p.Addr().Is6() == v6 {
			in = append(in, span{p.Masked().Addr(), lastAddr(p)})
		}
	}
	slices.SortFunc(in, func(a, b span) int {
		return cmp.Or(a.from.Compare(b.from), a.to.Compare(b.to))
	})
	var out []span
	for _, s := range in {
		if n := len(out); n > 0 {
			next := out[n-1].to.Next() // invalid after the last address of the family
			if !next.IsValid() || s.from.Compare(next) <= 0 {
				if s.to.Compare(out[n-1].to) > 0 {
					out[n-1].to = s.to
				}
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// elements turns spans into elements of an interval set.
func elements(ss []span) []nftables.SetElement {
	var out []nftables.SetElement
	for _, s := range ss {
		out = append(out, nftables.SetElement{Key: s.from.AsSlice()})
		if end := s.to.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}
