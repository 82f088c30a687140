package acceptance

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

// login are an identity provider and a client that others have written.
var login = []string{"oidc-provider@9.13.3", "@modelcontextprotocol/sdk@1.32.2"}

// script copies a script to where its packages are found, and returns a
// command that runs it.
func script(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(published.NPM(t, login...), "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), published.Node(t), append([]string{path}, args...)...)
}

// An agent with nothing but the server's URL gets its user logged in at an
// identity provider and works for them: both are other people's programs.
func TestLogIn(t *testing.T) {
	issuer, address := enginetest.FreeAddress(t), enginetest.FreeAddress(t)
	_, port, _ := net.SplitHostPort(issuer)
	resource := "http://" + address + "/mcp"
	provider := script(t, "provider.mjs", port, resource)
	out, err := provider.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	provider.Stderr = os.Stderr
	start(t, provider)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the provider: %q, %v", line, err)
	}
	startProduct(t, address, "--oidc-issuer", "http://"+issuer, "--oidc-audience", resource, "--oidc-sign-up")

	awaitSnapshot(t, address)

	agent := script(t, "agent.mjs", resource, "ann", "by-login")
	text, err := agent.Output()
	if err != nil {
		t.Fatalf("the agent: %v\n%s", err, errorText(err))
	}
	var got struct {
		Tools       int
		Text, Token string
		IsError     bool
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Tools != 13 || got.IsError || !strings.Contains(got.Text, "by-login") {
		t.Fatalf("got %s, %v", text, err)
	}
	for what, c := range map[string]struct {
		key, path, want string
		status          int
	}{
		"the user's own list":        {got.Token, "/api/sandbox", "by-login", 200},
		"the user":                   {got.Token, "/api/users/me", `"email":"ann@example.com"`, 200},
		"what no scope was given to": {got.Token, "/api/admin/users", "", 403},
		"a changed token":            {got.Token[:len(got.Token)-6] + "AAAAAA", "/api/sandbox", "", 401},
		"the administrator's list":   {productKey, "/api/sandbox", `"items":[]`, 200},
		"the administrator's users":  {productKey, "/api/admin/users", "ann@example.com", 200},
	} {
		if status, body := get(t, "http://"+address+c.path, c.key); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: got %d %s", what, status, body)
		}
	}
}

// get asks the product with a key.
func get(t *testing.T, url, key string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// awaitSnapshot waits until sandboxes can be made: a new home unpacks the
// default image first.
func awaitSnapshot(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, body := get(t, "http://"+address+"/api/snapshots/atoll-small", productKey)
		var got struct{ State string }
		if err := json.Unmarshal([]byte(body), &got); err == nil && got.State == "active" {
			return
		}
		if time.Now().After(deadline) || strings.HasSuffix(got.State, "error") || got.State == "build_failed" {
			t.Fatalf("no default snapshot: %s", body)
		}
	}
}

func errorText(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}
