package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func TestSSHAccess(t *testing.T) {
	e := gatewaytest.New(t)
	e.AddSandbox(engine.Sandbox{ID: "id-1", Name: "one", OrganizationID: engine.DefaultOrganization, State: engine.StateStarted})
	e.AddSandbox(engine.Sandbox{ID: "id-2", Name: "two", OrganizationID: "other", State: engine.StateStarted})
	gate := &api.SSHGateway{Host: "ssh.example.com", Port: 2222, HostKey: "ssh-ed25519 AAAA", Fingerprint: "SHA256:x"}
	s := gatewaytest.Serve(t, e, func(c *gateway.Config) { c.SSH, c.SSHGateway = e.SSH(), gate })
	call := func(method, path string, status int, out any) string {
		t.Helper()
		res, body := request(t, method, s.URL()+"/api"+path, gatewaytest.AdminKey, "")
		if res.StatusCode != status {
			t.Fatalf("%s %s: got %d %s, want %d", method, path, res.StatusCode, body, status)
		}
		if out != nil {
			if err := json.Unmarshal(body, out); err != nil {
				t.Fatal(err)
			}
		}
		return string(body)
	}
	var first, second wire.SSHAccess
	call("POST", "/sandbox/one/ssh-access", http.StatusOK, &first)
	if want := "ssh -p 2222 " + first.Token + "@ssh.example.com"; first.SSHCommand != want || first.SandboxID != "id-1" || first.ID == "" {
		t.Errorf("got %+v, want the command %q", first, want)
	}
	made, _ := time.Parse(time.RFC3339, first.CreatedAt)
	ends, _ := time.Parse(time.RFC3339, first.ExpiresAt)
	if got := ends.Sub(made); got != time.Hour {
		t.Errorf("it is good for %v, want an hour", got)
	}
	gate.Port = 22
	call("POST", "/sandbox/id-1/ssh-access?expiresInMinutes=5", http.StatusOK, &second)
	if want := "ssh " + second.Token + "@ssh.example.com"; second.SSHCommand != want {
		t.Errorf("got %q, want %q", second.SSHCommand, want)
	}
	for token, want := range map[string]wire.SSHValidation{
		second.Token: {Valid: true, SandboxID: "id-1"}, first.Token: {}, "nonsense": {},
	} {
		var got wire.SSHValidation
		call("GET", "/sandbox/ssh-access/validate?token="+token, http.StatusOK, &got)
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	for path, want := range map[string]string{
		"?expiresInMinutes=0":       "expiresInMinutes",
		"?expiresInMinutes=-1":      "expiresInMinutes",
		"?expiresInMinutes=NaN":     "expiresInMinutes",
		"?expiresInMinutes=1e300":   "expiresInMinutes",
		"?expiresInMinutes=forever": "expiresInMinutes",
	} {
		if body := call("POST", "/sandbox/one/ssh-access"+path, http.StatusBadRequest, nil); !strings.Contains(body, want) {
			t.Errorf("%s: got %s", path, body)
		}
	}
	call("POST", "/sandbox/two/ssh-access", http.StatusNotFound, nil)
	call("GET", "/sandbox/ssh-access/validate", http.StatusBadRequest, nil)
	call("DELETE", "/sandbox/one/ssh-access?token="+first.Token, http.StatusNotFound, nil)
	var sb wire.Sandbox
	call("DELETE", "/sandbox/one/ssh-access?token="+second.Token, http.StatusOK, &sb)
	call("DELETE", "/sandbox/one/ssh-access", http.StatusOK, nil)
	if sb.ID != "id-1" {
		t.Errorf("got %+v, want the sandbox", sb)
	}

	var got wire.SSHConfiguration
	call("GET", "/config", http.StatusOK, &got)
	want := wire.SSHConfiguration{
		Command: "ssh {{TOKEN}}@ssh.example.com", PublicKey: "ssh-ed25519 AAAA", Host: "ssh.example.com", Port: 22,
		HostKeys: []string{"ssh-ed25519 AAAA"}, Fingerprints: []string{"SHA256:x"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	gate.Host = "" // then it is where the caller found the API
	if call("GET", "/config", http.StatusOK, &got); got.Host != "127.0.0.1" {
		t.Errorf("got host %q", got.Host)
	}
}

func TestWithoutSSHGateway(t *testing.T) {
	e := gatewaytest.New(t)
	e.AddSandbox(engine.Sandbox{ID: "id-1", Name: "one", OrganizationID: engine.DefaultOrganization, State: engine.StateStarted})
	s := gatewaytest.Serve(t, e)
	for _, c := range [][2]string{{"POST", "/sandbox/one/ssh-access"}, {"DELETE", "/sandbox/one/ssh-access"}, {"GET", "/sandbox/ssh-access/validate?token=x"}} {
		res, body := request(t, c[0], s.URL()+"/api"+c[1], gatewaytest.AdminKey, "")
		if res.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(string(body), "--ssh-listen") {
			t.Errorf("%v: got %d %s", c, res.StatusCode, body)
		}
	}
	_, body := request(t, "GET", s.URL()+"/api/config", "", "")
	if strings.Contains(string(body), "sshGateway") {
		t.Errorf("got %s", body)
	}
}
