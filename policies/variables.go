package policies

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The variables of the presets. Who serves policies gives them values.
const (
	PythonIndexHosts = "PYTHON_INDEX_HOSTS" // that pip downloads from
	NodeIndexHosts   = "NODE_INDEX_HOSTS"   // that npm downloads from
)

var variableRule = regexp.MustCompile(`^\$\{([A-Z][A-Z0-9_]{0,62})\}$`)

// Variables returns the names of the variables that stand for hosts in the
// rules of a policy, sorted.
func (p *Policy) Variables() []string {
	var names []string
	for _, r := range p.Egress.Rules {
		names = append(names, r.Variables...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Expand returns the policy with hosts in place of its variables. One without
// hosts is a fault, since a rule that allows nothing helps nobody. Until then
// a variable matches nothing.
func (p *Policy) Expand(values map[string][]string) (*Policy, error) {
	if len(p.Variables()) == 0 {
		return p, nil
	}
	var f faults
	out := *p
	out.Egress.Rules = slices.Clone(p.Egress.Rules)
	for i := range out.Egress.Rules {
		r := &out.Egress.Rules[i]
		r.Hosts = slices.Clone(r.Hosts)
		for _, name := range r.Variables {
			if len(values[name]) == 0 {
				f.add(fmt.Sprintf("egress.rules[%d]", i), "nothing says which hosts ${%s} stands for", name)
			}
			for _, text := range values[name] {
				h, err := ParseHost(strings.TrimSpace(text))
				if err != nil {
					f.add("${"+name+"}", "%v", err)
					continue
				}
				r.Hosts = append(r.Hosts, h)
			}
		}
		r.Variables = nil
	}
	if len(f) > 0 {
		return nil, f
	}
	return &out, nil
}
