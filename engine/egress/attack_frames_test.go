package egress

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

var (
	gatewayMAC = [6]byte{2, 0x61, 0x74, 0, 0, 1} // of the host's end of every pair
	everybody  = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func packetSocket() (int, error) {
	return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.ETH_P_ALL>>8|unix.ETH_P_ALL<<8&0xff00)
}

// send puts whole frames on the device of a sandbox.
func (f *field) send(s network.Slot, frames ...[]byte) error {
	return networktest.In(s.NetNS, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		for _, b := range frames {
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: eth.Index, Halen: 6}); err != nil {
				return err
			}
		}
		return nil
	})
}

func ether(to, from [6]byte, kind uint16, body []byte) []byte {
	b := append(append([]byte{}, to[:]...), from[:]...)
	return append(binary.BigEndian.AppendUint16(b, kind), body...)
}

// packet4 is an IPv4 packet. frag is the field of flags and offset.
func packet4(src, dst netip.Addr, proto byte, id, frag uint16, options, body []byte) []byte {
	h := make([]byte, 20, 20+len(options)+len(body))
	h = append(h, options...)
	h[0], h[8], h[9] = 0x40|byte(len(h)/4), 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], frag)
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], sum16(h))
	return append(h, body...)
}

func packet6(src, dst netip.Addr, next byte, body []byte) []byte {
	h := make([]byte, 8, 40+len(body))
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	return append(h, body...)
}

func ip4(s network.Slot, dst string, proto byte, body []byte) []byte {
	return ether(gatewayMAC, network.InsideMAC(), unix.ETH_P_IP, packet4(s.Addr4, netip.MustParseAddr(dst), proto, 0, 0, nil, body))
}

func ip6(s network.Slot, dst string, next byte, body []byte) []byte {
	return ether(gatewayMAC, network.InsideMAC(), unix.ETH_P_IPV6, packet6(s.Addr6, netip.MustParseAddr(dst), next, body))
}

func udp4(s network.Slot, dst string, port uint16, text string) []byte {
	return ip4(s, dst, unix.IPPROTO_UDP, datagram(s.Addr4, netip.MustParseAddr(dst), 4000, port, text))
}

func udp6(s network.Slot, dst string, port uint16, text string) []byte {
	return ip6(s, dst, unix.IPPROTO_UDP, datagram(s.Addr6, netip.MustParseAddr(dst), 4000, port, text))
}

// datagram is a UDP header and its payload.
func datagram(src, dst netip.Addr, from, to uint16, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(text)))
	b = append(b, text...)
	binary.BigEndian.PutUint16(b[6:], upperSum(src, dst, unix.IPPROTO_UDP, b))
	return b
}

const (
	flagSYN = 2
	flagACK = 0x10
	flagPSH = 8
)

// segment is a TCP header and its payload.
func segment(src, dst netip.Addr, from, to uint16, seq, ack uint32, flags byte, text string) []byte {
	b := make([]byte, 20, 20+len(text))
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 500)
	b = append(b, text...)
	binary.BigEndian.PutUint16(b[16:], upperSum(src, dst, unix.IPPROTO_TCP, b))
	return b
}

func tcp4(s network.Slot, dst string, port uint16, flags byte, text string) []byte {
	d := netip.MustParseAddr(dst)
	return ip4(s, dst, unix.IPPROTO_TCP, segment(s.Addr4, d, 4001, port, 100, 0, flags, text))
}

func tcp6(s network.Slot, dst string, port uint16, flags byte, text string) []byte {
	d := netip.MustParseAddr(dst)
	return ip6(s, dst, unix.IPPROTO_TCP, segment(s.Addr6, d, 4001, port, 100, 0, flags, text))
}

// icmp is an ICMP message; what follows its type and code, from byte 4.
func icmp(kind, code byte, text string) []byte {
	b := append([]byte{kind, code, 0, 0, 0, 7, 0, 1}, text...)
	binary.BigEndian.PutUint16(b[2:], sum16(b))
	return b
}

func icmp6(src netip.Addr, dst string, kind, code byte, text string) []byte {
	b := append([]byte{kind, code, 0, 0, 0, 7, 0, 1}, text...)
	binary.BigEndian.PutUint16(b[2:], upperSum(src, netip.MustParseAddr(dst), unix.IPPROTO_ICMPV6, b))
	return b
}

// fragment6 is a fragment header before a part of a packet's body.
func fragment6(next byte, offset uint16, more bool, id uint32, body []byte) []byte {
	if more {
		offset |= 1
	}
	b := binary.BigEndian.AppendUint16([]byte{next, 0}, offset)
	return append(binary.BigEndian.AppendUint32(b, id), body...)
}

func arp(op uint16, mac [6]byte, sender, target netip.Addr, pad string) []byte {
	p := []byte{0, 1, 8, 0, 6, 4, byte(op >> 8), byte(op)}
	p = append(append(p, mac[:]...), sender.AsSlice()...)
	p = append(append(p, make([]byte, 6)...), target.AsSlice()...)
	return append(p, pad...)
}

func upperSum(src, dst netip.Addr, proto byte, b []byte) uint16 {
	var p bytes.Buffer
	p.Write(src.AsSlice())
	p.Write(dst.AsSlice())
	_ = binary.Write(&p, binary.BigEndian, uint32(len(b)))
	_ = binary.Write(&p, binary.BigEndian, uint32(proto))
	p.Write(b)
	return sum16(p.Bytes())
}

func sum16(b []byte) uint16 {
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

// listenHost greets on a port of every address of the host.
func listenHost(port string) (func(), error) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return nil, err
	}
	go echo(l, "host")
	return func() { l.Close() }, nil
}
