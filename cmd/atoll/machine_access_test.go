package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// accessRequest is a request as the API tells it.
type accessRequest struct {
	ID, Host, Address, Protocol, Rule, State, Call string
	Port, Count                                    int
}

func (m *machine) accessRequests(sandbox, state string) (all []accessRequest) {
	m.t.Helper()
	m.must("GET", "/api/access-requests?sandbox="+sandbox+"&state="+state, nil, &all)
	return all
}

// tool calls a tool over MCP and returns its text.
func (m *machine) tool(name string, args map[string]any) string {
	m.t.Helper()
	const protocol = "2026-07-28"
	var out struct {
		Result struct{ Content []struct{ Text string } }
	}
	status, body, err := m.callWith("POST", "/mcp", map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
		"name": name, "arguments": args,
		"_meta": map[string]any{
			"io.modelcontextprotocol/protocolVersion": protocol, "io.modelcontextprotocol/clientCapabilities": map[string]any{},
			"io.modelcontextprotocol/clientInfo": map[string]any{"name": "t", "version": "1"},
		},
	}}, map[string]string{"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": protocol, "Mcp-Method": "tools/call", "Mcp-Name": name})
	text := string(body)
	if i := strings.LastIndex(text, "data: "); i >= 0 {
		text = text[i+len("data: "):]
	}
	if err != nil || json.Unmarshal([]byte(text), &out) != nil || len(out.Result.Content) == 0 {
		m.t.Fatalf("%s: %d %v %s", name, status, err, body)
	}
	return out.Result.Content[0].Text
}

var approveHint = regexp.MustCompile(`atoll access approve (acc-[a-z0-9]+) --for 1h`)

// TestMachineAccess has an agent denied something, tell whom to ask, and an
// operator allow it for a while and for good.
func TestMachineAccess(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"domainAllowList": "example.com"})
	text := m.tool("sandbox_exec", map[string]any{"id": sb.ID, "command": "getent hosts asked.example.net; true"})
	hint := approveHint.FindStringSubmatch(text)
	if hint == nil || !strings.Contains(text, "\negress: denied asked.example.net (rule egress/default); ") {
		t.Fatalf("the result does not tell of the denial: %q", text)
	}
	if all := m.accessRequests(sb.ID, "pending"); len(all) == 0 || all[0].ID != hint[1] || all[0].Host != "asked.example.net" {
		t.Fatalf("got %+v, want %s", all, hint[1])
	}
	if text := m.tool("sandbox_exec", map[string]any{"id": sb.ID, "command": "true"}); strings.Contains(text, "egress") {
		t.Errorf("another call tells of it: %q", text)
	}
	if code, out := m.cli("access", "approve", hint[1], "--for", "1h"); code != 0 || !strings.Contains(out, "approved until") {
		t.Fatalf("%d %s", code, out)
	}
	// Nobody answers the name here; what counts is that it is asked for.
	m.sh(sb.ID, "getent hosts asked.example.net; true")
	eventually(t, "the name is allowed", time.Minute, true, func() bool {
		return m.recorded(sb.ID, "dns", func(r activityItem) bool { return r.Host == "asked.example.net" && r.Verdict == "allow" })
	})

	// An address, and an approval that ends by itself.
	const reach = "curl -sm 1 http://203.0.113.9:8080/; true"
	_, out := m.sh(sb.ID, `echo "$ATOLL_CALL"; `+reach)
	call, _, _ := strings.Cut(out, "\n")
	attributed := m.processRecords()
	var id string
	eventually(t, "the address is asked for, and by whom", time.Minute, true, func() bool {
		for _, r := range m.accessRequests(sb.ID, "pending") {
			if r.Address == "203.0.113.9" && r.Port == 8080 && r.Protocol == "tcp" && (r.Call == call || !attributed) {
				id = r.ID
			}
		}
		return id != ""
	})
	m.must("POST", "/api/access-requests/"+id+"/approve?seconds=5", nil, nil)
	m.sh(sb.ID, reach)
	eventually(t, "the address is open", time.Minute, true, func() bool {
		return m.recorded(sb.ID, "connect", func(r activityItem) bool { return r.Remote == "203.0.113.9:8080" && r.Rule == "access/"+id })
	})
	eventually(t, "the address is closed again", time.Minute, true, func() bool {
		m.sh(sb.ID, reach)
		all := m.accessRequests(sb.ID, "pending")
		return len(all) == 1 && all[0].ID == id
	})
	if code, out := m.cli("access", "deny", id); code != 0 || !strings.Contains(out, "denied until") {
		t.Errorf("%d %s", code, out)
	}
	m.sh(sb.ID, reach)
	if all := m.accessRequests(sb.ID, "pending"); len(all) != 0 {
		t.Errorf("asked again: %+v", all)
	}
}

// activityItem is a record of the ledger.
type activityItem struct{ Kind, Host, Remote, Verdict, Rule string }

// recorded tells whether the ledger has such a record.
func (m *machine) recorded(sandbox, kind string, is func(activityItem) bool) bool {
	m.t.Helper()
	var page struct{ Items []activityItem }
	m.must("GET", "/api/sandbox/"+sandbox+"/activity?limit=1000&kind="+kind, nil, &page)
	for _, r := range page.Items {
		if is(r) {
			return true
		}
	}
	return false
}

// TestMachineLearn kills the server while a sandbox learns: it goes on, and the
// settings of before hold again at its end, also when that came meanwhile. An
// interrupted command writes a sound policy.
func TestMachineLearn(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"networkBlockAll": true})
	const reach = "curl -sm 1 http://203.0.113.9:8080/; true"
	path := "/api/sandbox/" + sb.ID + "/learn"
	var lesson struct {
		Active bool
		Policy string
	}
	m.must("POST", path+"?seconds=3600", nil, &lesson)
	m.kill()
	m.start()
	m.must("GET", path, nil, &lesson)
	if !lesson.Active {
		t.Error("the time of learning ended with the server")
	}
	m.sh(sb.ID, reach)
	eventually(t, "the policy has the address", time.Minute, true, func() bool {
		m.must("GET", path, nil, &lesson)
		return strings.Contains(lesson.Policy, "- 203.0.113.9\n") && strings.Contains(lesson.Policy, "- 8080/tcp\n")
	})
	m.must("DELETE", path, nil, &lesson)
	if lesson.Active {
		t.Error("it goes on")
	}
	closed := func(what string) {
		t.Helper()
		m.sh(sb.ID, reach)
		eventually(t, what, time.Minute, true, func() bool {
			for _, r := range m.accessRequests(sb.ID, "pending") {
				if r.Address == "203.0.113.9" {
					m.must("POST", "/api/access-requests/"+r.ID+"/approve?seconds=1", nil, nil) // so that the next one shows
					return true
				}
			}
			return false
		})
	}
	closed("the settings of before hold")

	m.must("POST", path+"?seconds=2", nil, nil)
	m.kill()
	time.Sleep(2 * time.Second) // the time is over while there is no server
	m.start()
	m.must("GET", path, nil, &lesson)
	if lesson.Active {
		t.Error("it goes on after its end")
	}
	eventually(t, "the settings hold after a restart", time.Minute, true, func() bool {
		m.sh(sb.ID, reach)
		return len(m.accessRequests(sb.ID, "pending")) == 1
	})

	file := filepath.Join(t.TempDir(), "learned.yaml")
	cmd := exec.Command(m.bin, "--url", m.url, "policy", "learn", sb.ID, "--until-interrupted", "--name", "learned", "--out", file)
	cmd.Env = append(os.Environ(), "ATOLL_API_KEY="+machineKey)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command opened it", time.Minute, true, func() bool {
		m.must("GET", path, nil, &lesson)
		return lesson.Active
	})
	m.sh(sb.ID, reach)
	_ = cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if code, out := m.cli("policy", "explain", file, "connect", "203.0.113.9:8080"); code != 0 {
		t.Errorf("what was done is not allowed: %s", out)
	}
	if code, out := m.cli("policy", "explain", file, "connect", "203.0.113.9:8081"); code != 1 {
		t.Errorf("something else is allowed: %s", out)
	}
}
