package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMachineSealedTraffic asks for a host that does not exist: its TLS is
// ended before anybody resolves it, so what answers is the server's proxy, and
// only with a certificate that the sandbox trusts.
func TestMachineSealedTraffic(t *testing.T) {
	t.Parallel()
	m := newMachine(t, noPool...)
	const value = "a-value-of-the-sealed-machine-test"
	var secret struct{ ID, Placeholder string }
	m.must("POST", "/api/secret", map[string]any{"name": "sealed", "value": value, "hosts": []string{"*.sealed.invalid"}}, &secret)
	sb := m.create(nil)
	curl := func(id, host string) string {
		t.Helper()
		_, out := m.sh(id, `curl -sS -m 15 --resolve `+host+`:443:93.184.216.34 -H "Authorization: Bearer $TOKEN" https://`+host+`/ 2>&1`)
		return out
	}
	attach := func(list ...map[string]string) {
		t.Helper()
		m.must("PUT", "/api/sandbox/"+sb.ID+"/secrets", map[string]any{"secrets": append([]map[string]string{}, list...)}, nil)
	}
	works := func(story, id string) {
		t.Helper()
		if out := curl(id, "api.sealed.invalid"); !strings.Contains(out, "The host cannot be reached: api.sealed.invalid does not resolve") {
			t.Errorf("%s: %q", story, out)
		}
	}
	authority := func(id string) string {
		_, out := m.sh(id, "cat /etc/atoll/ca.pem")
		return out
	}
	if _, out := m.sh(sb.ID, `echo "${SSL_CERT_FILE-none}"; ls /etc/atoll 2>&1`); !strings.HasPrefix(out, "none\n") || strings.Contains(out, "ca.pem") {
		t.Errorf("without secrets: %q", out)
	}
	attach(map[string]string{"TOKEN": "sealed"})
	works("attached", sb.ID)
	eventually(t, "records of the secret", 30*time.Second, "", func() string {
		var sent, led bool
		all := m.records(sb.ID)
		for _, r := range all {
			sent = sent || r.Kind == "secret" && r.Operation == "sent" && r.Detail == "sealed" && r.Host == "api.sealed.invalid" && (r.Call != "" || !m.processRecords())
			led = led || r.Kind == "connect" && r.Operation == "proxied" && r.Host == "api.sealed.invalid" && strings.Contains(r.Reason, "does not resolve")
		}
		if sent && led {
			return ""
		}
		return fmt.Sprintf("sent %v, led %v in %+v", sent, led, all)
	})
	if _, out := m.sh(sb.ID, `python3 -c 'import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 10)'`); strings.TrimSpace(out) != "True" {
		t.Errorf("the sandbox trusts less than its image does: %q", out)
	}
	var fork apiSandbox
	m.must("POST", "/api/sandbox/"+sb.ID+"/fork", map[string]any{}, &fork)
	works("a fork", fork.ID)
	if a, b := authority(sb.ID), authority(fork.ID); a == b || !strings.Contains(b, "BEGIN CERTIFICATE") {
		t.Errorf("a fork trusts its parent's certificate: %q", b)
	}
	// What a process sees, and what a saved disk would hold.
	for _, id := range []string{sb.ID, fork.ID} {
		if _, out := m.sh(id, `grep -rla -D skip '`+value[:len(value)-1]+`[t]' /proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc /home /root /run /tmp 2>/dev/null`); strings.TrimSpace(out) != "" {
			t.Errorf("the value is in the sandbox: %s", out)
		}
	}
	m.must("POST", "/api/sandbox/"+sb.ID+"/stop", nil, nil)
	m.must("POST", "/api/sandbox/"+sb.ID+"/start", nil, nil)
	works("started again", sb.ID)
	m.kill()
	m.start()
	works("after a restart of the server", sb.ID)
	// Hosts that change are told to sandboxes.
	m.must("PATCH", "/api/secret/"+secret.ID, map[string]any{"hosts": []string{}}, nil)
	if _, out := m.sh(sb.ID, `echo "${SSL_CERT_FILE-none} $TOKEN"`); out != "none "+secret.Placeholder+"\n" {
		t.Errorf("without hosts: %q", out)
	}
	m.must("PATCH", "/api/secret/"+secret.ID, map[string]any{"hosts": []string{"api.sealed.invalid"}}, nil)
	works("with hosts again", sb.ID)
	attach()
	if _, out := m.sh(sb.ID, `echo "${SSL_CERT_FILE-none}"; ls /etc/atoll`); out != "none\n" {
		t.Errorf("detached: %q", out)
	}
	if strings.Contains(m.log(), value) {
		t.Error("the value is in the server's log")
	}
	if out, _ := exec.Command("grep", "-rlaF", "--exclude-dir=pool", "--exclude-dir=containerd", "--exclude=pool.img", value, m.home).Output(); len(out) > 0 {
		t.Errorf("the value lies in the server's files: %s", out)
	}
}
