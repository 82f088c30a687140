package tools

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Policy returns the rules that a sandbox's network settings stand for, as the
// filter enforces them.
type Policy func(engine.NetworkPolicy) (*policies.Policy, error)

func (k *kit) egressTools() []Tool {
	return []Tool{{
		Name: "sandbox_egress", Set: SetEgress, Title: "Network policy",
		Description: "Show what a sandbox may reach and what was denied lately; with host, say whether it may and why. Only your user can allow more.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"host":{"type":"string"},"port":{"type":"integer","minimum":1,"maximum":65535}},"required":["id"],"additionalProperties":false}`,
		Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.egress,
	}}
}

// egress never changes a policy: who is bound by it must not loosen it.
func (k *kit) egress(ctx context.Context, a Args) (Result, error) {
	if a.Has("port") && a.Str("host") == "" {
		return Result{}, invalid(`As {"host":"example.com","port":443}`, `"port" needs "host"`)
	}
	host := strings.TrimSpace(a.Str("host"))
	if a.Has("host") {
		if _, err := netip.ParseAddr(host); err != nil {
			if _, err := policies.CanonicalName(host); err != nil {
				return Result{}, invalid("Give a name or an address, without scheme and path", `"host" is neither: %s`, quote(host))
			}
		}
	}
	sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
	if err != nil {
		return Result{}, err
	}
	if k.Policy == nil {
		return Result{}, lacking("network policies")
	}
	p, err := k.Policy(sb.Network)
	if err != nil {
		return Result{}, err
	}
	if host != "" {
		return explainHost(sb, p, host, a.Int("port", 443)), nil
	}
	text := policyText(sb, p)
	if k.Activity == nil {
		return Result{Text: text, Sandbox: sb.ID}, nil
	}
	page, err := k.Activity.Records(ctx, a.ref(), engine.ActivityQuery{
		Kinds: []engine.ActivityKind{engine.ActivityDeny, engine.ActivityDNS, engine.ActivityCut}, Limit: 1000, Newest: true,
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Text: clip(text+denials(page.Items), maxText, "sandbox_activity with kinds deny has more"), Sandbox: sb.ID}, nil
}

// explainHost says what happens to a connection. A name is judged twice, as
// when it is used: it has to resolve, and then to be connected to.
func explainHost(sb engine.Sandbox, p *policies.Policy, host string, port int) Result {
	connect := policies.ConnectRequest{Host: host, Protocol: policies.TCP, Port: uint16(port)}
	asked := []policies.Request{policies.LookupRequest{Name: host}}
	if addr, err := netip.ParseAddr(host); err == nil {
		connect.Host, connect.Address = "", addr
		asked = nil
	}
	asked = append(asked, connect)
	verdict, lines := "allowed", []string{}
	for _, q := range asked {
		lines = append(lines, policies.Explain(p, q))
		if !policies.Decide(p, q).Allow {
			verdict = "denied"
		}
	}
	if verdict == "allowed" && private(connect.Address) {
		verdict, lines = "denied", []string{"The address is of a private network, which the server keeps closed under every policy."}
	}
	text := fmt.Sprintf("%s, port %d: %s for %s.\n%s", host, port, verdict, sb.Name, strings.Join(lines, "\n"))
	if verdict == "denied" {
		text += "\n" + askUser
	} else {
		text += "\nAddresses of private networks stay closed, whatever a name resolves to."
	}
	return Result{Text: text, Sandbox: sb.ID, Meta: map[string]any{metaEgress: map[string]any{"host": host, "port": port, "allowed": verdict == "allowed"}}}
}

// private tells whether no sandbox reaches an address, whatever its policy.
func private(a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(engine.PrivatePrefixes(), func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

const askUser = "You cannot change this. Ask your user to allow it, and say what for."

func policyText(sb engine.Sandbox, p *policies.Policy) string {
	var b strings.Builder
	switch {
	case p.Egress.Default == policies.Allow:
		fmt.Fprintf(&b, "%s may reach the whole internet, but no private network.\n", sb.Name)
	case len(p.Egress.Rules) == 0:
		fmt.Fprintf(&b, "%s may reach nothing.\n", sb.Name)
	default:
		fmt.Fprintf(&b, "%s may reach only what a rule allows.\n", sb.Name)
	}
	for _, r := range p.Egress.Rules {
		var targets []string
		for _, h := range r.Hosts {
			targets = append(targets, string(h))
		}
		for _, n := range r.Networks {
			targets = append(targets, n.String())
		}
		fmt.Fprintf(&b, "%s %s: %s%s\n", r.Verdict, r.Name, strings.Join(targets, ", "), portText(r))
	}
	return b.String()
}

func portText(r policies.EgressRule) string {
	switch {
	case len(r.Ports) > 0:
		var all []string
		for _, p := range r.Ports {
			all = append(all, fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last))
		}
		return " (" + strings.Join(all, ", ") + ")"
	case len(r.Hosts) > 0 && r.Verdict == policies.Allow:
		return " (ports 80 and 443)"
	}
	return ""
}

// denials lists what was refused, the latest last, each once.
func denials(records []engine.ActivityRecord) string {
	times, order := map[string]int{}, []string{}
	for _, r := range records {
		if r.Verdict != "deny" && r.Kind != engine.ActivityDeny && r.Kind != engine.ActivityCut {
			continue
		}
		where := r.Host
		if where == "" {
			where = r.Remote
		}
		line := fmt.Sprintf("%s by %s", quoted(where), r.Rule)
		if times[line]++; times[line] == 1 {
			order = append(order, line)
		}
	}
	if len(order) == 0 {
		return "Nothing was denied lately."
	}
	for i, line := range order {
		order[i] = fmt.Sprintf("%s ×%d", line, times[line])
	}
	var b strings.Builder
	section(&b, "Denied lately", order, 30)
	return b.String() + askUser
}
