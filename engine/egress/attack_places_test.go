package egress

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

func metadataAttacks() []attack {
	direct := func(list ...string) func(*field, string) error {
		return func(f *field, mark string) error {
			for _, s := range []network.Slot{f.open, f.list, f.name} {
				for _, a := range list {
					to := addr(a)
					if to.Is4() {
						if err := f.send(s, tcp4(s, a, 80, flagSYN, mark), udp4(s, a, 80, mark), ip4(s, a, 1, icmp(8, 0, mark))); err != nil {
							return err
						}
					} else if err := f.send(s, tcp6(s, a, 80, flagSYN, mark), udp6(s, a, 80, mark)); err != nil {
						return err
					}
					if c, err := connect(s, "tcp", netip.AddrPortFrom(to, 80).String(), patience); err == nil {
						c.Close()
						if s != f.name {
							return &leak{a, "connected"}
						}
					}
				}
			}
			return nil
		}
	}
	hosts := []string{"169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376", "169.254.43518", "169.16689662", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "①⑥⑨.②⑤④.①⑥⑨.②⑤④", "metadata.google.internal", "instance-data", "meta.example"}
	var texts []string
	for _, h := range hosts {
		texts = append(texts, "GET /latest/meta-data/MARK HTTP/1.1\r\nHost: "+h+"\r\n\r\n")
	}
	return []attack{
		{"metadata", "address", "the metadata services of clouds, from a sandbox that may reach everything", direct(metadata4, "169.254.170.2", "169.254.169.253", "100.100.100.200", "192.0.0.192", "168.63.129.16")},
		{"metadata", "ipv6-address", "the same over IPv6", direct("fd00:ec2::254", "fe80::a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1")},
		{"metadata", "spelling", "every spelling of the address as the host of a request", requests(texts...)},
		{"metadata", "name", "a name, allowed, that resolves to it", func(f *field, mark string) error {
			if got, err := get(f.name, "meta.example", evil4+":443"); err == nil {
				return &leak{"meta.example", got}
			}
			_, _, _ = lookup(f.name, "meta.example", dnsmessage.TypeA)
			_, _, _ = lookup(f.name, "meta.example", dnsmessage.TypeAAAA)
			return f.send(f.name, tcp4(f.name, metadata4, 80, flagSYN, mark), tcp4(f.name, metadata4, 443, flagSYN, mark))
		}},
		{"metadata", "redirect", "an allowed host sends the client on to the metadata service, which it asks at once", func(f *field, mark string) error {
			got, err := plain(f.name, good4+":80", "GET /to-metadata HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n")
			if err != nil || !strings.HasPrefix(got, "302") {
				return fmt.Errorf("no redirect, so nothing is proven: %q, %v", got, err)
			}
			return f.says(f.name, metadata4+":80", []byte("GET /"+mark+" HTTP/1.1\r\nHost: "+metadata4+"\r\n\r\n"))
		}},
		{"metadata", "listed", "a list that names the metadata service's network", func(f *field, mark string) error {
			s := f.slot(networks("169.254.0.0/16", "0.0.0.0/0", "::/0"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			return f.send(s, tcp4(s, metadata4, 80, flagSYN, mark), udp4(s, "100.100.100.200", 80, mark), udp6(s, "fd00:ec2::254", 80, mark))
		}},
	}
}

func hostAttacks() []attack {
	host := []string{"192.0.2.65", "127.0.0.1", "127.0.0.53", "0.0.0.0", "169.254.1.1"}
	return []attack{
		{"host", "server-port", "the port of the server on every address of the host", func(f *field, mark string) error {
			l, err := listenHost(serverPort)
			if err != nil {
				return err
			}
			defer l()
			for _, s := range []network.Slot{f.open, f.list, f.name} {
				for _, a := range []string{"192.0.2.65", s.Gateway4.String(), "[" + s.Gateway6.String() + "]", "[2001:db8:ffff::1]", "169.254.1.1"} {
					if who, err := greets(s, a+":"+serverPort, patience); err == nil {
						return &leak{a, who}
					}
				}
			}
			return nil
		}},
		{"host", "web-ports", "web servers of the host, past the proxy", func(f *field, mark string) error {
			for _, port := range []string{"80", "443"} {
				l, err := listenHost(port)
				if err != nil {
					return err
				}
				for _, a := range []string{"192.0.2.65", f.name.Gateway4.String(), "[2001:db8:ffff::1]"} {
					for _, s := range []network.Slot{f.name, f.open, f.list} {
						if who, err := greets(s, a+":"+port, patience); err == nil {
							l()
							return &leak{a, who}
						}
					}
				}
				l()
			}
			return nil
		}},
		{"host", "proxy-port", "the proxy's own port, without being led there", func(f *field, _ string) error {
			for _, l := range f.filter.proxy.listeners {
				for _, s := range []network.Slot{f.name, f.list, f.open} {
					if c, err := connect(s, "tcp", l.Addr().String(), patience); err == nil {
						c.Close()
						return &leak{l.Addr().String(), "connected"}
					}
				}
			}
			return nil
		}},
		{"host", "gateway-ports", "other ports of the gateway, and other protocols to its name relay", func(f *field, mark string) error {
			for _, s := range []network.Slot{f.open, f.name} {
				for _, p := range []string{"22", "80", "111", "2049", "5355", "8080"} {
					if c, err := connect(s, "tcp", s.Gateway4.String()+":"+p, patience); err == nil {
						c.Close()
						return &leak{p, "connected"}
					}
				}
				if err := f.send(s, ip4(s, s.Gateway4.String(), 132, []byte(mark)), ip4(s, s.Gateway4.String(), 47, []byte(mark))); err != nil {
					return err
				}
			}
			return nil
		}},
		{"host", "loopback", "the host's loopback and unspecified addresses in frames", func(f *field, mark string) error {
			for _, s := range []network.Slot{f.open, f.list, f.name} {
				for _, a := range host {
					if err := f.send(s, tcp4(s, a, 22, flagSYN, mark), udp4(s, a, 53, mark)); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"host", "private-networks", "networks behind the host that are nobody's business", func(f *field, mark string) error {
			for _, s := range []network.Slot{f.open, f.list, f.name} {
				for _, a := range []string{private4, "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.88.99.1", "240.0.0.1"} {
					if err := f.send(s, tcp4(s, a, 22, flagSYN, mark), tcp4(s, a, 443, flagSYN, mark), udp4(s, a, 9, mark)); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"host", "listed-private", "a list that names private networks", func(f *field, mark string) error {
			s := f.slot(networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			return f.send(s, udp4(s, private4, 9, mark), udp4(s, f.victim.Addr4.String(), 9, mark), udp4(s, "192.168.1.1", 9, mark), udp6(s, f.victim.Addr6.String(), 9, mark), udp6(s, "fd77::1", 9, mark))
		}},
	}
}

func sandboxAttacks() []attack {
	mac := network.InsideMAC()
	return []attack{
		{"sandbox", "addresses", "another sandbox on its addresses, by every protocol", func(f *field, mark string) error {
			for _, s := range []network.Slot{f.open, f.list, f.name} {
				v4, v6 := f.victim.Addr4.String(), f.victim.Addr6.String()
				err := f.send(s, udp4(s, v4, 9, mark), tcp4(s, v4, 22, flagSYN, mark), tcp4(s, v4, 443, flagSYN, mark), ip4(s, v4, 1, icmp(8, 0, mark)),
					udp6(s, v6, 9, mark), tcp6(s, v6, 443, flagSYN, mark), ip6(s, v6, 58, icmp6(s.Addr6, v6, 128, 0, mark)))
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"sandbox", "multicast", "all nodes, all routers and broadcast", every(func(s network.Slot, mark string) [][]byte {
			return [][]byte{udp4(s, "224.0.0.1", 9, mark), udp4(s, "255.255.255.255", 9, mark), udp4(s, "10.255.255.255", 9, mark), udp6(s, "ff02::1", 9, mark), udp6(s, "ff02::2", 9, mark), udp6(s, "ff0e::1", 9, mark), ip6(s, "ff02::1", 58, icmp6(s.Addr6, "ff02::1", 128, 0, mark))}
		})},
		{"sandbox", "frames", "frames to the other sandbox's hardware address, and as the gateway", func(f *field, mark string) error {
			in := packet4(f.list.Addr4, f.victim.Addr4, unix.IPPROTO_UDP, 0, 0, nil, datagram(f.list.Addr4, f.victim.Addr4, 1, 9, mark))
			return f.send(f.list, ether(mac, mac, unix.ETH_P_IP, in), ether(mac, gatewayMAC, unix.ETH_P_IP, in), ether(everybody, mac, unix.ETH_P_IP, in))
		}},
		{"sandbox", "answers", "packets as answers to connections of the other sandbox", func(f *field, mark string) error {
			f.warm(f.victim, good4, 9)
			src := addr(good4)
			return f.send(f.list, ether(gatewayMAC, mac, unix.ETH_P_IP, packet4(src, f.victim.Addr4, unix.IPPROTO_UDP, 0, 0, nil, datagram(src, f.victim.Addr4, 9, 4000, mark))))
		}},
		{"sandbox", "internet-back", "the internet, which has found a way to the sandboxes' addresses, sends to them unasked", func(f *field, mark string) error {
			return networktest.In(f.net.NS, func() error {
				to := &net.IPNet{IP: f.victim.Addr4.AsSlice(), Mask: net.CIDRMask(32, 32)}
				if err := netlink.RouteReplace(&netlink.Route{Dst: to, Gw: net.ParseIP("192.0.2.65")}); err != nil {
					return err
				}
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return unix.Sendto(fd, []byte(mark), 0, &unix.SockaddrInet4{Port: 9, Addr: f.victim.Addr4.As4()})
			})
		}},
	}
}

type leak struct{ to, got string }

func (l *leak) Error() string { return l.to + ": " + l.got }
