package policies

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sample = `
name: sample
description: what a build needs
egress:
  rules:
    - name: mirrors
      allow: [Mirror.Example.com., "*.cdn.example.com", 192.0.2.0/24]
    - name: time
      allow: [203.0.113.7]
      ports: [123/udp, icmp]
    - name: not-that-one
      deny: [private.cdn.example.com, 192.0.2.66]
resources: {cpu: 2, memory: 4Gi, disk: 512Mi, pids: 100, sandboxes: 3}
tools: {allow: ["sandbox_*", file_read], deny: [sandbox_delete], readOnly: false}
exec: {deny: ["/usr/bin/nc*"]}
files:
  read: {deny: ["/etc/shadow"]}
  write: {allow: ["/home/**", "/tmp/*"]}
lifecycle: {autoStop: 15m, ttl: 2h}
secrets: {allow: [ci-*]}
`

func parsed(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParse(t *testing.T) {
	want := &Policy{
		Name: "sample", Description: "what a build needs",
		Egress: Egress{Default: Deny, Rules: []EgressRule{
			{Name: "mirrors", Verdict: Allow, Hosts: []Host{"mirror.example.com", "*.cdn.example.com"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			{Name: "time", Verdict: Allow, Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}, Ports: []Ports{{UDP, 123, 123}, {Protocol: ICMP}}},
			{Name: "not-that-one", Verdict: Deny, Hosts: []Host{"private.cdn.example.com"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.66/32")}},
		}},
		Resources: Resources{CPU: 2, MemoryMiB: 4096, DiskMiB: 512, PIDs: 100, Sandboxes: 3},
		Tools:     Tools{Allow: []string{"sandbox_*", "file_read"}, Deny: []string{"sandbox_delete"}},
		Exec:      Paths{Deny: []string{"/usr/bin/nc*"}},
		Files:     Files{Read: Paths{Deny: []string{"/etc/shadow"}}, Write: Paths{Allow: []string{"/home/**", "/tmp/*"}}},
		Lifecycle: Lifecycle{AutoStop: 15 * time.Minute, TTL: 2 * time.Hour},
		Secrets:   Secrets{Allow: []string{"ci-*"}},
	}
	if diff := cmp.Diff(want, parsed(t, sample), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestDecide(t *testing.T) {
	p := parsed(t, sample)
	connect := func(s string) Request {
		r, err := ParseConnect(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	at := func(host, addr string, port uint16) Request {
		return ConnectRequest{Host: host, Address: netip.MustParseAddr(addr), Protocol: TCP, Port: port}
	}
	tests := []struct {
		request Request
		allow   bool
		rule    string
	}{
		{connect("mirror.example.com:443"), true, "mirrors"},
		{connect("MIRROR.example.COM.:80"), true, "mirrors"},
		{connect("mirror.example.com:22"), false, "egress/default"},
		{connect("mirror.example.com:443/udp"), false, "egress/default"},
		{connect("x.mirror.example.com:443"), false, "egress/default"},
		{connect("a.b.cdn.example.com:443"), true, "mirrors"},
		{connect("cdn.example.com:443"), false, "egress/default"},
		{connect("evilcdn.example.com:443"), false, "egress/default"},
		{connect("cdn.example.com.evil.net:443"), false, "egress/default"},
		{connect("private.cdn.example.com:443"), false, "not-that-one"},
		{connect("192.0.2.1:9999"), true, "mirrors"},
		{connect("[::ffff:192.0.2.1]:9999"), true, "mirrors"},
		{connect("192.0.2.66:80"), false, "not-that-one"},
		{connect("203.0.113.7:123/udp"), true, "time"},
		{connect("203.0.113.7:123"), false, "egress/default"},
		{connect("203.0.113.7/icmp"), true, "time"},
		{connect("203.0.113.8/icmp"), false, "egress/default"},
		{ConnectRequest{Address: netip.MustParseAddr("192.0.2.1"), Protocol: "gre"}, false, "egress/protocol"},
		{ConnectRequest{Protocol: TCP, Port: 80}, false, "egress/default"},
		{at("mirror.example.com", "198.51.100.1", 443), true, "mirrors"},
		{at("mirror.example.com", "169.254.169.254", 443), false, "blocked/metadata"},
		{at("mirror.example.com", "127.0.0.1", 443), false, "blocked/loopback"},
		{at("mirror.example.com", "::ffff:127.0.0.1", 443), false, "blocked/loopback"},
		{at("mirror.example.com", "64:ff9b::a9fe:a9fe", 443), false, "blocked/translation"},
		{at("mirror.example.com", "fe80::1", 443), false, "blocked/link-local"},
		{at("mirror.example.com", "192.0.2.66", 443), false, "not-that-one"},
		{at("elsewhere.example", "192.0.2.1", 443), true, "mirrors"},
		{LookupRequest{"mirror.example.com"}, true, "mirrors"},
		{LookupRequest{"x.cdn.example.com."}, true, "mirrors"},
		{LookupRequest{"private.cdn.example.com"}, false, "not-that-one"},
		{LookupRequest{"example.com"}, false, "egress/default"},
		{LookupRequest{"0x7f.1"}, false, "egress/default"},
		{LookupRequest{"mirror.example.com\x00.evil.net"}, false, "egress/default"},
		{ToolRequest{Tool: "sandbox_create", Changes: true}, true, "tools/allow"},
		{ToolRequest{Tool: "sandbox_delete", Changes: true}, false, "tools/deny"},
		{ToolRequest{Tool: "process_run", Changes: true}, false, "tools/default"},
		{ExecRequest{"/usr/bin/python3"}, true, "exec/default"},
		{ExecRequest{"/usr/bin/nc.openbsd"}, false, "exec/deny"},
		{FileRequest{Path: "/etc/shadow"}, false, "files/read/deny"},
		{FileRequest{Path: "/etc/passwd"}, true, "files/read/default"},
		{FileRequest{Path: "/home/daytona/a/b", Write: true}, true, "files/write/allow"},
		{FileRequest{Path: "/tmp/a/b", Write: true}, false, "files/write/default"},
		{SecretRequest{"ci-token"}, true, "secrets/allow"},
		{SecretRequest{"prod-token"}, false, "secrets/default"},
		{SandboxRequest{Resources: Resources{CPU: 2, MemoryMiB: 4096, Sandboxes: 2}, Lifecycle: Lifecycle{AutoStop: time.Minute, TTL: time.Hour}}, true, "resources/default"},
		{SandboxRequest{Resources: Resources{CPU: 3}}, false, "resources/cpu"},
		{SandboxRequest{Resources: Resources{Sandboxes: 3}}, false, "resources/sandboxes"},
		{SandboxRequest{Lifecycle: Lifecycle{AutoStop: 0, TTL: time.Hour}}, false, "lifecycle/autoStop"},
	}
	for _, tt := range tests {
		d := Decide(p, tt.request)
		if d.Allow != tt.allow || d.Rule != tt.rule || d.Reason == "" {
			t.Errorf("%s: got %+v, want %v by %s", tt.request, d, tt.allow, tt.rule)
		}
	}
}

func TestZeroPolicyRefusesEgress(t *testing.T) {
	for _, r := range []Request{LookupRequest{"example.com"}, ConnectRequest{Address: netip.MustParseAddr("192.0.2.1"), Protocol: TCP, Port: 443}} {
		if d := Decide(&Policy{}, r); d.Allow {
			t.Errorf("%s: %+v", r, d)
		}
	}
}

func TestOpenPolicyKeepsBlocks(t *testing.T) {
	p := parsed(t, "name: open\negress: {default: allow, tls: {ech: outer}}")
	if p.Egress.ECH != ECHOuter {
		t.Errorf("ECH is %q", p.Egress.ECH)
	}
	for _, b := range Blocked() {
		if d := Decide(p, ConnectRequest{Address: b.Prefix.Addr(), Protocol: TCP, Port: 80}); d.Allow {
			t.Errorf("%s is open: %+v", b.Prefix, d)
		}
	}
	if d := Decide(p, ConnectRequest{Address: netip.MustParseAddr("198.51.100.7"), Protocol: TCP, Port: 80}); !d.Allow {
		t.Errorf("the internet is closed: %+v", d)
	}
}

func TestExplainNamesTheRule(t *testing.T) {
	got := Explain(parsed(t, sample), ConnectRequest{Host: "private.cdn.example.com", Protocol: TCP, Port: 443})
	want := "connect to private.cdn.example.com, port 443/tcp: denied by not-that-one of policy sample: a rule that denies matches"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseFaults(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "name: "},
		{"name: a b", "name: "},
		{"name: x\nunknown: 1", "unknown"},
		{"name: x\nname: y", "name"},
		{"name: x\negress: {default: maybe}", "egress.default: "},
		{"name: x\negress: {tls: {ech: maybe}}", "egress.tls.ech: "},
		{"name: x\negress: {rules: [{name: r}]}", "egress.rules[0]: it neither"},
		{"name: x\negress: {rules: [{name: r, allow: [a.example], deny: [b.example]}]}", "egress.rules[0]: it both"},
		{"name: x\negress: {rules: [{name: r, allow: [a.example]}, {name: r, allow: [b.example]}]}", "egress.rules[1].name: "},
		{"name: x\negress: {rules: [{name: r, allow: [\"*\"]}]}", "egress.rules[0].allow[0]: "},
		{"name: x\negress: {rules: [{name: r, allow: [\"*.com\"]}]}", "top-level"},
		{"name: x\negress: {rules: [{name: r, allow: [\"a.*.com\"]}]}", "star"},
		{"name: x\negress: {rules: [{name: r, allow: [192.0.2.1/24]}]}", "192.0.2.0/24 is the network"},
		{"name: x\negress: {rules: [{name: r, allow: [\"::ffff:0:0/90\"]}]}", "mixes"},
		{"name: x\negress: {rules: [{name: r, allow: [\"http://a.example\"]}]}", "egress.rules[0].allow[0]: "},
		{"name: x\negress: {rules: [{name: r, allow: [127.1]}]}", "address"},
		{"name: x\negress: {rules: [{name: r, allow: [a.example], ports: [0]}]}", "egress.rules[0].ports[0]: "},
		{"name: x\negress: {rules: [{name: r, allow: [a.example], ports: [90-80]}]}", "ports[0]"},
		{"name: x\negress: {rules: [{name: r, allow: [a.example], ports: [80/sctp]}]}", "ports[0]"},
		{"name: x\nresources: {memory: 4GB}", "resources.memory: "},
		{"name: x\nresources: {cpu: -1}", "resources.cpu: "},
		{"name: x\nlifecycle: {ttl: soon}", "lifecycle.ttl: "},
		{"name: x\nexec: {deny: [nc]}", "exec.deny[0]: "},
		{"name: x\ntools: {allow: [\"\"]}", "tools.allow[0]: "},
	}
	for _, tt := range tests {
		_, err := Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestParseNamesEveryFault(t *testing.T) {
	_, err := Parse([]byte("name: \"\"\nresources: {memory: x, disk: y}"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v, want three lines", err)
	}
}

func TestCheck(t *testing.T) {
	table, err := ParseTable([]byte(`
policy: sample
cases:
  - {connect: "mirror.example.com:443", expect: allow, rule: mirrors}
  - {lookup: example.com, expect: deny}
  - {sandbox: {cpu: 2, memory: 4Gi, autoStop: 15m, ttl: 1h}, expect: allow, rule: resources/default}
  - {sandbox: {cpu: 3, autoStop: 15m, ttl: 1h}, expect: deny, rule: resources/cpu}
  - {sandbox: {cpu: 1, autoStop: 15m, ttl: 3h}, expect: deny, rule: lifecycle/ttl}
  - {name: wrong, secret: ci-token, expect: deny}
  - {name: wrong rule, exec: /usr/bin/nc, expect: deny, rule: other}
`))
	if err != nil || table.Policy != "sample" {
		t.Fatalf("got %q, %v", table.Policy, err)
	}
	failed := Check(parsed(t, sample), table.Cases)
	if len(failed) != 2 || failed[0].Case.Name != "wrong" || failed[1].Case.Name != "wrong rule" {
		t.Errorf("got %v", failed)
	}
	if s := failed[1].String(); s != `wrong rule: run "/usr/bin/nc": deny by exec/deny, want deny by other` {
		t.Errorf("got %q", s)
	}
	for _, bad := range []string{"cases: []", "cases: [{expect: allow}]", "cases: [{lookup: a, tool: b, expect: allow}]", "cases: [{lookup: a, expect: no}]", "cases: [{connect: a, expect: deny}]"} {
		if _, err := ParseTable([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestGlob(t *testing.T) {
	tests := []struct {
		glob, s string
		want    bool
	}{
		{"a*c", "abc", true},
		{"a*c", "ac", true},
		{"a*c", "a/c", false},
		{"a**c", "a/b/c", true},
		{"/home/**", "/home/", true},
		{"/home/**", "/home", false},
		{"?b", "ab", true},
		{"?b", "/b", false},
		{"", "", true},
		{"*", "", true},
		{"a", "", false},
		{"*a*b*", "xxaxxb", true},
		{"**/x", "/a/b/x", true},
	}
	for _, tt := range tests {
		if got := matchGlob(tt.glob, tt.s); got != tt.want {
			t.Errorf("matchGlob(%q, %q) = %v", tt.glob, tt.s, got)
		}
	}
}

func FuzzCanonicalName(f *testing.F) {
	for _, s := range []string{"example.com", "EXAMPLE.com.", "bücher.example", "1.2.3.4", "0x7f.0x1", "a..b", "_srv._tcp.example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := CanonicalName(s)
		if err != nil {
			return
		}
		if again, err := CanonicalName(name); err != nil || again != name {
			t.Errorf("%q became %q, which became %q, %v", s, name, again, err)
		}
		if _, err := netip.ParseAddr(name); err == nil {
			t.Errorf("%q became the address %q", s, name)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("name: x\negress: {rules: [{name: r, allow: [a.example, 192.0.2.0/24], ports: [1-2/udp]}]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		for _, b := range Blocked() {
			if d := Decide(p, ConnectRequest{Address: b.Prefix.Addr(), Protocol: TCP, Port: 80}); d.Allow {
				t.Errorf("opens %s", b.Prefix)
			}
		}
	})
}
