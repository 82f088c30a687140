package main

import (
	"strings"
	"testing"
)

// TestMachineActivity runs a command that asks for a name and an address that
// its policy does not allow, and finds all of it in the ledger.
func TestMachineActivity(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"domainAllowList": "example.com"})
	_, out := m.sh(sb.ID, `echo "$ATOLL_CALL"; getent hosts denied.example.net; curl -sm 3 http://192.0.2.9/; true`)
	call, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	var page struct {
		Items []struct{ Kind, Call, Operation, Host, Verdict, Rule, Reason string }
	}
	m.must("GET", "/api/sandbox/"+sb.ID+"/activity", nil, &page)
	var called, asked, denied bool
	for _, r := range page.Items {
		called = called || r.Kind == "call" && r.Operation == "exec" && r.Call == call
		asked = asked || r.Kind == "dns" && r.Host == "denied.example.net" && r.Verdict == "deny" && r.Rule != ""
		denied = denied || r.Kind == "deny" && r.Host == "192.0.2.9" && r.Reason != ""
	}
	if !called || !asked || !denied || call == "" {
		t.Errorf("call %q: called %v, asked %v, denied %v in %+v", call, called, asked, denied, page.Items)
	}
	var proof struct{ Fault *struct{ Problem string } }
	m.must("GET", "/api/sandbox/"+sb.ID+"/activity/verify", nil, &proof)
	if proof.Fault != nil {
		t.Errorf("the ledger: %s", proof.Fault.Problem)
	}
}
