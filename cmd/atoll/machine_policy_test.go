package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestMachinePolicy puts real sandboxes under policies: a preset whose hosts
// the default snapshot's own pip tells, and a document that is changed under a
// running sandbox and holds on over the death of the server.
func TestMachinePolicy(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "--pool-size", "1")
	py := m.create(map[string]any{"policy": "python-packages"})
	_, index := m.sh(py.ID, `python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.netloc)'; pip config list`)
	host, config, _ := strings.Cut(strings.TrimSpace(index), "\n")
	if config == "" { // of a snapshot with a mirror of its own, the mirror counts
		if code, out := m.cli("policy", "explain", py.ID, host); code != 0 || !strings.Contains(out, "allowed by package-index") {
			t.Errorf("pip's own index: %d %s", code, out)
		}
	}
	if code, out := m.cli("policy", "explain", py.ID, "example.com"); code != 1 || !strings.Contains(out, "denied by egress/default of policy python-packages") {
		t.Errorf("another host: %d %s", code, out)
	}

	put := func(address string) {
		t.Helper()
		doc := fmt.Sprintf("name: live\negress: {rules: [{name: net, allow: [%s], ports: [80/tcp]}]}\n", address)
		m.must("PUT", "/api/policies/live", map[string]any{"document": doc}, nil)
	}
	put("203.0.113.7")
	sb := m.create(map[string]any{"labels": map[string]string{"atoll.policy": "live"}})
	// judged tells what the kernel made of a connection, as the ledger has it.
	judged := func(address, want string) {
		t.Helper()
		eventually(t, "what became of "+address, time.Minute, want, func() string {
			m.sh(sb.ID, "curl -sm 1 http://"+address+"/; true")
			var page struct {
				Items []struct{ Kind, Remote, Rule string }
			}
			m.must("GET", "/api/sandbox/"+sb.ID+"/activity?limit=1000", nil, &page)
			last := ""
			for _, r := range page.Items {
				if r.Remote == address+":80" && (r.Kind == "connect" || r.Kind == "deny") {
					last = r.Kind + " " + r.Rule
				}
			}
			return last
		})
	}
	judged("203.0.113.7", "connect net")
	judged("203.0.113.8", "deny default")
	put("203.0.113.8")
	judged("203.0.113.7", "deny default")
	judged("203.0.113.8", "connect net")

	m.kill()
	m.start()
	judged("203.0.113.8", "connect net")
	judged("203.0.113.7", "deny default")
	put("203.0.113.9") // also sandboxes that were adopted follow
	judged("203.0.113.8", "deny default")
	judged("203.0.113.9", "connect net")
}
