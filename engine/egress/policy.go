package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	kernel "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// FromNetwork makes a policy of the lists of the API, of the named policy beside
// them (what either denies is denied), and of what was granted on request.
func FromNetwork(n engine.NetworkPolicy) (*policies.Policy, error) {
	if n.Learn {
		return &policies.Policy{Name: "network", Egress: policies.Egress{Default: policies.Allow}}, nil
	}
	p, err := policies.FromLists(n.BlockAll, n.AllowCIDRs, n.AllowDomains)
	if err != nil {
		return nil, engine.Errorf(engine.KindInvalid, "%v", err)
	}
	if n.Policy != nil {
		p = &policies.Policy{Name: n.Policy.Name, Egress: policies.Both(n.Policy.Egress, p.Egress)}
	}
	if p.Egress.Default == policies.Allow {
		return p, nil
	}
	for _, g := range n.Grants {
		r, err := fromGrant(g)
		if err != nil {
			return nil, err
		}
		p.Egress.Rules = append(p.Egress.Rules, r)
	}
	return p, nil
}

// fromGrant makes a rule that is named after the request.
func fromGrant(g engine.NetworkGrant) (policies.EgressRule, error) {
	r := policies.EgressRule{Name: "access/" + g.ID, Verdict: policies.Allow}
	if g.Port != 0 || g.Protocol == string(policies.ICMP) {
		r.Ports = []policies.Ports{{Protocol: policies.Protocol(g.Protocol), First: g.Port, Last: g.Port}}
	}
	if g.Host != "" {
		host, err := policies.ParseHost(g.Host)
		if err != nil {
			return r, engine.Errorf(engine.KindInvalid, "request %s: %v", g.ID, err)
		}
		r.Hosts = []policies.Host{host}
		return r, nil
	}
	a, err := netip.ParseAddr(g.Address)
	if err != nil || a.Is4In6() || len(r.Ports) == 0 {
		return r, engine.Errorf(engine.KindInvalid, "request %s is about no address and port", g.ID)
	}
	r.Networks = []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	return r, nil
}

// compile makes of a policy what the kernel judges. A rule's number is its
// place in the policy, from 1.
func compile(p *policies.Policy) kernel.Policy {
	// A name is judged by the proxy where it is told, so as soon as names
	// matter, web connections go there.
	k := kernel.Policy{DefaultAllow: p.Egress.Default == policies.Allow, Proxy: aboutNames(p)}
	for i, r := range p.Egress.Rules {
		for _, n := range r.Networks {
			k.Rules = append(k.Rules, kernel.Rule{ID: uint32(i + 1), Network: n, Deny: r.Verdict != policies.Allow, Ranges: ranges(r.Ports)})
		}
	}
	return k
}

// allowsAny tells whether a rule of the policy allows something.
func allowsAny(p *policies.Policy) bool {
	return slices.ContainsFunc(p.Egress.Rules, func(r policies.EgressRule) bool { return r.Verdict == policies.Allow })
}

// maxDescribed bounds the targets that describe names.
const maxDescribed = 24

// describe says in one line what a policy allows and denies.
func describe(p *policies.Policy, learns bool) string {
	if learns {
		return "everything is allowed while the sandbox learns"
	}
	var parts []string
	for _, r := range p.Egress.Rules {
		var targets []string
		for _, h := range r.Hosts {
			targets = append(targets, string(h))
		}
		for _, n := range r.Networks {
			targets = append(targets, n.String())
		}
		if more := len(targets) - maxDescribed; more > 0 {
			targets = append(targets[:maxDescribed], fmt.Sprintf("and %d more", more))
		}
		parts = append(parts, fmt.Sprintf("%s %s (%s)", r.Verdict, strings.Join(targets, " "), r.Name))
	}
	return strings.Join(append(parts, fmt.Sprintf("%s all else", p.Egress.Default)), ", ")
}

// aboutNames tells whether a policy has rules about names.
func aboutNames(p *policies.Policy) bool {
	return slices.ContainsFunc(p.Egress.Rules, func(r policies.EgressRule) bool { return len(r.Hosts) > 0 })
}

func ranges(ports []policies.Ports) []kernel.Range {
	var out []kernel.Range
	for _, p := range ports {
		r := kernel.Range{First: p.First, Last: p.Last}
		switch p.Protocol {
		case policies.TCP:
			r.Protocol = kernel.TCP
		case policies.UDP:
			r.Protocol = kernel.UDP
		case policies.ICMP:
			r.Protocol = kernel.ICMP
		}
		out = append(out, r)
	}
	return out
}

// portsOf returns what a policy opens at the addresses of a name, and the
// number of the first rule that does: all that rules allow, less what rules
// deny.
func portsOf(p *policies.Policy, name string) (open []policies.Ports, rule uint32) {
	matching := func(r policies.EgressRule) bool {
		return slices.ContainsFunc(r.Hosts, func(h policies.Host) bool { return h.Matches(name) })
	}
	for i, r := range p.Egress.Rules {
		if r.Verdict != policies.Allow || !matching(r) {
			continue
		}
		if rule == 0 {
			rule = uint32(i + 1)
		}
		if len(r.Ports) == 0 {
			open = append(open, policies.WebPorts()...)
		}
		open = append(open, r.Ports...)
	}
	for _, r := range p.Egress.Rules {
		if r.Verdict == policies.Allow || !matching(r) {
			continue
		}
		if len(r.Ports) == 0 {
			return nil, 0
		}
		for _, d := range r.Ports {
			open = subtract(open, d)
		}
	}
	return open, rule
}

// subtract takes one range out of others.
func subtract(from []policies.Ports, d policies.Ports) []policies.Ports {
	var out []policies.Ports
	for _, p := range from {
		if p.Protocol != d.Protocol || d.Last < p.First || p.Last < d.First {
			out = append(out, p)
			continue
		}
		if p.First < d.First {
			out = append(out, policies.Ports{Protocol: p.Protocol, First: p.First, Last: d.First - 1})
		}
		if d.Last < p.Last {
			out = append(out, policies.Ports{Protocol: p.Protocol, First: d.Last + 1, Last: p.Last})
		}
	}
	return out
}
