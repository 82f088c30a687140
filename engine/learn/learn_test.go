package learn

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

func resolved(host string, addresses ...string) engine.ActivityRecord {
	return engine.ActivityRecord{Kind: engine.ActivityDNS, Operation: Resolved, Host: host, Addresses: addresses, Verdict: "allow"}
}

func to(remote, protocol string) engine.ActivityRecord {
	return engine.ActivityRecord{Kind: engine.ActivityConnect, Protocol: protocol, Local: "10.0.0.2:5", Remote: remote}
}

// named is both records of a web connection: the kernel's and the proxy's.
func named(host, local, remote string) []engine.ActivityRecord {
	seen := engine.ActivityRecord{Kind: engine.ActivityConnect, Protocol: "tcp", Local: local, Remote: remote}
	told := seen
	told.Operation, told.Host = Named, host
	return []engine.ActivityRecord{seen, told}
}

// rulesOf are the policy's rules, one a line, after a round through the language.
func rulesOf(t *testing.T, wildcards bool, records ...engine.ActivityRecord) (string, []string) {
	t.Helper()
	o := New()
	for _, r := range records {
		o.Add(r)
	}
	p, notes := o.Policy("p", wildcards)
	text, err := policies.Format(p)
	if err != nil {
		t.Fatal(err)
	}
	back, err := policies.Parse(text)
	if err != nil || back.Egress.Default != policies.Deny {
		t.Fatalf("%v in\n%s", err, text)
	}
	var lines []string
	for _, r := range back.Egress.Rules {
		var targets []string
		for _, h := range r.Hosts {
			targets = append(targets, string(h))
		}
		for _, n := range r.Networks {
			targets = append(targets, n.Addr().String())
		}
		lines = append(lines, r.Name+": "+strings.Join(targets, " "))
	}
	return strings.Join(lines, "\n"), notes
}

func TestPolicy(t *testing.T) {
	join := func(all ...[]engine.ActivityRecord) (out []engine.ActivityRecord) {
		for _, a := range all {
			out = append(out, a...)
		}
		return out
	}
	one := func(r ...engine.ActivityRecord) []engine.ActivityRecord { return r }
	inbound := to("192.0.2.1:22", "tcp")
	inbound.Inbound = true
	for _, c := range []struct {
		name    string
		records []engine.ActivityRecord
		want    string
	}{
		{"nothing", nil, ""},
		{"looked up only", one(resolved("a.example", "192.0.2.1")), ""},
		{"inbound", one(inbound), ""},
		{"an address", one(to("192.0.2.1:22", "tcp"), to("192.0.2.1:22", "tcp")), "addresses-22-tcp: 192.0.2.1"},
		{"an IPv6 address", one(to("[2001:db8::1]:53", "udp")), "addresses-53-udp: 2001:db8::1"},
		{"echo", one(to("192.0.2.1", "icmp")), "addresses-icmp: 192.0.2.1"},
		{"echo to a name", one(resolved("a.example", "192.0.2.1"), to("192.0.2.1", "icmp")), "hosts-icmp: a.example"},
		{"a protocol that no policy knows", one(to("192.0.2.1:9", "sctp"), to("192.0.2.1", "")), ""},
		{"a name on a port of its own", one(resolved("a.example", "192.0.2.1"), to("192.0.2.1:9000", "tcp")), "hosts-9000-tcp: a.example"},
		{"the name that was looked up last", one(resolved("a.example", "192.0.2.1"), resolved("b.example", "192.0.2.1"), to("192.0.2.1:9000", "tcp")), "hosts-9000-tcp: b.example"},
		{"a name that was looked up later", one(to("192.0.2.1:9000", "tcp"), resolved("a.example", "192.0.2.1")), "addresses-9000-tcp: 192.0.2.1"},
		{"web by its name, not the address's last", join(one(resolved("a.example", "192.0.2.1"), resolved("b.example", "192.0.2.1")), named("A.example", "10.0.0.2:7", "192.0.2.1:443")), "hosts-443-tcp: a.example"},
		{"web whose address was not looked up", named("a.example", "10.0.0.2:7", "192.0.2.1:443"), "hosts-443-tcp: a.example"},
		{"web that names another than was looked up", join(one(resolved("b.example", "192.0.2.1")), named("a.example", "10.0.0.2:7", "192.0.2.1:443")), "hosts-443-tcp: a.example b.example"},
		{"web without a name", one(resolved("a.example", "192.0.2.1"), to("192.0.2.1:443", "tcp")), "addresses-443-tcp: 192.0.2.1\nhosts-443-tcp: a.example"},
		{"web that names an address", named("192.0.2.1", "10.0.0.2:7", "192.0.2.1:80"), "addresses-80-tcp: 192.0.2.1"},
		{"ports together", join(named("a.example", "10.0.0.2:7", "192.0.2.1:443"), named("a.example", "10.0.0.2:8", "192.0.2.1:80"), named("b.example", "10.0.0.2:9", "192.0.2.1:443")), "hosts-443-tcp: b.example\nhosts-80-tcp-443-tcp: a.example"},
	} {
		if got, _ := rulesOf(t, false, c.records...); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestWildcards(t *testing.T) {
	var all []engine.ActivityRecord
	for i, host := range []string{
		"a.cdn.example.com", "b.cdn.example.com", "example.com", "www.example.com", // two below one; one below another
		"x.co.uk", "y.co.uk", "me.github.io", "you.github.io", "one.org", "two.org", // below which anybody can be
	} {
		all = append(all, named(host, fmt.Sprintf("10.0.0.2:%d", i+1), "192.0.2.1:443")...)
	}
	const kept = " example.com me.github.io one.org two.org www.example.com x.co.uk y.co.uk you.github.io"
	if got, _ := rulesOf(t, true, all...); got != "hosts-443-tcp: *.cdn.example.com"+kept {
		t.Errorf("got %s", got)
	}
	if got, _ := rulesOf(t, false, all...); got != "hosts-443-tcp: a.cdn.example.com b.cdn.example.com"+kept {
		t.Errorf("not asked for: got %s", got)
	}
	addresses := []engine.ActivityRecord{to("192.0.2.1:22", "tcp"), to("192.0.2.2:22", "tcp"), to("[2001:db8::1]:22", "tcp")}
	if got, _ := rulesOf(t, true, addresses...); got != "addresses-22-tcp: 192.0.2.1 192.0.2.2 2001:db8::1" {
		t.Errorf("addresses: got %s", got)
	}
}

// However many ports there are, no target needs more ranges than the kernel
// takes, and each port that was used is in one.
func TestManyPorts(t *testing.T) {
	o := New()
	for port := 1000; port < 9000; port += 37 {
		o.Add(to(fmt.Sprintf("192.0.2.1:%d", port), "tcp"))
	}
	o.Add(to("192.0.2.1:53", "udp"))
	p, _ := o.Policy("p", false)
	if len(p.Egress.Rules) != 1 || len(p.Egress.Rules[0].Ports) > maxRanges {
		t.Fatalf("got %+v", p.Egress.Rules)
	}
	if _, err := policies.Format(p); err != nil {
		t.Error(err)
	}
	for port := 1000; port < 9000; port += 37 {
		r := policies.ConnectRequest{Address: netip.MustParseAddr("192.0.2.1"), Protocol: policies.TCP, Port: uint16(port)}
		if !policies.Decide(p, r).Allow {
			t.Errorf("port %d is closed", port)
		}
	}
}

func TestNotes(t *testing.T) {
	records := []engine.ActivityRecord{{Kind: engine.ActivityLoss, Lost: 2}, {Kind: engine.ActivityLoss, Lost: 3}, {Kind: engine.ActivityGap}}
	for i := range 25 {
		records = append(records, resolved(fmt.Sprintf("n%02d.example", i), "192.0.2.1"))
	}
	_, notes := rulesOf(t, false, records...)
	if len(notes) != 3 || !strings.Contains(notes[0], "n00.example") || !strings.HasSuffix(notes[0], "and 5 more") || !strings.HasPrefix(notes[1], "5 records") {
		t.Errorf("got %q", notes)
	}
	if _, notes := rulesOf(t, false, resolved("bad\nname", "192.0.2.1")); cmp.Diff([]string(nil), notes) != "" {
		t.Errorf("got %q", notes)
	}
}
