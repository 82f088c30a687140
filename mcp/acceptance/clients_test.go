package acceptance

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

var all = flag.Bool("all", false, "also drive agents that are slow to install")

// connecting are agents with a command that says whether they reach a server.
// Those that only read their file back cannot know.
var connecting = []struct {
	agent, pkg, program string
	list                []string
	listed, connected   string // patterns of the answer
	http, slow          bool   // slow to install: left to make acceptance
}{
	{"claude-code", agents[1], "claude", []string{"mcp", "get", "atoll"}, `atoll`, `✔ Connected`, true, false},
	{"claude-code", agents[1], "claude", []string{"mcp", "list"}, `atoll`, `atoll.*✔ Connected`, false, false},
	{"gemini", "@google/gemini-cli@0.61.0", "gemini", []string{"mcp", "list"}, `atoll`, `atoll.*Connected`, true, true},
	{"opencode", "opencode-ai@1.18.33", "opencode", []string{"mcp", "list"}, `atoll`, `atoll.*connected`, true, true},
	{"qwen", "@qwen-code/qwen-code@0.24.4", "qwen", []string{"mcp", "list"}, `atoll`, `atoll.*Connected`, true, true},
	{"codex", "@openai/codex@0.169.0", "codex", []string{"mcp", "get", "atoll", "--json"}, `(?s)"name": *"atoll"`, "", true, true},
	{"copilot", "@github/copilot@1.0.102", "copilot", []string{"mcp", "get", "atoll"}, `atoll`, "", true, true},
}

// TestClients lets real agents say that they reach the server that atoll mcp
// init told them of, over both transports, and that it is gone after --remove.
func TestClients(t *testing.T) {
	w := newWorld(t)
	// Gemini starts nothing in folders that its user has not looked at.
	settings := filepath.Join(w.home, ".gemini", "settings.json")
	if err := os.MkdirAll(filepath.Dir(settings), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, []byte(`{"security": {"folderTrust": {"enabled": false}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range connecting {
		for _, transport := range []string{"stdio", "http"} {
			if transport == "http" && !c.http || c.slow && !*all {
				continue
			}
			t.Run(c.agent+" "+c.list[1]+" "+transport, func(t *testing.T) {
				w := *w
				w.t, w.npm = t, published.NPM(t, c.pkg)
				init := func(args ...string) {
					t.Helper()
					args = append([]string{"mcp", "init", "--agent", c.agent, "--url", w.url, "--transport", transport}, args...)
					if _, text, code := w.run(w.atoll, args...); code != 0 {
						t.Fatalf("%v: exit %d\n%s", args, code, text)
					}
				}
				init()
				// Over HTTP the file names the variable that holds the key.
				list := append([]string{"ATOLL_API_KEY=" + gatewaytest.AdminKey, c.program}, c.list...)
				_, text, code := w.run("env", list...)
				text = ansi.ReplaceAllString(text, "")
				if code != 0 || !regexp.MustCompile(c.listed).MatchString(text) || !regexp.MustCompile(c.connected).MatchString(text) {
					t.Errorf("%v: exit %d\n%s", c.list, code, text)
				}
				if strings.Contains(text, gatewaytest.AdminKey) {
					t.Errorf("it shows the key:\n%s", text)
				}
				t.Logf("%s", text)
				init("--remove")
				if _, text, _ = w.run("env", list...); regexp.MustCompile(`atoll.*[Cc]onnected`).MatchString(text) {
					t.Errorf("still there after removal:\n%s", text)
				}
			})
		}
	}
}

// ansi are the colours that some programs print to a pipe, too.
var ansi = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
