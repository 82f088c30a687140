package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Decision is the answer to one question.
type Decision struct {
	Allow bool
	// Rule names what decided: the name of a rule, "default" of a section, or
	// "blocked/…" for an address that no policy opens.
	Rule string
	// Reason is a sentence for people and models, without a full stop.
	Reason string
}

// Request is one question. The types of this package that end in -Request are
// all there are.
type Request interface{ decide(p *Policy) Decision }

// Decide answers a question.
func Decide(p *Policy, r Request) Decision { return r.decide(p) }

// Explain is Decide's answer as a line: what was asked, what happens, which
// rule says so and why.
func Explain(p *Policy, r Request) string {
	d := Decide(p, r)
	verb := "denied"
	if d.Allow {
		verb = "allowed"
	}
	return fmt.Sprintf("%s: %s by %s of policy %s: %s", r, verb, d.Rule, p.Name, d.Reason)
}

// LookupRequest asks whether a name may be resolved.
type LookupRequest struct{ Name string }

func (r LookupRequest) String() string { return "look up " + strconv.Quote(r.Name) }

func (r LookupRequest) decide(p *Policy) Decision {
	name, err := CanonicalName(r.Name)
	if err != nil {
		return Decision{Rule: "egress/default", Reason: err.Error()}
	}
	return p.Egress.decide(func(rule *EgressRule) bool {
		return rule.matchesName(name) && rule.Verdict == Allow || rule.deniesName(name)
	})
}

// ConnectRequest asks whether a connection may be made. Host is the name it is
// made for, when there is one; Address is where it goes, when known. At least
// one is set. A rule about a host matches by Host alone, so whoever asks must
// have made sure that the address is the host's.
type ConnectRequest struct {
	Host     string
	Address  netip.Addr
	Protocol Protocol
	Port     uint16 // 0 for ICMP
}

func (r ConnectRequest) String() string {
	where := r.Host
	if r.Address.IsValid() {
		if where != "" {
			where += " at "
		}
		where += r.Address.String()
	}
	if r.Protocol == ICMP {
		return "ping " + where
	}
	return fmt.Sprintf("connect to %s, port %d/%s", where, r.Port, r.Protocol)
}

func (r ConnectRequest) decide(p *Policy) Decision {
	switch r.Protocol {
	case TCP, UDP, ICMP:
	default:
		return Decision{Rule: "egress/protocol", Reason: fmt.Sprintf("protocol %q is never allowed", r.Protocol)}
	}
	if !r.Address.IsValid() && r.Host == "" {
		return Decision{Rule: "egress/default", Reason: "neither a host nor an address was named"}
	}
	addr := r.Address.Unmap()
	if b, ok := BlockedAddress(addr); ok {
		return Decision{Rule: "blocked/" + b.Name, Reason: b.Reason}
	}
	name := ""
	if r.Host != "" {
		var err error
		if name, err = CanonicalName(r.Host); err != nil {
			return Decision{Rule: "egress/default", Reason: err.Error()}
		}
	}
	return p.Egress.decide(func(rule *EgressRule) bool {
		return name != "" && rule.matchesName(name) && rule.matchesPort(r.Protocol, r.Port, true) ||
			addr.IsValid() && rule.matchesAddress(addr) && rule.matchesPort(r.Protocol, r.Port, false)
	})
}

// decide finds the rules that match; one that denies wins.
func (e *Egress) decide(matches func(*EgressRule) bool) Decision {
	var allowed *EgressRule
	for i := range e.Rules {
		rule := &e.Rules[i]
		if !matches(rule) {
			continue
		}
		if rule.Verdict != Allow {
			return Decision{Rule: rule.Name, Reason: "a rule that denies matches"}
		}
		if allowed == nil {
			allowed = rule
		}
	}
	switch {
	case allowed != nil:
		return Decision{Allow: true, Rule: allowed.Name, Reason: "a rule allows it"}
	case e.Default == Allow:
		return Decision{Allow: true, Rule: "egress/default", Reason: "no rule denies it"}
	}
	return Decision{Rule: "egress/default", Reason: "no rule allows it"}
}

func (r *EgressRule) matchesName(name string) bool {
	return slices.ContainsFunc(r.Hosts, func(h Host) bool { return h.Matches(name) })
}

// deniesName tells whether the rule denies all of a name, so that it need not
// resolve. One that denies some ports only leaves the name to resolve.
func (r *EgressRule) deniesName(name string) bool {
	return r.Verdict != Allow && len(r.Ports) == 0 && r.matchesName(name)
}

func (r *EgressRule) matchesAddress(a netip.Addr) bool {
	return slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// matchesPort tells whether the rule is about this protocol and port. Without
// ports a rule that allows a host means web ports, and every other rule
// everything.
func (r *EgressRule) matchesPort(p Protocol, port uint16, byName bool) bool {
	if len(r.Ports) == 0 {
		return !byName || r.Verdict != Allow || p == TCP && (port == 80 || port == 443)
	}
	return slices.ContainsFunc(r.Ports, func(q Ports) bool {
		return q.Protocol == p && (p == ICMP || q.First <= port && port <= q.Last)
	})
}

// ToolRequest asks whether a tool or operation may be called. Changes tells
// whether it changes anything. Also names the tools that come to the same: one
// that is denied denies it, and one that is allowed is enough, so that a tool
// is not reached by another way than the one that is closed.
type ToolRequest struct {
	Tool    string
	Also    []string
	Changes bool
}

func (r ToolRequest) String() string { return "call " + strconv.Quote(r.Tool) }

func (r ToolRequest) decide(p *Policy) Decision {
	if p.Tools.ReadOnly && r.Changes {
		return Decision{Rule: "tools/readOnly", Reason: "only tools that change nothing are allowed"}
	}
	return decidePattern("tools", Paths{Allow: p.Tools.Allow, Deny: p.Tools.Deny}, append([]string{r.Tool}, r.Also...)...)
}

// ExecRequest asks whether a program may run. Path is absolute, links resolved.
type ExecRequest struct{ Path string }

func (r ExecRequest) String() string { return "run " + strconv.Quote(r.Path) }

func (r ExecRequest) decide(p *Policy) Decision { return decidePattern("exec", p.Exec, r.Path) }

// FileRequest asks whether a file may be read or written. Path is absolute,
// links resolved.
type FileRequest struct {
	Path  string
	Write bool
}

func (r FileRequest) String() string {
	if r.Write {
		return "write " + strconv.Quote(r.Path)
	}
	return "read " + strconv.Quote(r.Path)
}

func (r FileRequest) decide(p *Policy) Decision {
	if r.Write {
		return decidePattern("files/write", p.Files.Write, r.Path)
	}
	return decidePattern("files/read", p.Files.Read, r.Path)
}

// SecretRequest asks whether a secret may be attached.
type SecretRequest struct{ Name string }

func (r SecretRequest) String() string { return "attach secret " + strconv.Quote(r.Name) }

func (r SecretRequest) decide(p *Policy) Decision {
	if i := slices.IndexFunc(p.Secrets.Allow, func(g string) bool { return matchGlob(g, r.Name) }); i >= 0 {
		return Decision{Allow: true, Rule: "secrets/allow", Reason: "it matches " + strconv.Quote(p.Secrets.Allow[i])}
	}
	return Decision{Rule: "secrets/default", Reason: "secrets/allow does not list it"}
}

// decidePattern decides about a subject that may go by several names.
func decidePattern(section string, paths Paths, names ...string) Decision {
	matching := func(globs []string) int {
		return slices.IndexFunc(globs, func(g string) bool {
			return slices.ContainsFunc(names, func(name string) bool { return matchGlob(g, name) })
		})
	}
	if i := matching(paths.Deny); i >= 0 {
		return Decision{Rule: section + "/deny", Reason: "it matches " + strconv.Quote(paths.Deny[i])}
	}
	if len(paths.Allow) == 0 {
		return Decision{Allow: true, Rule: section + "/default", Reason: "nothing denies it"}
	}
	if i := matching(paths.Allow); i >= 0 {
		return Decision{Allow: true, Rule: section + "/allow", Reason: "it matches " + strconv.Quote(paths.Allow[i])}
	}
	return Decision{Rule: section + "/default", Reason: section + "/allow does not list it"}
}

// SandboxRequest asks whether a sandbox may be created or changed so. Zero
// fields ask for nothing; AutoStop and TTL of 0 mean never.
type SandboxRequest struct {
	Resources Resources // Sandboxes counts those that exist already
	Lifecycle Lifecycle
}

func (r SandboxRequest) String() string {
	return fmt.Sprintf("a sandbox of %g cpu, %d MiB memory, %d MiB disk", r.Resources.CPU, r.Resources.MemoryMiB, r.Resources.DiskMiB)
}

func (r SandboxRequest) decide(p *Policy) Decision {
	most, ask := p.Resources, r.Resources
	checks := []struct {
		name     string
		over     bool
		ask, max any
	}{
		{"resources/cpu", most.CPU > 0 && ask.CPU > most.CPU, ask.CPU, most.CPU},
		{"resources/memory", most.MemoryMiB > 0 && ask.MemoryMiB > most.MemoryMiB, ask.MemoryMiB, most.MemoryMiB},
		{"resources/disk", most.DiskMiB > 0 && ask.DiskMiB > most.DiskMiB, ask.DiskMiB, most.DiskMiB},
		{"resources/pids", most.PIDs > 0 && ask.PIDs > most.PIDs, ask.PIDs, most.PIDs},
		{"resources/sandboxes", most.Sandboxes > 0 && ask.Sandboxes >= most.Sandboxes, ask.Sandboxes, most.Sandboxes},
		{"lifecycle/autoStop", longer(r.Lifecycle.AutoStop, p.Lifecycle.AutoStop), r.Lifecycle.AutoStop, p.Lifecycle.AutoStop},
		{"lifecycle/ttl", longer(r.Lifecycle.TTL, p.Lifecycle.TTL), r.Lifecycle.TTL, p.Lifecycle.TTL},
	}
	for _, c := range checks {
		if c.over {
			return Decision{Rule: c.name, Reason: fmt.Sprintf("%v is more than %v", c.ask, c.max)}
		}
	}
	return Decision{Allow: true, Rule: "resources/default", Reason: "it is within the limits"}
}

// longer tells whether a timer is longer than a bound; off is longer than any.
func longer(d, most time.Duration) bool { return most > 0 && (d == 0 || d > most) }
