package policies

import (
	"fmt"
	"net/netip"
	"testing"
)

func egressOf(t *testing.T, rules string) Egress {
	t.Helper()
	return parsed(t, "name: x\negress: "+rules).Egress
}

// What both egresses deny or only one allows is denied by their join, for every
// pair of a set of egresses and every question of a set.
func TestBothIsNeverWider(t *testing.T) {
	all := []string{
		"{default: allow}",
		"{default: deny}",
		"{default: allow, rules: [{name: no, deny: [b.example.com, 192.0.2.0/25]}]}",
		"{rules: [{name: names, allow: [a.example.com, '*.example.com']}]}",
		"{rules: [{name: deep, allow: ['*.x.example.com', b.example.com], ports: [443/tcp, 8443/tcp]}]}",
		"{rules: [{name: net, allow: [192.0.2.0/24]}, {name: not, deny: [192.0.2.7]}]}",
		"{rules: [{name: narrow, allow: [192.0.2.0/28, '2001:db8::/64'], ports: [1-500/tcp, icmp]}]}",
		"{rules: [{name: mixed, allow: [192.0.2.0/24, a.example.com]}]}",
		"{rules: [{name: some, deny: [a.example.com], ports: [80/tcp]}, {name: rest, allow: [a.example.com]}]}",
	}
	var questions []Request
	for _, name := range []string{"a.example.com", "b.example.com", "y.x.example.com", "x.example.com", "example.com", "elsewhere.example"} {
		questions = append(questions, LookupRequest{Name: name})
		for _, port := range []uint16{80, 443, 8443, 22} {
			for _, addr := range []string{"", "192.0.2.3", "192.0.2.7", "198.51.100.1"} {
				r := ConnectRequest{Host: name, Protocol: TCP, Port: port}
				if addr != "" {
					r.Address = netip.MustParseAddr(addr)
				}
				questions = append(questions, r)
			}
		}
	}
	for _, addr := range []string{"192.0.2.3", "192.0.2.7", "192.0.2.200", "198.51.100.1", "2001:db8::1", "169.254.169.254"} {
		a := netip.MustParseAddr(addr)
		questions = append(questions, ConnectRequest{Address: a, Protocol: ICMP}, ConnectRequest{Address: a, Protocol: UDP, Port: 53},
			ConnectRequest{Address: a, Protocol: TCP, Port: 443}, ConnectRequest{Address: a, Protocol: TCP, Port: 501})
	}
	allowed := 0
	for _, x := range all {
		for _, y := range all {
			a, b := egressOf(t, x), egressOf(t, y)
			joint := &Policy{Egress: Both(a, b)}
			for _, q := range questions {
				one, two := Decide(&Policy{Egress: a}, q).Allow, Decide(&Policy{Egress: b}, q).Allow
				got := Decide(joint, q).Allow
				if got && !(one && two) {
					t.Errorf("%s is allowed by %s and %s together, which say %v and %v", q, x, y, one, two)
				}
				if got {
					allowed++
				}
				// Without both a name and an address to judge by, the join is exact.
				c, connects := q.(ConnectRequest)
				if exact := !connects || c.Host == "" || !c.Address.IsValid(); exact && got != (one && two) {
					t.Errorf("%s: got %v from %s and %s, want %v", q, got, x, y, one && two)
				}
			}
		}
	}
	if allowed == 0 {
		t.Error("nothing was allowed, which proves nothing")
	}
}

func TestBothNamesItsRules(t *testing.T) {
	lists, err := FromLists(false, []string{"192.0.2.0/28"}, []string{"pkg.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{Name: "x", Egress: Both(egressOf(t, "{rules: [{name: mirrors, allow: ['*.example.com', 192.0.2.0/24]}]}"), lists.Egress)}
	for q, want := range map[string]string{
		"pkg.example.com:443": "mirrors+domainAllowList",
		"192.0.2.1:9":         "mirrors+networkAllowList",
		"192.0.2.99:9":        "egress/default",
	} {
		r, err := ParseConnect(q)
		if err != nil {
			t.Fatal(err)
		}
		if d := Decide(p, r); d.Rule != want {
			t.Errorf("%s: got %+v, want %s", q, d, want)
		}
	}
}

func TestVariables(t *testing.T) {
	p := parsed(t, "name: x\negress: {rules: [{name: index, allow: ['${PYTHON_INDEX_HOSTS}', a.example.com], ports: [443/tcp]}]}")
	full, err := p.Expand(map[string][]string{PythonIndexHosts: {"Index.Example.com."}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(full.Egress.Rules[0].Hosts, full.Variables()); got != "[a.example.com index.example.com] []" {
		t.Errorf("got %s", got)
	}
	if len(p.Egress.Rules[0].Hosts) != 1 || len(p.Variables()) != 1 {
		t.Errorf("the policy itself was changed: %+v", p)
	}
	for _, values := range []map[string][]string{nil, {PythonIndexHosts: {}}, {PythonIndexHosts: {"*"}}, {PythonIndexHosts: {"192.0.2.1"}}} {
		if got, err := p.Expand(values); err == nil {
			t.Errorf("%v gave %+v", values, got)
		}
	}
	if _, err := Parse([]byte("name: x\negress: {rules: [{name: r, deny: ['${PYTHON_INDEX_HOSTS}']}]}")); err == nil {
		t.Error("a variable was taken in a rule that denies")
	}
}

func TestToolsByAnyName(t *testing.T) {
	p := parsed(t, "name: x\ntools: {allow: ['sandbox_*'], deny: [sandbox_delete]}")
	for _, tt := range []struct {
		r     ToolRequest
		allow bool
	}{
		{ToolRequest{Tool: "sandbox_exec"}, true},
		{ToolRequest{Tool: "POST /sandbox"}, false},
		{ToolRequest{Tool: "POST /sandbox", Also: []string{"sandbox_create"}}, true},
		{ToolRequest{Tool: "DELETE /sandbox/{id}", Also: []string{"sandbox_delete"}}, false},
	} {
		if d := Decide(p, tt.r); d.Allow != tt.allow {
			t.Errorf("%+v: got %+v", tt.r, d)
		}
	}
}
