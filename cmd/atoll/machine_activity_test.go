package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMachineActivity runs a command that asks for a name and an address that
// its policy does not allow, and finds all of it in the ledger.
func TestMachineActivity(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"domainAllowList": "example.com"})
	_, out := m.sh(sb.ID, `echo "$ATOLL_CALL"; getent hosts denied.example.net; curl -sm 3 http://192.0.2.9/; true`)
	call, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if call == "" {
		t.Fatalf("the command knows no call: %q", out)
	}
	type seen struct{ Called, Asked, Denied bool }
	eventually(t, "what the ledger has of call "+call, time.Minute, seen{true, true, true}, func() (got seen) {
		var page struct {
			Items []struct{ Kind, Call, Operation, Host, Verdict, Rule, Reason string }
		}
		m.must("GET", "/api/sandbox/"+sb.ID+"/activity", nil, &page)
		for _, r := range page.Items {
			got.Called = got.Called || r.Kind == "call" && r.Operation == "exec" && r.Call == call
			got.Asked = got.Asked || r.Kind == "dns" && r.Host == "denied.example.net" && r.Verdict == "deny" && r.Rule != ""
			got.Denied = got.Denied || r.Kind == "deny" && r.Host == "192.0.2.9" && r.Reason != ""
		}
		return got
	})
	var proof struct{ Fault *struct{ Problem string } }
	m.must("GET", "/api/sandbox/"+sb.ID+"/activity/verify", nil, &proof)
	if proof.Fault != nil {
		t.Errorf("the ledger: %s", proof.Fault.Problem)
	}
}

// record is the part of a record of the ledger that tests look at.
type record struct {
	Kind, Call, Process, Parent, Operation, Detail, Program, Host, Remote, Reason, Verdict string
	PID                                                                                    int
	From, To                                                                               *time.Time
}

func (m *machine) records(id string) []record {
	m.t.Helper()
	var page struct{ Items []record }
	m.must("GET", "/api/sandbox/"+id+"/activity?newest=true&limit=1000", nil, &page)
	return page.Items
}

// TestMachineProcesses follows a call to its processes, also to one whose
// parents are gone, and to what they wrote and where they connected to.
func TestMachineProcesses(t *testing.T) {
	m := sharedMachine(t)
	if ok := m.processRecords(); !ok {
		t.Skip("this kernel does not tell what processes do")
	}
	sb := m.create(map[string]any{"domainAllowList": "example.com"})
	run := func(line string) string {
		_, out := m.sh(sb.ID, `echo "$ATOLL_CALL"; `+line)
		call, _, _ := strings.Cut(out, "\n")
		return call
	}
	const fork = `sh -c 'sh -c "while kill -0 $1 2>/dev/null; do sleep 0.05; done; echo y >/tmp/orphan" x $$ >/dev/null 2>&1 &'; `
	first := run(fork + "echo x >/tmp/first")
	second := run("curl -sm 3 http://192.0.2.9/; curl -sm 3 http://127.0.0.1:1/; true")
	m.must("POST", "/api/toolbox/"+sb.ID+"/toolbox/process/session", map[string]any{"sessionId": "s"}, nil)
	for _, word := range []string{"one", "two"} {
		m.must("POST", "/api/toolbox/"+sb.ID+"/toolbox/process/session/s/exec", map[string]any{"command": sessionCommand(word)}, nil)
	}
	has := func(want record) bool {
		for _, r := range m.records(sb.ID) {
			if r.Kind == want.Kind && r.Call == want.Call && strings.Contains(r.Detail, want.Detail) && strings.HasPrefix(r.Remote, want.Remote) && (r.Process != "") {
				return true
			}
		}
		return false
	}
	sessions := map[string]string{}
	eventually(t, "the calls of the session", time.Minute, true, func() bool {
		for _, r := range m.records(sb.ID) {
			if r.Kind == "call" && r.Operation == "exec" {
				sessions[r.Detail] = r.Call
			}
		}
		return sessions[sessionCommand("one")] != "" && sessions[sessionCommand("two")] != ""
	})
	for _, want := range []record{
		{Kind: "exec", Call: first, Detail: "sh -c"},
		{Kind: "file", Call: first, Detail: "/tmp/first"},
		{Kind: "file", Call: first, Detail: "/tmp/orphan"},
		{Kind: "exec", Call: second, Detail: "curl -sm 3 http://192.0.2.9/"},
		{Kind: "connect", Call: second, Remote: "192.0.2.9:80"},
		{Kind: "deny", Call: second, Remote: "192.0.2.9:80"},
		{Kind: "connect", Call: second, Remote: "127.0.0.1:1"},
		{Kind: "exit", Call: second},
		{Kind: "file", Call: sessions[sessionCommand("one")], Detail: "/tmp/one"},
		{Kind: "file", Call: sessions[sessionCommand("two")], Detail: "/tmp/two"},
		{Kind: "exec", Call: sessions[sessionCommand("two")], Detail: "/bin/echo two"},
	} {
		if want.Call == "" {
			t.Fatalf("no call for %+v", want)
		}
		eventually(t, fmt.Sprintf("%+v", want), time.Minute, true, func() bool { return has(want) })
	}
	m.sh(sb.ID, "setsid sleep 300 >/dev/null 2>&1 & true")
	m.kill()
	m.start()
	eventually(t, "a gap", time.Minute, true, func() bool {
		for _, r := range m.records(sb.ID) {
			if r.Kind == "gap" && r.Operation == "processes" && r.From != nil && r.To != nil && r.From.Before(*r.To) {
				return true
			}
		}
		return false
	})
}

// processRecords tells whether the server says that it records processes.
func (m *machine) processRecords() bool {
	m.t.Helper()
	var report struct {
		Checks []struct {
			Name string
			OK   bool
		}
	}
	m.must("GET", "/api/doctor", nil, &report)
	for _, c := range report.Checks {
		if c.Name == "process records" {
			return c.OK
		}
	}
	m.t.Fatal("doctor says nothing of process records")
	return false
}

func sessionCommand(word string) string {
	return `sh -c "echo z >/tmp/` + word + `; true"; /bin/echo ` + word
}

// TestMachineRefusedCalls: what the filter refuses is in the ledger with its
// call, without any setting: in a member of the warm pool that was claimed, after
// another start, in a fork, while no server runs and when one is back.
func TestMachineRefusedCalls(t *testing.T) {
	m := newMachine(t, "--pool-size", "1")
	if !m.processRecords() {
		t.Skip("this kernel does not tell what processes do")
	}
	told := func(id string, want record) {
		t.Helper()
		eventually(t, fmt.Sprintf("%+v", want), 20*time.Second, true, func() bool {
			return slices.ContainsFunc(m.records(id), func(r record) bool {
				return r.Kind == "privilege" && r.Verdict == "deny" && (r.Process != "" || want.Call == "") && r.PID > 1 &&
					r.Call == want.Call && r.Operation == want.Operation && strings.HasPrefix(r.Detail, want.Detail)
			})
		})
	}
	try := func(id string, n int) {
		t.Helper()
		_, out := m.sh(id, fmt.Sprintf(`echo "$ATOLL_CALL"; sudo mount -t tmpfs nothing%d /mnt 2>&1; unshare -U true 2>&1; true`, n))
		call, said, _ := strings.Cut(out, "\n")
		if call == "" || strings.Count(said, "permission denied")+strings.Count(said, "not permitted") != 2 {
			t.Fatalf("got %q", out)
		}
		told(id, record{Call: call, Operation: "mount", Detail: fmt.Sprintf("source=nothing%d target=/mnt type=tmpfs", n)})
		told(id, record{Call: call, Operation: "unshare", Detail: "flags=newuser"})
	}
	sb := m.create(nil)
	try(sb.ID, 1)
	var fork apiSandbox
	m.must("POST", "/api/sandbox/"+sb.ID+"/fork", map[string]any{"name": "fork"}, &fork)
	try(fork.ID, 2)
	m.must("POST", "/api/sandbox/"+sb.ID+"/stop", nil, nil)
	m.must("POST", "/api/sandbox/"+sb.ID+"/start", nil, nil)
	try(sb.ID, 3)
	m.sh(sb.ID, `(sleep 1; unshare -m true; sleep 60) >/dev/null 2>&1 &`)
	m.kill()
	time.Sleep(1500 * time.Millisecond)
	m.start()
	told(sb.ID, record{Operation: "unshare", Detail: "flags=newns"}) // by a process that nobody saw
	try(sb.ID, 4)
	try(fork.ID, 5)
}

// TestMachineKeeperKilled: a sandbox whose shim is killed ends with it, before
// anybody could do what is refused, and others do not notice.
func TestMachineKeeperKilled(t *testing.T) {
	m := sharedMachine(t)
	sb, other := m.create(nil), m.create(nil)
	m.sh(sb.ID, `(while sudo mount -t tmpfs x /mnt 2>/dev/null && touch /mnt/mounted || true; do :; done) >/dev/null 2>&1 &`)
	if err := syscall.Kill(m.shim(sb.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the state", 20*time.Second, true, func() bool {
		var got apiSandbox
		m.must("GET", "/api/sandbox/"+sb.ID, nil, &got)
		return got.State == "stopped" || got.State == "error"
	})
	if _, out := m.sh(other.ID, "unshare -U true 2>&1"); !strings.Contains(out, "not permitted") {
		t.Errorf("another sandbox: %q", out)
	}
	m.must("POST", "/api/sandbox/"+sb.ID+"/start", nil, nil)
	if _, out := m.sh(sb.ID, "unshare -U true 2>&1; ls /mnt"); !strings.Contains(out, "not permitted") || strings.Contains(out, "mounted") {
		t.Errorf("after another start: %q", out)
	}
}

// shim is the process that keeps a sandbox's container.
func (m *machine) shim(id string) int {
	m.t.Helper()
	records, _ := filepath.Glob(filepath.Join(m.home, "instances", "*.json"))
	for _, r := range records {
		if b, _ := os.ReadFile(r); !strings.Contains(string(b), id) {
			continue
		}
		instance := strings.TrimSuffix(filepath.Base(r), ".json")
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range all {
			if b, _ := os.ReadFile(p); strings.Contains(string(b), "containerd-shim") && strings.Contains(string(b), "\x00"+instance+"\x00") {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
				if err == nil {
					return pid
				}
			}
		}
	}
	m.t.Fatalf("no shim of %s", id)
	return 0
}

// TestMachinePolicyRecords changes a sandbox's network, rightly and wrongly, and
// asks for a name where there are none. Each leaves a record.
func TestMachinePolicyRecords(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(nil)
	if status, _, err := m.call("POST", "/api/sandbox/"+sb.ID+"/network-settings", map[string]any{"outboundProxyUrl": "ftp://192.0.2.9"}); err != nil || status != 400 {
		t.Errorf("a proxy that is none: %d, %v", status, err)
	}
	m.must("POST", "/api/sandbox/"+sb.ID+"/network-settings", map[string]any{"networkBlockAll": true}, nil)
	_, out := m.sh(sb.ID, `echo "$ATOLL_CALL"; getent hosts denied.example.net; true`)
	call := strings.TrimSpace(out)
	eventually(t, "the records", 30*time.Second, "", func() string {
		var refused, applied, asked bool
		all := m.records(sb.ID)
		for _, r := range all {
			refused = refused || r.Kind == "policy" && r.Operation == "refused" && r.Reason != ""
			applied = applied || r.Kind == "policy" && r.Operation == "applied" && r.Detail == "deny all else"
			asked = asked || r.Kind == "deny" && strings.HasSuffix(r.Remote, ":53") && (r.Call == call || !m.processRecords())
		}
		if refused && applied && asked {
			return ""
		}
		return fmt.Sprintf("refused %v, applied %v, asked %v of call %q in %+v", refused, applied, asked, call, all)
	})
}
