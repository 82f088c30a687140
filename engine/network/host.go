package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hasIPv6 tells whether new devices on this host may have IPv6 addresses.
func hasIPv6() bool {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return false
	}
	return readSysctl("net/ipv6/conf/all/disable_ipv6") == "0" &&
		readSysctl("net/ipv6/conf/default/disable_ipv6") == "0" &&
		readSysctl("net/ipv6/conf/lo/disable_ipv6") == "0"
}

// enableForwarding makes the host a router, which NAT needs. It is never
// switched off again, because others may have come to rely on it.
func (m *Manager) enableForwarding() error {
	if readSysctl("net/ipv4/ip_forward") != "1" {
		m.log.Info("switching on IPv4 forwarding", "sysctl", "net.ipv4.ip_forward")
		if err := sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	if !m.plan.Prefix6.IsValid() || readSysctl("net/ipv6/conf/all/forwarding") == "1" {
		return nil
	}
	if err := m.keepRouterAdvertisements(); err != nil {
		return err
	}
	m.log.Info("switching on IPv6 forwarding", "sysctl", "net.ipv6.conf.all.forwarding")
	return sysctl("net/ipv6/conf/all/forwarding", "1")
}

// keepRouterAdvertisements lets devices that configure themselves by router
// advertisements go on doing so when the host becomes a router.
func (m *Manager) keepRouterAdvertisements() error {
	links, err := whole(m.nl.LinkList)
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		key := "net/ipv6/conf/" + name + "/accept_ra"
		if l.Attrs().Flags&net.FlagLoopback != 0 || strings.HasPrefix(name, devicePrefix(m.plan.ID)) || readSysctl(key) != "1" {
			continue
		}
		if err := sysctl(key, "2"); err != nil {
			return err
		}
	}
	return nil
}

// hostNetworks lists every network that the host has an address in or a route
// to without a next hop, default routes and this server's own left out.
func (m *Manager) hostNetworks() ([]netip.Prefix, error) {
	own, err := m.ownDevices()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	addrs, err := whole(func() ([]netlink.Addr, error) { return m.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := toPrefix(a.IPNet); ok && !own[a.LinkIndex] && !m.ownPrefix(p) {
			out = append(out, p)
		}
	}
	routes, err := m.routes(unix.RT_TABLE_MAIN)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		p, ok := toPrefix(r.Dst)
		if ok && len(r.Gw) == 0 && len(r.MultiPath) == 0 && !own[r.LinkIndex] && !m.ownPrefix(p) && !wide(p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// wide tells whether p is so large that it means "the internet, through this
// tunnel" rather than a network the host sits in.
func wide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < 8
	}
	return p.Bits() < 16
}

func (m *Manager) ownPrefix(p netip.Prefix) bool {
	in := func(o netip.Prefix) bool { return o.IsValid() && o.Overlaps(p) && o.Bits() <= p.Bits() }
	return in(m.plan.Prefix4) || in(m.plan.Prefix6)
}

func (m *Manager) ownDevices() (map[int]bool, error) {
	links, err := whole(m.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := map[int]bool{}
	for _, l := range links {
		if _, ok := indexAfter(l.Attrs().Name, devicePrefix(m.plan.ID)); ok {
			out[l.Attrs().Index] = true
		}
	}
	return out, nil
}

// routes lists one table, or all for RT_TABLE_UNSPEC.
func (m *Manager) routes(table int) ([]netlink.Route, error) {
	r, err := whole(func() ([]netlink.Route, error) {
		return m.nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return r, nil
}

// usedPrefixes lists every network that this host knows of in any table, to
// choose our own away from them.
func (m *Manager) usedPrefixes() ([]netip.Prefix, error) {
	routes, err := m.routes(unix.RT_TABLE_UNSPEC)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if p, ok := toPrefix(r.Dst); ok && !wide(p) {
			out = append(out, p)
		}
	}
	for _, r := range m.resolvers.current() {
		out = append(out, netip.PrefixFrom(r.Addr().Unmap().WithZone(""), r.Addr().Unmap().BitLen()))
	}
	return out, nil
}

// toPrefix converts n; false for nil and for default routes.
func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || ones == 0 {
		return netip.Prefix{}, false
	}
	if a = a.Unmap(); a.BitLen() != bits {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones).Masked(), true
}

// whole asks for a list until it is consistent: the kernel says so when what it
// lists changed meanwhile, as it does on a host that starts sandboxes.
func whole[T any](list func() (T, error)) (out T, err error) {
	for range 20 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}
