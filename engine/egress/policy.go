package egress

import (
	"slices"

	kernel "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// FromNetwork makes a policy of the lists of the API and of the named policy
// beside them: what either denies is denied.
func FromNetwork(n engine.NetworkPolicy) (*policies.Policy, error) {
	lists, err := policies.FromLists(n.BlockAll, n.AllowCIDRs, n.AllowDomains)
	if err != nil {
		return nil, engine.Errorf(engine.KindInvalid, "%v", err)
	}
	if n.Policy == nil {
		return lists, nil
	}
	return &policies.Policy{Name: n.Policy.Name, Egress: policies.Both(n.Policy.Egress, lists.Egress)}, nil
}

// compile makes of a policy what the kernel judges. A rule's number is its
// place in the policy, from 1.
func compile(p *policies.Policy) kernel.Policy {
	k := kernel.Policy{DefaultAllow: p.Egress.Default == policies.Allow, LogAllow: true}
	for i, r := range p.Egress.Rules {
		for _, n := range r.Networks {
			k.Rules = append(k.Rules, kernel.Rule{ID: uint32(i + 1), Network: n, Deny: r.Verdict != policies.Allow, Ranges: ranges(r.Ports)})
		}
		// A name is judged by the proxy where it is told, so as soon as names
		// matter, web connections go there.
		k.Proxy = k.Proxy || len(r.Hosts) > 0
	}
	return k
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
