package egress

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// from6 is a datagram with any source.
func from6(src, dst, mark string) []byte {
	return ether(gatewayMAC, network.InsideMAC(), unix.ETH_P_IPV6, packet6(addr(src), addr(dst), unix.IPPROTO_UDP, datagram(addr(src), addr(dst), 4000, 9, mark)))
}

// from4 is a datagram with any source, hardware address and options.
func from4(mac [6]byte, src, dst netip.Addr, options []byte, mark string) []byte {
	return ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(src, dst, unix.IPPROTO_UDP, 0, 0, options, datagram(src, dst, 4000, 9, mark)))
}

func ipv6Attacks() []attack {
	to := func(list ...string) func(*field, string) error {
		return func(f *field, mark string) error {
			for _, s := range []network.Slot{f.list, f.name, f.open} {
				for _, a := range list {
					if err := f.send(s, udp6(s, a, 9, mark), tcp6(s, a, 443, flagSYN, mark)); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	header := func(kind byte, body ...byte) func(*field, string) error {
		return frames(theList, func(s network.Slot, mark string) [][]byte {
			h := append([]byte{unix.IPPROTO_UDP, byte(len(body)+2)/8 - 1}, body...)
			return [][]byte{ip6(s, good6, kind, append(h, datagram(s.Addr6, addr(good6), 4000, 9, mark)...))}
		})
	}
	nd := func(kind byte, body func(s network.Slot) []byte) func(*field, string) error {
		return every(func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, to := range []string{evil6, good6} {
				b := slices.Concat([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, body(s), []byte(mark))
				binary.BigEndian.PutUint16(b[2:], upperSum(s.Addr6, addr(to), unix.IPPROTO_ICMPV6, b))
				out = append(out, ip6(s, to, unix.IPPROTO_ICMPV6, b))
			}
			return out
		})
	}
	self := func(s network.Slot) []byte { return s.Addr6.AsSlice() }
	nonce := func(s network.Slot) []byte { return append(s.Addr6.AsSlice(), 14, 1, 0, 0, 0, 0, 0, 0) }
	return []attack{
		{"ipv6", "own-addresses", "addresses that the sandbox gave itself, as from a router advertisement", frames(theList, func(s network.Slot, mark string) [][]byte {
			return [][]byte{from6("2001:db8:1::77", good6, mark), from6("fd77::1", good6, mark), from6("fe80::61:74ff:fe00:2", good6, mark), from6("::", good6, mark), from6("::1", good6, mark)}
		})},
		{"ipv6", "nat64", "the metadata service and the internet through NAT64", to("64:ff9b::a9fe:a9fe", "64:ff9b::cb00:7109", "64:ff9b:1::a9fe:a9fe")},
		{"ipv6", "6to4", "the same through 6to4 and Teredo", to("2002:a9fe:a9fe::1", "2002:cb00:7109::1", "2001:0:a9fe:a9fe::1")},
		{"ipv6", "mapped", "IPv4 addresses mapped into IPv6 packets", to("::ffff:169.254.169.254", "::ffff:203.0.113.9", "::ffff:198.51.100.7")},
		{"ipv6", "compatible", "IPv4-compatible, SIIT and ISATAP addresses", to("::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "fe80::5efe:a9fe:a9fe")},
		{"ipv6", "private", "unique local, site-local, link-local and loopback addresses", to("fd77::1", "fd00:ec2::254", "fec0::1", "fe80::1", "::1", "::")},
		{"ipv6", "routing-header", "a routing header by way of an allowed address", header(43, 2, 1, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9)},
		{"ipv6", "hop-by-hop", "a hop-by-hop header", header(0, 1, 4, 0, 0, 0, 0)},
		{"ipv6", "destination-options", "destination options, to hide the ports", header(60, 1, 4, 0, 0, 0, 0)},
		{"ipv6", "router-solicitation", "data in router solicitations to any address, which routers should never forward", nd(133, func(network.Slot) []byte { return nil })},
		{"ipv6", "router-advertisement", "forged router advertisements", nd(134, func(network.Slot) []byte { return make([]byte, 8) })},
		{"ipv6", "neighbour-solicitation", "data in neighbour solicitations to any address", nd(135, self)},
		{"ipv6", "neighbour-nonce", "the same behind an option that is allowed", nd(135, nonce)},
		{"ipv6", "neighbour-advertisement", "data in neighbour advertisements to any address", nd(136, nonce)},
		{"ipv6", "redirect", "forged redirects", nd(137, self)},
		{"ipv6", "atomic-fragment", "a whole packet in a fragment header, to a foreign address", every(func(s network.Slot, mark string) [][]byte {
			rs := append([]byte{133, 0, 0, 0, 0, 0, 0, 0}, mark...)
			binary.BigEndian.PutUint16(rs[2:], upperSum(s.Addr6, addr(evil6), unix.IPPROTO_ICMPV6, rs))
			return [][]byte{
				ip6(s, evil6, 44, fragment6(unix.IPPROTO_UDP, 0, false, 7, datagram(s.Addr6, addr(evil6), 4000, 9, mark))),
				ip6(s, evil6, 44, fragment6(unix.IPPROTO_ICMPV6, 0, false, 8, rs)),
			}
		})},
		{"ipv6", "node-information", "other kinds of ICMPv6: node information, multicast listeners, and unknown ones", every(func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, k := range []byte{0, 130, 131, 132, 139, 140, 141, 143, 144, 151, 155, 160, 200, 255} {
				out = append(out, ip6(s, good6, unix.IPPROTO_ICMPV6, icmp6(s.Addr6, good6, k, 0, mark)), ip6(s, evil6, unix.IPPROTO_ICMPV6, icmp6(s.Addr6, evil6, k, 0, mark)))
			}
			return out
		})},
		{"ipv6", "evil", "plain datagrams, segments and echo to foreign addresses", every(func(s network.Slot, mark string) [][]byte {
			return [][]byte{udp6(s, evil6, 9, mark), tcp6(s, evil6, 22, flagSYN, mark), ip6(s, evil6, unix.IPPROTO_ICMPV6, icmp6(s.Addr6, evil6, 128, 0, mark))}
		})},
	}
}

func rawAttacks() []attack {
	protocol := func(list ...byte) func(*field, string) error {
		return func(f *field, mark string) error {
			for _, s := range []network.Slot{f.list, f.name, f.open} {
				for _, p := range list {
					for _, to := range []string{evil4, good4} {
						if err := f.send(s, ip4(s, to, p, []byte("\x00\x00\x08\x00"+mark+mark))); err != nil {
							return err
						}
					}
				}
			}
			return nil
		}
	}
	tunnelled := func(proto byte, head string) func(*field, string) error {
		return frames(theOpen, func(s network.Slot, mark string) [][]byte {
			in := packet4(s.Addr4, addr(metadata4), unix.IPPROTO_UDP, 0, 0, nil, datagram(s.Addr4, addr(metadata4), 1, 80, mark))
			return [][]byte{ip4(s, good4, proto, append([]byte(head), in...))}
		})
	}
	mac := network.InsideMAC()
	option := func(b ...byte) func(*field, string) error {
		return every(func(s network.Slot, mark string) [][]byte {
			return [][]byte{from4(mac, s.Addr4, addr(good4), b, mark), from4(mac, s.Addr4, addr(evil4), b, mark)}
		})
	}
	return []attack{
		{"raw", "packet-socket", "whole frames to a foreign address", every(func(s network.Slot, mark string) [][]byte {
			return [][]byte{udp4(s, evil4, 9, mark), tcp4(s, evil4, 22, flagSYN, mark), tcp4(s, evil4, 22, flagACK|flagPSH, mark)}
		})},
		{"raw", "web-segments", "segments to the web ports of a foreign address that begin no connection", every(func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, flags := range []byte{0, 1, 4, flagSYN, flagACK | flagPSH, flagSYN | flagACK, 0x29, 0xff} {
				out = append(out, tcp4(s, evil4, 443, flags, mark), tcp4(s, evil4, 80, flags, mark), tcp6(s, evil6, 443, flags, mark))
			}
			return out
		})},
		{"raw", "marked-socket", "sockets that carry the marks of the host", func(f *field, mark string) error {
			for _, s := range []network.Slot{f.list, f.name} {
				for _, m := range []int{0x5b000001, 0x5b000002, 0x5b000003, 0x5b000004} {
					_ = networktest.In(s.NetNS, func() error {
						fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
						if err != nil {
							return err
						}
						defer unix.Close(fd)
						if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, m); err != nil {
							return err
						}
						return unix.Sendto(fd, []byte(mark), 0, &unix.SockaddrInet4{Port: 9, Addr: addr(evil4).As4()})
					})
				}
			}
			return nil
		}},
		{"raw", "raw-socket", "raw sockets of every protocol", func(f *field, mark string) error {
			return networktest.In(f.list.NetNS, func() error {
				for _, p := range []int{1, 2, 4, 6, 17, 41, 47, 50, 51, 88, 89, 103, 112, 132, 136, 253, 255} {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, p)
					if err != nil {
						return err
					}
					_ = unix.Sendto(fd, []byte("\x08\x00\x00\x00"+mark+mark), 0, &unix.SockaddrInet4{Addr: addr(evil4).As4()})
					unix.Close(fd)
				}
				return nil
			})
		}},
		{"raw", "echo", "data in echo requests", every(func(s network.Slot, mark string) [][]byte {
			return [][]byte{ip4(s, evil4, 1, icmp(8, 0, mark)), ip4(s, evil4, 1, icmp(0, 0, mark)), ip4(s, good4, 1, icmp(0, 0, mark))}
		})},
		{"raw", "other-icmp", "timestamps, redirects, and errors about nothing", every(func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, k := range []byte{3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 17, 30, 40, 42, 255} {
				out = append(out, ip4(s, evil4, 1, icmp(k, 0, mark+mark+mark+mark)), ip4(s, good4, 1, icmp(k, 0, mark+mark+mark+mark)))
			}
			return out
		})},
		{"raw", "icmp-about-flow", "an ICMP error about an allowed flow, with data, to somebody else", func(f *field, mark string) error {
			time.Sleep(time.Second) // the attacks before it have used up what is told of such in a second
			f.warm(f.list, good4, 9)
			q := packet4(addr(good4), f.list.Addr4, unix.IPPROTO_UDP, 0, 0, nil, datagram(addr(good4), f.list.Addr4, 9, 4000, mark))
			return f.send(f.list, ip4(f.list, evil4, 1, icmp(3, 1, string(q))))
		}},
		{"raw", "icmp-about-proxied", "an ICMP error about a connection to the proxy, with data, to where it seems to go", func(f *field, mark string) error {
			c, err := connect(f.name, "tcp", evil4+":443", wait)
			if err != nil {
				return nil
			}
			defer c.Close()
			port := uint16(netip.MustParseAddrPort(c.LocalAddr().String()).Port())
			q := packet4(addr(evil4), f.name.Addr4, unix.IPPROTO_TCP, 0, 0, nil, segment(addr(evil4), f.name.Addr4, 443, port, 1, 1, flagACK, mark))
			return f.send(f.name, ip4(f.name, evil4, 1, icmp(3, 4, string(q))))
		}},
		{"raw", "gre", "metadata and foreign addresses inside GRE", tunnelled(47, "\x00\x00\x08\x00")},
		{"raw", "ipip", "the same as IP in IP", tunnelled(4, "")},
		{"raw", "sctp", "SCTP, DCCP, ESP, AH, UDP-Lite, IGMP and unknown protocols", protocol(132, 33, 50, 51, 136, 2, 88, 89, 103, 112, 115, 253, 255)},
		{"raw", "loose-source-route", "a source route by way of an allowed address", option(131, 7, 4, 203, 0, 113, 9, 0)},
		{"raw", "strict-source-route", "a strict source route", option(137, 7, 4, 203, 0, 113, 9, 0)},
		{"raw", "record-route", "record route, timestamp and router alert options", option(7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0)},
		{"raw", "spoofed-address", "the addresses of the host, another sandbox, the peer and nobody as source", func(f *field, mark string) error {
			for _, src := range []string{"192.0.2.65", f.victim.Addr4.String(), good4, "0.0.0.0", "255.255.255.255", "127.0.0.1", f.list.Gateway4.String(), metadata4} {
				if err := f.send(f.list, from4(mac, addr(src), addr(good4), nil, mark)); err != nil {
					return err
				}
			}
			return f.send(f.list, from6(f.victim.Addr6.String(), good6, mark), from6(f.list.Gateway6.String(), good6, mark))
		}},
		{"raw", "spoofed-mac", "another hardware address as source, to an allowed address", frames(theList, func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, m := range [][6]byte{gatewayMAC, everybody, {}, {2, 0, 0, 0, 0, 9}} {
				out = append(out, from4(m, s.Addr4, addr(good4), nil, mark))
			}
			return out
		})},
		{"raw", "vlan", "frames with one and two VLAN tags, and tags of other kinds", frames(theList, func(s network.Slot, mark string) [][]byte {
			in := from4(mac, s.Addr4, addr(good4), nil, mark)
			var out [][]byte
			for _, kind := range []uint16{0x8100, 0x88a8, 0x9100} {
				tagged := slices.Concat([]byte{0, 5}, in[12:])
				out = append(out, ether(gatewayMAC, mac, kind, tagged), ether(gatewayMAC, mac, 0x88a8, slices.Concat([]byte{0, 6, 0x81, 0}, tagged)))
			}
			return out
		})},
		{"raw", "other-frames", "frames of other kinds: LLC, MPLS, PPPoE, loopback, LLDP, ours by name only", frames(theList, func(s network.Slot, mark string) [][]byte {
			in := from4(mac, s.Addr4, addr(good4), nil, mark)[14:]
			var out [][]byte
			for _, kind := range []uint16{uint16(len(in)), 0x8847, 0x8864, 0x9000, 0x88cc, 0x22f0, 0x0806, 0x8035, 0x86dd, 0xffff} {
				out = append(out, ether(gatewayMAC, mac, kind, in))
			}
			return out
		})},
		{"raw", "arp", "ARP answers for the gateway, other sandboxes and the internet, with data", func(f *field, mark string) error {
			var out [][]byte
			for _, op := range []uint16{1, 2, 3, 8} {
				for _, sender := range []netip.Addr{f.list.Gateway4, f.victim.Addr4, addr(good4), f.list.Addr4} {
					out = append(out, ether(everybody, mac, unix.ETH_P_ARP, arp(op, mac, sender, f.victim.Addr4, mark)))
				}
			}
			return f.send(f.list, out...)
		}},
		{"raw", "dhcp", "data in the messages of a DHCP client and server, over IPv4 and IPv6, by broadcast and to foreign addresses", every(func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, ports := range [][2]uint16{{68, 67}, {67, 68}} {
				for _, to := range []string{"255.255.255.255", evil4} {
					for _, from := range []string{"0.0.0.0", s.Addr4.String()} {
						out = append(out, ether(everybody, network.InsideMAC(), unix.ETH_P_IP,
							packet4(addr(from), addr(to), unix.IPPROTO_UDP, 0, 0, nil, datagram(addr(from), addr(to), ports[0], ports[1], mark))))
					}
				}
			}
			for _, to := range []string{"ff02::1:2", "ff05::1:3", evil6} {
				out = append(out, ip6(s, to, unix.IPPROTO_UDP, datagram(s.Addr6, addr(to), 546, 547, mark)))
			}
			return out
		})},
		{"raw", "headers", "wrong versions, lengths and short headers", frames(theList, func(s network.Slot, mark string) [][]byte {
			var out [][]byte
			for _, change := range []func([]byte){
				func(b []byte) { b[14] = 0x55 }, func(b []byte) { b[14] = 0x44 }, func(b []byte) { b[14] = 0x4f }, func(b []byte) { b[17] = 0 },
			} {
				b := udp4(s, evil4, 9, mark)
				change(b)
				out = append(out, b)
			}
			return append(out, udp4(s, evil4, 9, mark)[:34], ip4(s, evil4, 6, []byte(mark)), ether(gatewayMAC, mac, unix.ETH_P_IP, []byte(mark)))
		})},
		{"raw", "broadcast-frame", "a foreign packet in a broadcast and in a multicast frame", every(func(s network.Slot, mark string) [][]byte {
			in := udp4(s, evil4, 9, mark)[14:]
			return [][]byte{ether(everybody, mac, unix.ETH_P_IP, in), ether([6]byte{1, 0, 0x5e, 0, 0, 1}, mac, unix.ETH_P_IP, in), ether([6]byte{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6, udp6(s, evil6, 9, mark)[14:])}
		})},
	}
}

// warm makes an allowed flow.
func (f *field) warm(s network.Slot, to string, port uint16) {
	f.t.Helper()
	must(f.t, f.send(s, udp4(s, to, port, "flow")))
	f.settle()
}

func fragmentAttacks() []attack {
	mac := network.InsideMAC()
	pieces := func(s network.Slot, dst string, proto byte, id uint16, cut int, body []byte) (first, rest []byte) {
		first = ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(s.Addr4, addr(dst), proto, id, 0x2000, nil, body[:cut]))
		rest = ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(s.Addr4, addr(dst), proto, id, uint16(cut/8), nil, body[cut:]))
		return first, rest
	}
	return []attack{
		{"fragment", "foreign", "a foreign datagram in two fragments, in both orders", every(func(s network.Slot, mark string) [][]byte {
			a, b := pieces(s, evil4, unix.IPPROTO_UDP, 31, 8, datagram(s.Addr4, addr(evil4), 4000, 9, mark))
			c, d := pieces(s, evil4, unix.IPPROTO_UDP, 32, 8, datagram(s.Addr4, addr(evil4), 4000, 9, mark))
			return [][]byte{a, b, d, c}
		})},
		{"fragment", "tiny", "a first fragment too small for the ports", every(func(s network.Slot, mark string) [][]byte {
			body := segment(s.Addr4, addr(evil4), 4001, 443, 1, 0, flagSYN, mark)
			a, b := pieces(s, evil4, unix.IPPROTO_TCP, 33, 8, body)
			c, d := pieces(s, evil4, unix.IPPROTO_TCP, 34, 16, body)
			return [][]byte{a, b, c, d}
		})},
		{"fragment", "proxied", "a connection to a foreign web server begins in fragments, in every order, so that the host might put it together without the proxy's mark", func(f *field, mark string) error {
			s := f.name
			for i, port := range []uint16{443, 80, 443, 80} {
				body := segment(s.Addr4, addr(evil4), uint16(4100+i), port, 1, 0, flagSYN, "text"+strings.Repeat(mark, 4))
				a, b := pieces(s, evil4, unix.IPPROTO_TCP, uint16(40+i), 24, body)
				// Seen once, a first fragment lets later ones pass ahead of it.
				order := [][]byte{a, b}
				if i >= 2 {
					order = [][]byte{a, b, b, a}
				}
				if err := f.send(s, order...); err != nil {
					return err
				}
			}
			for i, port := range []uint16{443, 80} {
				body := segment(s.Addr6, addr(evil6), uint16(4200+i), port, 1, 0, flagSYN, "text"+strings.Repeat(mark, 4))
				a := ip6(s, evil6, 44, fragment6(unix.IPPROTO_TCP, 0, true, uint32(50+i), body[:24]))
				b := ip6(s, evil6, 44, fragment6(unix.IPPROTO_TCP, 24, false, uint32(50+i), body[24:]))
				if err := f.send(s, a, b, b, a); err != nil {
					return err
				}
			}
			return nil
		}},
		{"fragment", "overlap", "a later fragment that would overwrite the ports of an allowed first one", frames(theList, func(s network.Slot, mark string) [][]byte {
			body := datagram(s.Addr4, addr(good4), 4000, 9, "allowed.")
			a, _ := pieces(s, good4, unix.IPPROTO_UDP, 61, 8, append(body, "padding."...))
			over := ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(s.Addr4, addr(evil4), unix.IPPROTO_UDP, 61, 0x2000, nil, datagram(s.Addr4, addr(evil4), 4000, 22, mark)))
			rest := ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(s.Addr4, addr(evil4), unix.IPPROTO_UDP, 61, 1, nil, []byte(mark)))
			return [][]byte{a, over, rest}
		})},
		{"fragment", "borrowed-id", "later fragments for a foreign address under the identifier of an allowed datagram", frames(theList, func(s network.Slot, mark string) [][]byte {
			a, _ := pieces(s, good4, unix.IPPROTO_UDP, 62, 8, append(datagram(s.Addr4, addr(good4), 4000, 9, ""), "12345678"...))
			_, b := pieces(s, evil4, unix.IPPROTO_UDP, 62, 8, append(make([]byte, 8), mark...))
			return [][]byte{a, b}
		})},
		{"fragment", "ipv6", "a foreign IPv6 datagram in two fragments, and with the ports in the second", every(func(s network.Slot, mark string) [][]byte {
			body := datagram(s.Addr6, addr(evil6), 4000, 9, mark)
			return [][]byte{
				ip6(s, evil6, 44, fragment6(unix.IPPROTO_UDP, 0, true, 71, body[:8])), ip6(s, evil6, 44, fragment6(unix.IPPROTO_UDP, 8, false, 71, body[8:])),
				ip6(s, good6, 44, fragment6(60, 0, true, 72, []byte{17, 0, 1, 4, 0, 0, 0, 0})), ip6(s, good6, 44, fragment6(60, 8, false, 72, body)),
			}
		})},
	}
}
