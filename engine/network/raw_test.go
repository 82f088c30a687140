package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func threadSysctl(key string) string { return readSysctl(key) }

func addRoute(dst, gw string) error {
	_, n, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: n, Gw: net.ParseIP(gw)})
}

// listenFar counts the UDP packets to port 99 of the internet. The function it
// returns waits and tells whether one came since it was last asked.
func listenFar(t *testing.T, w *world) func(wait time.Duration) bool {
	t.Helper()
	got := make(chan struct{}, 100)
	must(t, inNS(w.ns, func() error {
		for _, a := range []string{"0.0.0.0:99", "[::]:99"} {
			network := "udp4"
			if a[0] == '[' {
				network = "udp6"
			}
			u, err := net.ListenPacket(network, a)
			if err != nil {
				return err
			}
			t.Cleanup(func() { u.Close() })
			go func() {
				buf := make([]byte, 100)
				for {
					if _, _, err := u.ReadFrom(buf); err != nil {
						return
					}
					got <- struct{}{}
				}
			}()
		}
		return nil
	}))
	return func(wait time.Duration) bool {
		select {
		case <-got:
			return true
		case <-time.After(wait):
			return false
		}
	}
}

// sendRaw sends a UDP packet with any IPv4 source as a whole frame.
func sendRaw(_ Slot, src, dst string) error { return sendFrame(frame4(src, dst)) }

func sendRaw6(_ Slot, src, dst string) error { return sendFrame(frame6(src, dst)) }

func sendFrame(b []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	eth, err := net.InterfaceByName(insideDevice)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: eth.Index, Halen: 6})
}

func ethernet(to, from net.HardwareAddr, kind uint16, body []byte) []byte {
	b := append(append([]byte{}, to...), from...)
	return append(binary.BigEndian.AppendUint16(b, kind), body...)
}

func udp() []byte {
	b := make([]byte, 8, 10)
	binary.BigEndian.PutUint16(b[0:], 4000)
	binary.BigEndian.PutUint16(b[2:], 99)
	binary.BigEndian.PutUint16(b[4:], 10)
	return append(b, 'h', 'i')
}

func frame4(src, dst string) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
	body := udp() // no checksum, which IPv4 allows
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
	copy(h[12:], netip.MustParseAddr(src).AsSlice())
	copy(h[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return ethernet(hostMAC(), insideMAC(), unix.ETH_P_IP, append(h, body...))
}

func frame6(src, dst string) []byte {
	body := udp()
	s, d := netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice()
	pseudo := append(append([]byte{}, s...), d...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(body)), 0, 0, 0, unix.IPPROTO_UDP)
	binary.BigEndian.PutUint16(body[6:], checksum(append(pseudo, body...)))
	h := make([]byte, 8, 40)
	h[0], h[6], h[7] = 0x60, unix.IPPROTO_UDP, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	h = append(append(h, s...), d...)
	return ethernet(hostMAC(), insideMAC(), unix.ETH_P_IPV6, append(h, body...))
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// neighbourTricks are frames by which a tries to reach b below IP or to take
// its place.
func neighbourTricks(a, b Slot) [][]byte {
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	arp := func(op uint16, sender, target netip.Addr) []byte {
		p := []byte{0, 1, 8, 0, 6, 4, byte(op >> 8), byte(op)}
		p = append(append(p, insideMAC()...), sender.AsSlice()...)
		return append(append(p, make([]byte, 6)...), target.AsSlice()...)
	}
	toB := frame4(a.Addr4.String(), b.Addr4.String())
	return [][]byte{
		ethernet(everybody, insideMAC(), unix.ETH_P_ARP, arp(1, a.Addr4, b.Addr4)),
		ethernet(everybody, insideMAC(), unix.ETH_P_ARP, arp(2, b.Addr4, b.Addr4)),
		ethernet(everybody, insideMAC(), unix.ETH_P_ARP, arp(2, b.Gateway4, b.Gateway4)),
		toB,
		frame6(a.Addr6.String(), b.Addr6.String()),
		ethernet(everybody, insideMAC(), unix.ETH_P_IP, toB[14:]),
		ethernet(insideMAC(), hostMAC(), unix.ETH_P_IP, toB[14:]),
		frame4(a.Addr4.String(), "255.255.255.255"),
		frame4(a.Addr4.String(), "224.0.0.251"),
		frame6(a.Addr6.String(), "ff02::1"),
		frame4(b.Addr4.String(), far4),
	}
}

// sniff counts the frames that arrive in a namespace until the function it
// returns is called.
func sniff(t *testing.T, ns string) func() int64 {
	t.Helper()
	var fd int
	must(t, inNS(ns, func() (err error) {
		all := int(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval(patience.Nanoseconds())
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	}))
	var n atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			_, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
				n.Add(1)
			}
		}
	}()
	return func() int64 {
		<-done
		unix.Close(fd)
		return n.Load()
	}
}
