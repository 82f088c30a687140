package policies

import "strings"

// Both returns what two egresses allow together: what either denies is denied.
// Of rules that allow, those about names and those about networks are joined
// apart: a name that one allows and a network that only the other allows have
// nothing in common, so that the answer is never wider than either. Joined
// rules are called after both, as mirrors+domainAllowList.
func Both(a, b Egress) Egress {
	out := Egress{Default: Deny}
	if a.Default == Allow && b.Default == Allow {
		out.Default = Allow
	}
	for _, e := range []Egress{a, b} {
		for _, r := range e.Rules {
			if r.Verdict != Allow {
				out.Rules = append(out.Rules, r)
			}
		}
	}
	switch {
	case out.Default == Allow:
	case a.Default == Allow:
		out.Rules = append(out.Rules, allowing(b)...)
	case b.Default == Allow:
		out.Rules = append(out.Rules, allowing(a)...)
	default:
		for _, x := range allowing(a) {
			for _, y := range allowing(b) {
				out.Rules = append(out.Rules, join(x, y)...)
			}
		}
	}
	return out
}

func allowing(e Egress) []EgressRule {
	var out []EgressRule
	for _, r := range e.Rules {
		if r.Verdict == Allow {
			out = append(out, r)
		}
	}
	return out
}

// join returns what two rules that allow have in common, as up to one rule
// about names and one about networks.
func join(a, b EgressRule) []EgressRule {
	name := a.Name + "+" + b.Name
	names := EgressRule{Name: name, Verdict: Allow}
	for _, x := range a.Hosts {
		for _, y := range b.Hosts {
			if h, ok := x.and(y); ok {
				names.Hosts = append(names.Hosts, h)
			}
		}
	}
	networks := EgressRule{Name: name, Verdict: Allow}
	for _, x := range a.Networks {
		for _, y := range b.Networks {
			switch {
			case x.Overlaps(y) && x.Bits() >= y.Bits():
				networks.Networks = append(networks.Networks, x)
			case x.Overlaps(y):
				networks.Networks = append(networks.Networks, y)
			}
		}
	}
	var out []EgressRule
	var some bool
	if names.Ports, some = commonPorts(orWeb(a.Ports), orWeb(b.Ports)); some && len(names.Hosts) > 0 {
		out = append(out, names)
	}
	if networks.Ports, some = commonPorts(a.Ports, b.Ports); some && len(networks.Networks) > 0 {
		out = append(out, networks)
	}
	return out
}

// and returns the pattern of the names that both patterns match.
func (h Host) and(o Host) (Host, bool) {
	if h == o {
		return h, true
	}
	for _, p := range [][2]Host{{h, o}, {o, h}} {
		narrow, wide := p[0], p[1]
		parent, wild := strings.CutPrefix(string(wide), "*")
		if wild && strings.HasSuffix(string(narrow), parent) && len(narrow) > len(parent) {
			return narrow, true
		}
	}
	return "", false
}

// WebPorts is what a rule that allows a host without ports is about.
func WebPorts() []Ports { return []Ports{{TCP, 80, 80}, {TCP, 443, 443}} }

func orWeb(p []Ports) []Ports {
	if len(p) == 0 {
		return WebPorts()
	}
	return p
}

// commonPorts returns what two lists have in common; an empty one has all. The
// result is empty without ok when they have nothing in common.
func commonPorts(a, b []Ports) (common []Ports, ok bool) {
	switch {
	case len(a) == 0:
		return b, true
	case len(b) == 0:
		return a, true
	}
	for _, x := range a {
		for _, y := range b {
			first, last := max(x.First, y.First), min(x.Last, y.Last)
			if x.Protocol == y.Protocol && first <= last {
				common = append(common, Ports{x.Protocol, first, last})
			}
		}
	}
	return common, len(common) > 0
}
