package engine

import "net/netip"

// PrivatePrefixes lists every address that is not of the public internet.
func PrivatePrefixes() []netip.Prefix {
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
