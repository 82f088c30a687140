// Package learn makes of what a sandbox did in an open network the smallest
// policy under which it could do the same again. It reads records of the
// ledger and touches nothing.
package learn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Kinds are the records that matter.
func Kinds() []engine.ActivityKind {
	return []engine.ActivityKind{engine.ActivityDNS, engine.ActivityConnect, engine.ActivityLoss, engine.ActivityGap}
}

// Operations of records that the egress filter adds while a sandbox learns.
const (
	// Resolved is a name with the addresses that the sandbox was told.
	Resolved = "resolved"
	// Named is a web connection with the name that it was made for.
	Named = "named"
)

// Observations are what was seen, in the order in which it happened.
type Observations struct {
	names  map[netip.Addr]map[string]bool // that resolved to an address
	last   map[netip.Addr]string          // that did so last
	looked map[string]bool                // names that resolved
	named  map[string]bool                // connections, by both ends, whose name is known
	flows  map[flow]bool
	lost   uint64
	gaps   int
}

// flow is a connection.
type flow struct {
	host     string // that it named
	resolved string // the name that was looked up last before it, of those that its address stands for
	to       netip.Addr
	port     policies.Ports
	ends     string // of one that named none, to find whether it is told of with its name, too
}

// New returns none.
func New() *Observations {
	return &Observations{names: map[netip.Addr]map[string]bool{}, last: map[netip.Addr]string{}, looked: map[string]bool{}, named: map[string]bool{}, flows: map[flow]bool{}}
}

// Add notes one record.
func (o *Observations) Add(r engine.ActivityRecord) {
	switch r.Kind {
	case engine.ActivityLoss:
		o.lost += r.Lost
	case engine.ActivityGap:
		o.gaps++
	case engine.ActivityDNS:
		o.addName(r)
	case engine.ActivityConnect:
		if !r.Inbound && r.Operation != engine.Proxied { // else it is told as well
			o.addFlow(r)
		}
	}
}

func (o *Observations) addName(r engine.ActivityRecord) {
	name, err := policies.CanonicalName(r.Host)
	if err != nil || r.Operation != Resolved {
		return
	}
	o.looked[name] = true
	for _, text := range r.Addresses {
		if a, err := netip.ParseAddr(text); err == nil {
			if o.names[a] == nil {
				o.names[a] = map[string]bool{}
			}
			o.names[a][name] = true
			o.last[a] = name
		}
	}
}

func (o *Observations) addFlow(r engine.ActivityRecord) {
	f, ok := flowTo(r)
	if !ok {
		return
	}
	f.resolved = o.last[f.to]
	ends := r.Local + " " + r.Remote
	if r.Operation != Named {
		f.ends = ends
	} else if name, err := policies.CanonicalName(r.Host); err == nil {
		f.host = name
		o.named[ends] = true
	} else {
		return
	}
	o.flows[f] = true
}

// flowTo reads where a connection went; policies can say so of three protocols.
func flowTo(r engine.ActivityRecord) (f flow, ok bool) {
	f.port.Protocol = policies.Protocol(r.Protocol)
	if f.port.Protocol == policies.ICMP {
		a, err := netip.ParseAddr(r.Remote)
		f.to = a.Unmap()
		return f, err == nil
	}
	to, err := netip.ParseAddrPort(r.Remote)
	f.to, f.port.First, f.port.Last = to.Addr().Unmap(), to.Port(), to.Port()
	return f, err == nil && to.Port() != 0 && (f.port.Protocol == policies.TCP || f.port.Protocol == policies.UDP)
}

// Policy returns the policy, and what it does not cover. With wildcards, two
// names or more right below the same name become one pattern, unless anybody
// can have a name there.
func (o *Observations) Policy(name string, wildcards bool) (*policies.Policy, []string) {
	targets := map[string]map[policies.Ports]bool{}
	used := map[string]bool{}
	for f := range o.flows {
		for _, target := range o.targets(f) {
			if targets[target] == nil {
				targets[target] = map[policies.Ports]bool{}
			}
			targets[target][f.port] = true
			used[target] = true
		}
	}
	if wildcards {
		targets = collapse(targets)
	}
	p := &policies.Policy{Name: name, Description: "learned from what a sandbox did", Egress: policies.Egress{Default: policies.Deny, Rules: rules(targets)}}
	return p, o.notes(used)
}

// targets names whom a connection was for: the host that it named; besides,
// when that was not looked up, and when it named none, the name that was; else
// the address. A web connection that named no host is let through by its
// address only.
func (o *Observations) targets(f flow) []string {
	if f.host == "" && o.named[f.ends] {
		return nil // told with its name, too
	}
	web := f.port.Protocol == policies.TCP && (f.port.First == 80 || f.port.First == 443)
	switch {
	case f.host != "" && (f.resolved == "" || o.names[f.to][f.host]):
		return []string{f.host}
	case f.host != "":
		return []string{f.resolved, f.host}
	case f.resolved == "":
		return []string{f.to.String()}
	case web:
		return []string{f.resolved, f.to.String()}
	}
	return []string{f.resolved}
}

// rules makes one rule of all targets of a kind that need the same ports.
func rules(targets map[string]map[policies.Ports]bool) []policies.EgressRule {
	byName := map[string]*policies.EgressRule{}
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		ports := fold(slices.SortedFunc(maps.Keys(targets[target]), comparePorts))
		address, err := netip.ParseAddr(target)
		kind := "hosts"
		if err == nil {
			kind = "addresses"
		}
		label := kind + portsLabel(ports)
		r := byName[label]
		if r == nil {
			r = &policies.EgressRule{Name: label, Verdict: policies.Allow, Ports: ports}
			byName[label] = r
		}
		if err == nil {
			r.Networks = append(r.Networks, netip.PrefixFrom(address, address.BitLen()))
		} else {
			r.Hosts = append(r.Hosts, policies.Host(target))
		}
	}
	var out []policies.EgressRule
	for i, label := range slices.Sorted(maps.Keys(byName)) {
		r := *byName[label]
		if len(r.Name) > maxRuleName {
			r.Name = fmt.Sprintf("%.40s-%d", r.Name, i+1)
		}
		out = append(out, r)
	}
	return out
}

const (
	maxRuleName = 63
	maxRanges   = 16 // of one target, as many as the kernel takes
)

func portsLabel(ports []policies.Ports) string {
	var b strings.Builder
	for _, p := range ports {
		switch {
		case p.Protocol == policies.ICMP:
			b.WriteString("-icmp")
		case p.First == p.Last:
			fmt.Fprintf(&b, "-%d-%s", p.First, p.Protocol)
		default:
			fmt.Fprintf(&b, "-%d-%d-%s", p.First, p.Last, p.Protocol)
		}
	}
	return b.String()
}

func comparePorts(a, b policies.Ports) int {
	return cmp.Or(strings.Compare(string(a.Protocol), string(b.Protocol)), cmp.Compare(a.First, b.First))
}

// fold joins sorted ports that follow one another, and when there are more
// ranges than the kernel takes, those that are nearest.
func fold(ports []policies.Ports) []policies.Ports {
	join := func(most int) bool {
		best, gap := -1, 1<<16
		for i := 1; i < len(ports); i++ {
			if d := int(ports[i].First) - int(ports[i-1].Last); ports[i].Protocol == ports[i-1].Protocol && d < gap {
				best, gap = i, d
			}
		}
		if best < 0 || gap > most {
			return false
		}
		ports[best-1].Last = ports[best].Last
		ports = slices.Delete(ports, best, best+1)
		return true
	}
	for join(1) {
	}
	for len(ports) > maxRanges && join(1<<16) {
	}
	return ports
}

func (o *Observations) notes(used map[string]bool) []string {
	var notes []string
	var idle []string
	for _, n := range slices.Sorted(maps.Keys(o.looked)) {
		if !used[n] {
			idle = append(idle, n)
		}
	}
	if len(idle) > 0 {
		more := ""
		if n := len(idle) - maxIdle; n > 0 {
			idle, more = idle[:maxIdle], fmt.Sprintf(" and %d more", n)
		}
		notes = append(notes, "looked up but not connected to, so not allowed: "+strings.Join(idle, ", ")+more)
	}
	if o.lost > 0 {
		notes = append(notes, fmt.Sprintf("%d records were lost, so something may be missing", o.lost))
	}
	if o.gaps > 0 {
		notes = append(notes, fmt.Sprintf("nobody looked %d times, as while the server was down, so something may be missing", o.gaps))
	}
	return notes
}

const maxIdle = 20
