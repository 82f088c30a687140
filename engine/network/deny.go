package network

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/atoll-sh/atoll/engine"
)

// neverAllowed lists what an open sandbox still cannot reach: everything that
// is not the public internet. The host's own addresses are not here, because
// packets to them never get as far as being forwarded.
func neverAllowed() []netip.Prefix { return engine.PrivatePrefixes() }

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
