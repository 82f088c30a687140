package policies

import "net/netip"

// Block is a network that no policy opens.
type Block struct {
	Name   string // as in the rule "blocked/metadata"
	Prefix netip.Prefix
	Reason string
}

// Blocked returns the networks that stay closed under every policy. A runner
// closes its own addresses and its networks besides. IPv6 networks that carry
// IPv4 addresses are closed as a whole, since they would be a way round.
func Blocked() []Block {
	const (
		special = "the address is not one of the internet"
		carrier = "the address carries an IPv4 address"
	)
	var all []Block
	add := func(name, reason string, prefixes ...string) {
		for _, p := range prefixes {
			all = append(all, Block{Name: name, Prefix: netip.MustParsePrefix(p), Reason: reason})
		}
	}
	add("metadata", "metadata services hand out the host's credentials",
		"169.254.169.254/32", "169.254.170.2/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128")
	add("link-local", "the address belongs to the host's own link", "169.254.0.0/16", "fe80::/10")
	add("loopback", special, "127.0.0.0/8", "::1/128")
	add("unspecified", special, "0.0.0.0/8", "::/128")
	add("multicast", special, "224.0.0.0/4", "ff00::/8")
	add("reserved", special, "240.0.0.0/4", "192.0.0.0/24", "fec0::/10")
	add("translation", carrier, "::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
	return all
}

var blocked = Blocked() // constant

// BlockedAddress returns the narrowest entry of Blocked that holds the address.
func BlockedAddress(a netip.Addr) (Block, bool) {
	best := -1
	for i, b := range blocked {
		if b.Prefix.Contains(a) && (best < 0 || b.Prefix.Bits() > blocked[best].Prefix.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return Block{}, false
	}
	return blocked[best], true
}
