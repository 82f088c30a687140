package egress

import (
	"net/netip"
	"slices"
	"strings"

	kernel "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// FromNetwork makes a policy of the lists of the API. Networks are open on
// every port; names on the web's. Without lists everything is allowed.
func FromNetwork(n engine.NetworkPolicy) (*policies.Policy, error) {
	p := &policies.Policy{Name: "network", Egress: policies.Egress{Default: policies.Deny}}
	if n.BlockAll {
		return p, nil
	}
	if len(n.AllowCIDRs) == 0 && len(n.AllowDomains) == 0 {
		p.Egress.Default = policies.Allow
		return p, nil
	}
	networks := policies.EgressRule{Name: "networkAllowList", Verdict: policies.Allow}
	for _, text := range n.AllowCIDRs {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || prefix.Addr().Is4In6() {
			return nil, engine.Errorf(engine.KindInvalid, "networkAllowList: %q is no network, as 192.0.2.0/24", text)
		}
		networks.Networks = append(networks.Networks, prefix.Masked())
	}
	names := policies.EgressRule{Name: "domainAllowList", Verdict: policies.Allow}
	for _, text := range n.AllowDomains {
		host, err := policies.ParseHost(strings.TrimSpace(text))
		if err != nil {
			return nil, engine.Errorf(engine.KindInvalid, "domainAllowList: %v", err)
		}
		names.Hosts = append(names.Hosts, host)
	}
	for _, r := range []policies.EgressRule{networks, names} {
		if len(r.Networks)+len(r.Hosts) > 0 {
			p.Egress.Rules = append(p.Egress.Rules, r)
		}
	}
	return p, nil
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

// webPorts is what a rule that allows a host without ports is about.
var webPorts = []policies.Ports{{Protocol: policies.TCP, First: 80, Last: 80}, {Protocol: policies.TCP, First: 443, Last: 443}}

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
			open = append(open, webPorts...)
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
