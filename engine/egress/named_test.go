package egress

import (
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

func named(egress policies.Egress, lists engine.NetworkPolicy) engine.NetworkPolicy {
	lists.Policy = &policies.Policy{Name: "named", Egress: egress}
	return lists
}

// A named policy and the sandbox's own lists hold together: what either denies
// does not resolve and is not reached, and a change of either acts at once.
func TestNamedPolicyBesideLists(t *testing.T) {
	w := newWorld(t)
	network := policies.Egress{Rules: []policies.EgressRule{
		{Name: "hosts", Verdict: policies.Allow, Hosts: []policies.Host{"good.example", "alias.example"}},
		{Name: "net", Verdict: policies.Allow, Networks: []netip.Prefix{netip.MustParsePrefix(good4 + "/32")}},
	}}
	s := w.slot(named(network, engine.NetworkPolicy{}))
	reaches := func(want bool) {
		t.Helper()
		limit := wait
		if !want {
			limit = patience
		}
		if who, err := greets(s, good4+":9000", limit); (err == nil) != want {
			t.Errorf("reached %q, %v; want %v", who, err, want)
		}
	}
	resolves := func(name string, want bool) {
		t.Helper()
		code, _, err := lookup(s, name, dnsmessage.TypeA)
		if err != nil || (code == 0) != want {
			t.Errorf("%s: %v, %v; want %v", name, code, err, want)
		}
	}
	reaches(true)
	resolves("good.example", true)
	resolves("evil.example", false)
	if who, err := greets(s, evil4+":9000", patience); err == nil {
		t.Errorf("reached %q", who)
	}

	must(t, w.manager.Apply(t.Context(), s, named(network, domains("good.example", "evil.example"))))
	reaches(false)
	resolves("good.example", true)
	resolves("alias.example", false)
	resolves("evil.example", false)

	must(t, w.manager.Apply(t.Context(), s, named(network, networks(good4+"/32", evil4+"/32"))))
	reaches(true)
	if who, err := greets(s, evil4+":9000", patience); err == nil {
		t.Errorf("reached %q", who)
	}

	must(t, w.manager.Apply(t.Context(), s, named(policies.Egress{}, engine.NetworkPolicy{})))
	reaches(false)
	must(t, w.manager.Apply(t.Context(), s, named(policies.Egress{Default: policies.Allow}, engine.NetworkPolicy{})))
	reaches(true)
}
