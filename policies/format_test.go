package policies

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFormatRoundTrip(t *testing.T) {
	for _, text := range []string{
		"name: empty\n", `
name: whole
description: "every section: of all"
egress:
  default: allow
  rules:
    - {name: web, allow: [example.com, "*.example.org"]}
    - {name: nets, allow: [192.0.2.0/24, 192.0.2.9, "2001:db8::/32", "2001:db8::1"], ports: [443, 8000-8999/udp, icmp]}
    - {name: not, deny: [bad.example.com]}
resources: {cpu: 1.5, memory: 512Mi, disk: 4Gi, pids: 100, sandboxes: 3}
tools: {allow: ["sandbox_*"], deny: [sandbox_delete], readOnly: true}
exec: {allow: ["/usr/**"], deny: ["/usr/bin/nc*"]}
files: {read: {deny: ["/etc/shadow"]}, write: {allow: ["/tmp/**"]}}
lifecycle: {autoStop: 15m, ttl: 2h}
secrets: {allow: ["ci-*", "yes", "1"]}
`,
	} {
		want := parsed(t, text)
		written, err := Format(want)
		if err != nil {
			t.Fatalf("%v in\n%s", err, written)
		}
		if diff := cmp.Diff(want, parsed(t, string(written)), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("(-want +got):\n%s\nof\n%s", diff, written)
		}
	}
	if _, err := Format(&Policy{Name: "no name"}); err == nil {
		t.Error("a policy that Parse refuses was written")
	}
}
