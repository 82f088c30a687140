package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// checkEvery bounds how long a missing piece of the guard stays unseen
	// when the kernel's notice was lost.
	checkEvery = 5 * time.Second
	// settle is the shortest time between two checks that notices start.
	settle = 250 * time.Millisecond
)

// watch hears of changes to nftables, addresses and routes of the host. Only
// that something changed is kept.
type watch struct {
	rules, routes *os.File
}

func newWatch() (*watch, error) {
	rules, err := subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	routes, err := subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		rules.Close()
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	return &watch{rules, routes}, nil
}

// subscribe opens a netlink socket that hears groups. Closing the file ends
// a read of it.
func subscribe(proto int, groups ...int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "netlink")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		f.Close()
		return nil, err
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

func (w *watch) close() {
	w.rules.Close()
	w.routes.Close()
}

// hear turns messages that matter into hints until f is closed. Lost messages
// (ENOBUFS) are a hint as well.
func (m *Manager) hear(f *os.File, hint chan struct{}, matters func([]byte) bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		if err != nil || matters(buf[:n]) {
			m.wake(hint)
		}
	}
}

// guardLoop puts back what others take away from the guard, and keeps the
// denied networks those of the host.
func (m *Manager) guardLoop(ctx context.Context, w *watch) {
	rules, routes := make(chan struct{}, 1), make(chan struct{}, 1)
	m.wg.Go(func() { m.hear(w.rules, rules, m.table.byOthers) })
	m.wg.Go(func() { m.hear(w.routes, routes, func([]byte) bool { return true }) })
	defer w.close()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	seen := map[netip.Addr]uint64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-rules:
			m.checkTable()
		case <-routes:
			m.checkHost()
		case <-tick.C:
			m.checkTable()
			m.checkHost()
			seen = m.tellUnasked(seen)
		}
		select { // notices come in bursts, our own among them
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
	}
}

func (m *Manager) checkTable() {
	fault, err := m.table.mend()
	if err != nil {
		m.log.Error("the network guard is damaged and cannot be restored", "fault", fault, "err", err)
	} else if fault != "" {
		m.log.Warn("the network guard was changed by somebody else and is restored", "fault", fault)
	}
}

// tellUnasked has the filter tell what the guard dropped since the counts were
// seen, and returns those of now.
func (m *Manager) tellUnasked(seen map[netip.Addr]uint64) map[netip.Addr]uint64 {
	if m.filter == nil {
		return seen
	}
	now, err := m.table.unasked()
	if err != nil {
		m.log.Debug("packets that nobody asked for are not told", "err", err)
		return seen
	}
	for a, n := range now {
		before := seen[a]
		if n < before { // the table was replaced
			before = 0
		}
		if slot, open := m.openSlot(a); open && n > before {
			m.filter.Unasked(slot, n-before)
		}
	}
	return now
}

func (m *Manager) checkHost() {
	nets, err := m.hostNetworks()
	if err == nil {
		err = m.table.deny(append(neverAllowed(), nets...))
	}
	err = errors.Join(err, m.gatewayAddrs(), m.enableForwarding())
	if err != nil {
		m.log.Error("following the host's networks", "err", err)
	}
}

// forgetFlows drops the connections that the host tracks for a slot.
func forgetFlows(s Slot) error {
	var errs []error
	for _, f := range s.families() {
		filter := &netlink.ConntrackFilter{}
		if err := filter.AddIP(netlink.ConntrackOrigSrcIP, f.addr.AsSlice()); err != nil {
			return err
		}
		fam := netlink.InetFamily(unix.AF_INET)
		if f.addr.Is6() {
			fam = unix.AF_INET6
		}
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, fam, filter)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
