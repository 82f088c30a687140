package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/policies"
)

// errOutOfBounds is what a name that has only refused addresses fails with.
var errOutOfBounds = errors.New("it resolves to addresses that no sandbox may reach")

// resolve returns the addresses of a name that sandboxes of the policy may
// reach, IPv4 first.
func (f *Filter) resolve(ctx context.Context, p *policies.Policy, name string) ([]netip.Addr, error) {
	all, err := f.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(all, func(a netip.Addr) bool { return f.refuses(p, a) })
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", name, errOutOfBounds)
	}
	return out, nil
}

// lookup returns the addresses of a name, IPv4 first; at least one.
func (f *Filter) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	canonical, err := policies.CanonicalName(name)
	if err != nil {
		return nil, err
	}
	types := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	results := make([]found, len(types)) // of a question that fails, none
	var wg sync.WaitGroup
	for i, t := range types {
		wg.Go(func() {
			q := buildQuestion(0, canonical, t)
			if _, question, err := parseQuestion(q); err == nil {
				results[i], _ = addresses(question, f.host.Resolve(ctx, q))
			}
		})
	}
	wg.Wait()
	var out []netip.Addr
	for _, r := range results {
		for _, rec := range r.records {
			if !slices.Contains(out, rec.addr) {
				out = append(out, rec.addr)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s does not resolve", canonical)
	}
	return out, nil
}

// originalDestination tells where the sandbox connected to, before the guard
// led it here.
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	v6 := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is6()
	var out netip.AddrPort
	err2 := raw.Control(func(fd uintptr) { out, err = originalOf(int(fd), v6) })
	if err2 != nil {
		err = err2
	}
	return out, err
}

const soOriginalDst = 80 // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST

func originalOf(fd int, v6 bool) (netip.AddrPort, error) {
	level, size := uintptr(unix.SOL_IP), uint32(unix.SizeofSockaddrInet4)
	if v6 {
		level, size = unix.SOL_IPV6, unix.SizeofSockaddrInet6
	}
	var raw [unix.SizeofSockaddrInet6]byte
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), level, soOriginalDst,
		uintptr(unsafe.Pointer(&raw[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	port := uint16(raw[2])<<8 | uint16(raw[3])
	if v6 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port), nil
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), nil
}
