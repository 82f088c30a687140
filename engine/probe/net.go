package probe

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// nft makes the kinds of chains, sets and rules that the guard consists of, in
// a network namespace of its own.
func nft(context.Context, Options) engine.Check {
	err := apart(unix.CLONE_NEWNET, func() error {
		c, err := nftables.New(nftables.AsLasting()) // the socket stays in this namespace
		if err != nil {
			return err
		}
		defer c.CloseLasting()
		t := c.AddTable(&nftables.Table{Name: "probe", Family: nftables.TableFamilyINet})
		set := &nftables.Set{
			Table: t, Name: "s", Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr),
		}
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
		raw := base(c, t, "raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
		rule(c, raw, &expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)}, &expr.Verdict{Kind: expr.VerdictDrop})
		fwd := base(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
		rule(c, fwd, &expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
		post := base(c, t, "post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
		rule(c, post, &expr.Masq{FullyRandom: true})
		return c.Flush()
	})
	if err != nil {
		return bad("the guard's rules are refused: "+err.Error(), "modprobe -a nf_tables nft_fib_inet nft_reject_inet nft_ct nft_masq nft_nat; Linux 5.2 or later")
	}
	return good("sets, route lookups, connection tracking, NAT and refusals work")
}

func base(c *nftables.Conn, t *nftables.Table, name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	return c.AddChain(&nftables.Chain{Name: name, Table: t, Type: kind, Hooknum: hook, Priority: prio})
}

func rule(c *nftables.Conn, ch *nftables.Chain, es ...expr.Any) {
	c.AddRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: es})
}

// firewalls looks for others that drop what is not theirs, as Docker's does to
// forwarded packets. An accept in one table is no use when another drops.
func firewalls(ctx context.Context, _ Options) engine.Check {
	c, err := nftables.New()
	if err != nil {
		return bad(err.Error(), "")
	}
	chains, err := c.ListChains()
	if err != nil {
		return bad("cannot be listed: "+err.Error(), "")
	}
	var forward, input []string
	for _, ch := range chains {
		if ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop || ch.Hooknum == nil || letsUs(c, chains, ch.Table) {
			continue
		}
		name := fmt.Sprintf("%s %s", ch.Table.Name, ch.Name)
		switch *ch.Hooknum {
		case *nftables.ChainHookForward:
			forward = append(forward, name)
		case *nftables.ChainHookInput:
			input = append(input, name)
		}
	}
	f, i := legacyDrops(ctx)
	return judgeFirewalls(append(forward, f...), append(input, i...))
}

func judgeFirewalls(forward, input []string) engine.Check {
	if len(forward)+len(input) == 0 {
		return good("none that drops by default")
	}
	var detail, fix []string
	if len(forward) > 0 {
		detail = append(detail, "forwarded packets are dropped by "+strings.Join(forward, ", ")+", so sandboxes may have no internet")
		fix = append(fix, "for i in -i -o; do for t in iptables ip6tables; do $t -I FORWARD $i at+ -j ACCEPT; done; done (with Docker: in DOCKER-USER)")
	}
	if len(input) > 0 {
		detail = append(detail, "packets to the host are dropped by "+strings.Join(input, ", ")+", so sandboxes may have no DNS")
		fix = append(fix, "for p in udp tcp; do for t in iptables ip6tables; do $t -I INPUT -i at+ -p $p --dport 53 -j ACCEPT; done; done")
	}
	return bad(strings.Join(detail, "; "), strings.Join(fix, "; "))
}

// letsUs tells whether table t has a rule about devices at*, as the fix makes,
// or is a guard of ours.
func letsUs(c *nftables.Conn, chains []*nftables.Chain, t *nftables.Table) bool {
	if strings.HasPrefix(t.Name, "atoll_") {
		return true
	}
	return slices.ContainsFunc(chains, func(ch *nftables.Chain) bool {
		if ch.Table.Name != t.Name || ch.Table.Family != t.Family {
			return false
		}
		rules, err := c.GetRules(t, ch)
		return err == nil && slices.ContainsFunc(rules, func(r *nftables.Rule) bool {
			return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
				cmp, ok := e.(*expr.Cmp)
				return ok && bytes.HasPrefix(cmp.Data, []byte("at"))
			})
		})
	})
}

// legacyDrops asks the iptables of old, whose rules nftables does not show.
func legacyDrops(ctx context.Context) (forward, input []string) {
	b, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil || !strings.Contains(string(b), "filter") {
		return nil, nil
	}
	out, err := exec.CommandContext(ctx, "iptables-legacy", "-S").Output()
	if err != nil || strings.Contains(string(out), " at+ ") {
		return nil, nil
	}
	if strings.Contains(string(out), "-P FORWARD DROP") {
		forward = []string{"iptables-legacy FORWARD"}
	}
	if strings.Contains(string(out), "-P INPUT DROP") {
		input = []string{"iptables-legacy INPUT"}
	}
	return forward, input
}

// forwarding tells what the server will switch on.
func forwarding(context.Context, Options) engine.Check {
	var off []string
	for _, k := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		b, err := os.ReadFile("/proc/sys/" + k)
		if err == nil && strings.TrimSpace(string(b)) == "0" {
			off = append(off, strings.ReplaceAll(k, "/", "."))
		}
	}
	if len(off) > 0 {
		return good("off; the server switches on " + strings.Join(off, " and ") + ", and accept_ra=2 on devices that configure themselves")
	}
	return good("on")
}

// ipv6 tells whether sandboxes get IPv6, and whether it leads anywhere.
func ipv6(context.Context, Options) engine.Check {
	for _, k := range []string{"all", "default", "lo"} {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + k + "/disable_ipv6")
		if err != nil {
			return bad("not in the kernel: sandboxes have IPv4 only", "")
		}
		if strings.TrimSpace(string(b)) != "0" {
			return bad("switched off: sandboxes have IPv4 only", "sysctl -w net.ipv6.conf."+k+".disable_ipv6=0")
		}
	}
	// Connecting a UDP socket sends nothing, it only looks for a route.
	c, err := net.Dial("udp6", "[2001:db8::1]:9")
	if err != nil {
		return good("on, but the host has no route to the internet with it")
	}
	c.Close()
	return good("on, with a route to the internet")
}
