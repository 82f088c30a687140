package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideDevice is the name of the sandbox's end of the pair.
const insideDevice = "eth0"

// The hardware addresses are fixed and both ends know the other's, so no ARP
// and no neighbour discovery ever happens on a pair. Pairs share no segment,
// so the same addresses serve them all.
func hostMAC() net.HardwareAddr   { return net.HardwareAddr{0x02, 0x61, 0x74, 0, 0, 1} }
func insideMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0x61, 0x74, 0, 0, 2} }

// InsideMAC is the hardware address of every sandbox.
func InsideMAC() (mac [6]byte) { copy(mac[:], insideMAC()); return mac }

// insideSysctls are set in a new namespace before it has a device, so that
// the device never configures itself.
func insideSysctls(ipv6 bool) [][2]string {
	v := [][2]string{
		{"net/ipv4/ping_group_range", "0 2147483647"},
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/conf/all/accept_redirects", "0"},
		{"net/ipv4/conf/default/accept_redirects", "0"},
	}
	if ipv6 {
		v = append(v,
			[2]string{"net/ipv6/conf/default/accept_ra", "0"},
			[2]string{"net/ipv6/conf/default/autoconf", "0"},
			[2]string{"net/ipv6/conf/default/accept_dad", "0"},
			[2]string{"net/ipv6/conf/default/accept_redirects", "0"},
			[2]string{"net/ipv6/conf/default/addr_gen_mode", "1"})
	}
	return v
}

// hostSysctls are set on the host's end while it is down.
func hostSysctls(dev string, ipv6 bool) [][2]string {
	v := [][2]string{
		{"net/ipv4/conf/" + dev + "/rp_filter", "1"},
		{"net/ipv4/conf/" + dev + "/accept_redirects", "0"},
		{"net/ipv4/conf/" + dev + "/send_redirects", "0"},
		{"net/ipv4/conf/" + dev + "/forwarding", "1"},
	}
	if ipv6 {
		v = append(v,
			[2]string{"net/ipv6/conf/" + dev + "/accept_ra", "0"},
			[2]string{"net/ipv6/conf/" + dev + "/accept_redirects", "0"},
			[2]string{"net/ipv6/conf/" + dev + "/addr_gen_mode", "1"})
	}
	return v
}

// build makes the slot's namespace, pair, addresses and routes. The slot is
// blocked. On error nothing is left.
func (m *Manager) build(s Slot) error {
	err := createNetNS(s.NetNS, func() error { return m.buildInside(s) })
	if err == nil {
		err = m.buildHost(s)
	}
	if err != nil {
		return fmt.Errorf("build network slot %d: %w", s.Index, errors.Join(err, m.destroyLinks(s), m.detachFilter(s)))
	}
	return nil
}

// buildInside runs in the new namespace.
func (m *Manager) buildInside(s Slot) error {
	for _, kv := range insideSysctls(s.Addr6.IsValid()) {
		if err := sysctl(kv[0], kv[1]); err != nil {
			return err
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = insideDevice, insideMAC(), m.mtu
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: s.Device, PeerHardwareAddr: hostMAC(),
		PeerMTU: uint32(m.mtu), PeerNamespace: netlink.NsFd(int(m.hostNS.Fd())),
	}
	if err := h.LinkAdd(pair); err != nil {
		return fmt.Errorf("add pair %s: %w", s.Device, err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	eth, err := h.LinkByName(insideDevice)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set %s up: %w", insideDevice, err)
	}
	for _, f := range s.families() {
		if err := routeOut(h, eth.Attrs().Index, f); err != nil {
			return err
		}
	}
	return nil
}

// family is one address family of a slot.
type family struct{ addr, gateway netip.Addr }

func (s Slot) families() []family {
	f := []family{{s.Addr4, s.Gateway4}}
	if s.Addr6.IsValid() {
		f = append(f, family{s.Addr6, s.Gateway6})
	}
	return f
}

// routeOut gives the sandbox's end its address and the way out.
func routeOut(h *netlink.Handle, dev int, f family) error {
	if err := h.NeighSet(neighbour(dev, f.gateway, hostMAC())); err != nil {
		return fmt.Errorf("set neighbour %s: %w", f.gateway, err)
	}
	if err := addAddr(h, dev, f.addr, 0); err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: dev, Gw: f.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if err := h.RouteAdd(r); err != nil {
		return fmt.Errorf("add default route by %s: %w", f.gateway, err)
	}
	return nil
}

// buildHost sets up the host's end.
func (m *Manager) buildHost(s Slot) error {
	dev, err := m.nl.LinkByName(s.Device)
	if err != nil {
		return err
	}
	for _, kv := range hostSysctls(s.Device, s.Addr6.IsValid()) {
		if err := sysctl(kv[0], kv[1]); err != nil {
			return err
		}
	}
	if err := m.attachFilter(s, dev.Attrs().Index); err != nil {
		return err
	}
	if err := m.nl.LinkSetARPOff(dev); err != nil {
		return fmt.Errorf("switch ARP off on %s: %w", s.Device, err)
	}
	if err := m.nl.LinkSetUp(dev); err != nil {
		return fmt.Errorf("set %s up: %w", s.Device, err)
	}
	for _, f := range s.families() {
		if err := m.routeIn(dev.Attrs().Index, f); err != nil {
			return err
		}
	}
	return nil
}

// routeIn leads the sandbox's address to its device. The preferred source
// keeps the host's own address out of the ICMP errors that a sandbox gets.
func (m *Manager) routeIn(dev int, f family) error {
	if err := m.nl.NeighSet(neighbour(dev, f.addr, insideMAC())); err != nil {
		return fmt.Errorf("set neighbour %s: %w", f.addr, err)
	}
	r := &netlink.Route{LinkIndex: dev, Dst: host(f.addr), Src: f.gateway.AsSlice(), Scope: netlink.SCOPE_LINK}
	if f.addr.Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	if err := m.nl.RouteReplace(r); err != nil {
		return fmt.Errorf("add route to %s: %w", f.addr, err)
	}
	return nil
}

func neighbour(dev int, a netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	fam := netlink.FAMILY_V4
	if a.Is6() {
		fam = netlink.FAMILY_V6
	}
	return &netlink.Neigh{LinkIndex: dev, Family: fam, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func addAddr(h *netlink.Handle, dev int, a netip.Addr, scope netlink.Scope) error {
	addr := &netlink.Addr{IPNet: host(a)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	} else {
		addr.Scope = int(scope)
	}
	l := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: dev}}
	if err := h.AddrAdd(l, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", a, err)
	}
	return nil
}

// destroyLinks removes the slot's device and namespace; nil when already gone.
func (m *Manager) destroyLinks(s Slot) error {
	return errors.Join(m.deleteDevice(s.Device), deleteNetNS(s.NetNS))
}

func (m *Manager) deleteDevice(name string) error {
	dev, err := m.nl.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find device %s: %w", name, err)
	}
	if err := m.nl.LinkDel(dev); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", name, err)
	}
	return nil
}

// gatewayAddrs puts the gateway addresses on the loopback device. Sandboxes
// reach them through their default route; the guard lets nobody else.
func (m *Manager) gatewayAddrs() error {
	lo, err := m.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	gw := m.plan.slot(firstSlot)
	// Link scope, so that the host never picks it as the source of its own packets.
	if err := addAddr(m.nl, lo.Attrs().Index, gw.Gateway4, netlink.SCOPE_LINK); err != nil {
		return err
	}
	if !gw.Gateway6.IsValid() {
		return nil
	}
	return addAddr(m.nl, lo.Attrs().Index, gw.Gateway6, 0)
}

func (m *Manager) removeGatewayAddrs() error {
	lo, err := m.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	var errs []error
	gw := m.plan.slot(firstSlot)
	for _, a := range []netip.Addr{gw.Gateway4, gw.Gateway6} {
		if !a.IsValid() {
			continue
		}
		err := m.nl.AddrDel(lo, &netlink.Addr{IPNet: host(a)})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

// listDevices returns the slots of this server that have a device.
func (m *Manager) listDevices() (map[int]bool, error) {
	links, err := whole(m.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := map[int]bool{}
	for _, l := range links {
		if i, ok := indexAfter(l.Attrs().Name, devicePrefix(m.plan.ID)); ok {
			out[i] = true
		}
	}
	return out, nil
}

// uplinkMTU is the smallest MTU of the devices that default routes use.
func (m *Manager) uplinkMTU() int {
	mtu := 1500
	routes, err := whole(func() ([]netlink.Route, error) { return m.nl.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return mtu
	}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		if l, err := m.nl.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= 1280 {
			mtu = min(mtu, l.Attrs().MTU)
		}
	}
	return mtu
}

func openHostNS() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }
