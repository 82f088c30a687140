package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest/published"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/mcp"
	"github.com/atoll-sh/atoll/mcp/mcptest"
)

// agents are the programs that use a server.
var agents = []string{
	"@modelcontextprotocol/inspector@2.12.0",
	"@anthropic-ai/claude-code@2.1.330",
}

// world is a server with one toolbox, the atoll binary, and a user whose agent
// is to use them.
type world struct {
	t     *testing.T
	npm   string
	node  string // the directory of the node command
	atoll string
	home  string
	url   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, npm: published.NPM(t, agents...), node: filepath.Dir(published.Node(t)), home: t.TempDir(), atoll: filepath.Join(t.TempDir(), "atoll")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", w.atoll, "github.com/atoll-sh/atoll/cmd/atoll")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	box := mcptest.NewToolbox(t)
	t.Cleanup(box.Close)
	e := gatewaytest.NewWith(t, box.Handler())
	server, err := mcp.New(
		mcp.Backend{Sandboxes: e, Snapshots: e.Snapshots(), Toolboxes: e, Inspector: e},
		mcp.Options{Version: "test", Log: slog.New(slog.DiscardHandler), Principal: func(r *http.Request) (engine.Principal, bool) {
			p, err := e.Authenticate(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			return p, err == nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	w.url = gatewaytest.Serve(t, e, func(c *gateway.Config) { c.MCP = server.Handler() }).URL()
	t.Cleanup(func() { server.Close() })
	secret := filepath.Join(w.home, ".config", "atoll", "credentials.json")
	if err := os.MkdirAll(filepath.Dir(secret), 0o700); err != nil {
		t.Fatal(err)
	}
	content := fmt.Sprintf(`{"url":%q,"apiKey":%q}`, w.url, gatewaytest.AdminKey)
	if err := os.WriteFile(secret, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs a program as the user and returns what it printed and its exit code.
func (w *world) run(name string, args ...string) (stdout, all string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	if installed := filepath.Join(w.npm, "node_modules", ".bin", name); !filepath.IsAbs(name) {
		if _, err := os.Stat(installed); err == nil {
			name = installed
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = w.home
	cmd.Env = []string{
		"HOME=" + w.home, "MCP_INSPECTOR_SECRET_STORE=memory", "DISABLE_AUTOUPDATER=1", "MCP_TIMEOUT=120000", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
		"PATH=" + w.node + ":" + filepath.Join(w.npm, "node_modules", ".bin") + ":" + os.Getenv("PATH"),
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%s %v: %v", name, args, err)
	}
	return out.String(), out.String() + errs.String(), cmd.ProcessState.ExitCode()
}

func (w *world) inspector(args ...string) (stdout, all string, code int) {
	return w.run("mcp-inspector", append([]string{"--cli"}, append(args, "-q")...)...)
}

func TestInspector(t *testing.T) {
	w := newWorld(t)
	over := map[string][]string{
		"stdio":       {w.atoll, "mcp", "--url", w.url, "-e", "HOME=" + w.home},
		"http":        {w.url + "/mcp", "--transport", "http", "--header", "Authorization: Bearer " + gatewaytest.AdminKey, "--stored-auth-only"},
		"http modern": {w.url + "/mcp", "--transport", "http", "--protocol-era", "modern", "--header", "Authorization: Bearer " + gatewaytest.AdminKey, "--stored-auth-only"},
	}
	for name, target := range over {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			out, all, code := w.inspector(append(target, "--method", "tools/list", "--strict", "--format", "json")...)
			if code != 0 || strings.Count(out, `"inputSchema"`) != 13 {
				t.Fatalf("tools/list --strict: exit %d\n%s", code, all)
			}
			call := func(tool, args string) string {
				t.Helper()
				out, all, code := w.inspector(append(target, "--method", "tools/call", "--tool-name", tool, "--tool-args-json", args, "--format", "json")...)
				if code != 0 {
					t.Fatalf("%s: exit %d\n%s", tool, code, all)
				}
				return text(t, out)
			}
			box := strings.ReplaceAll(name, " ", "-")
			call("sandbox_create", fmt.Sprintf(`{"name":%q}`, box))
			if got := call("sandbox_exec", fmt.Sprintf(`{"id":%q,"command":"echo $((6*7)); exit 3"}`, box)); !strings.HasPrefix(got, "exit 3 · ") || !strings.HasSuffix(got, "\n42") {
				t.Errorf("exec: %q, want exit 3 and 42", got)
			}
			_, all, code = w.inspector(append(target, "--method", "tools/call", "--tool-name", "sandbox_exec", "--tool-args-json", `{"id":"nope","command":"true"}`, "--format", "json")...)
			if code != 5 {
				t.Errorf("an unknown sandbox: exit %d, want 5 for a tool error\n%s", code, all)
			}
		})
	}
}

// Every tool that HTTP offers, without a finding.
func TestInspectorOnAllToolsets(t *testing.T) {
	w := newWorld(t)
	out, all, code := w.inspector(w.url+"/mcp/x/all,daytona", "--transport", "http", "--header", "Authorization: Bearer "+gatewaytest.AdminKey, "--stored-auth-only",
		"--method", "tools/list", "--strict", "--format", "json")
	if n := strings.Count(out, `"inputSchema"`); code != 0 || n != 61 {
		t.Errorf("tools/list --strict: exit %d, %d tools, want 61\n%s", code, n, all)
	}
}

// text finds the first text of a tool result, wherever the program puts the
// result in its answer.
func text(t *testing.T, out string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, out)
	}
	var find func(v any) (string, bool)
	find = func(v any) (string, bool) {
		switch v := v.(type) {
		case map[string]any:
			if s, ok := v["text"].(string); ok {
				return s, true
			}
			for _, e := range v {
				if s, ok := find(e); ok {
					return s, true
				}
			}
		case []any:
			for _, e := range v {
				if s, ok := find(e); ok {
					return s, true
				}
			}
		}
		return "", false
	}
	s, ok := find(v)
	if !ok {
		t.Fatalf("no text in %s", out)
	}
	return s
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	out, all, code := w.run(w.atoll, "mcp", "init", "cursor", "--url", w.url, "--check")
	if code != 0 || !strings.Contains(out, "connected, 13 tools") {
		t.Errorf("init --check: exit %d\n%s", code, all)
	}
}
