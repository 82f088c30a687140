package acceptance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

// agentRun is a real agent that is told to work by a scripted model.
type agentRun struct {
	agent   string // as atoll mcp init knows it
	pkg     string
	files   map[string]string // in the home, before init; {model} is the model's URL
	env     []string
	command []string
	dumps   bool // it shows the model the whole answer of a call that failed
}

var agentRuns = []agentRun{
	{
		agent: "claude-code", pkg: agents[1],
		env:     []string{"ANTHROPIC_BASE_URL={model}", "ANTHROPIC_API_KEY=x", "ENABLE_TOOL_SEARCH=false", "DISABLE_AUTOUPDATER=1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"},
		command: []string{"claude", "-p", "go", "--allowedTools", "mcp__atoll"},
	},
	{
		agent: "codex", pkg: "@openai/codex@0.169.0",
		files:   map[string]string{".codex/config.toml": "model = \"mock\"\nmodel_provider = \"mock\"\n\n[model_providers.mock]\nname = \"mock\"\nbase_url = \"{model}/v1\"\nwire_api = \"responses\"\nenv_key = \"MOCK_KEY\"\n"},
		env:     []string{"MOCK_KEY=x"},
		command: []string{"codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "go"},
	},
	{
		agent: "opencode", pkg: "opencode-ai@1.18.33",
		files:   map[string]string{".config/opencode/opencode.json": `{"provider": {"mock": {"npm": "@ai-sdk/openai-compatible", "name": "Mock", "options": {"baseURL": "{model}/v1", "apiKey": "x"}, "models": {"mock": {"name": "Mock"}}}}, "model": "mock/mock", "autoupdate": false}`},
		env:     []string{"OPENCODE_DISABLE_MODELS_FETCH=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1"},
		command: []string{"opencode", "run", "go"},
	},
	{
		agent: "gemini", pkg: "@google/gemini-cli@0.61.0",
		files:   map[string]string{".gemini/settings.json": `{"security": {"folderTrust": {"enabled": false}, "auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": false}, "general": {"disableAutoUpdate": true}}`},
		env:     []string{"GEMINI_API_KEY=x", "GOOGLE_GEMINI_BASE_URL={model}"},
		command: []string{"gemini", "-p", "go", "--yolo", "-m", "gemini-2.5-flash"},
		dumps:   true,
	},
	{
		agent: "copilot", pkg: "@github/copilot@1.0.102",
		env:     []string{"COPILOT_OFFLINE=true", "COPILOT_PROVIDER_BASE_URL={model}/v1", "COPILOT_MODEL=mock", "COPILOT_ALLOW_ALL=true"},
		command: []string{"copilot", "-p", "go", "--allow-all-tools"},
	},
}

var followed = regexp.MustCompile(`"process":\s*\\?"(x-[0-9a-z]+)`)

// work is what every agent is led through: eight steps with an output of a
// megabyte, an unknown sandbox, a forgotten argument and a command of 80
// seconds.
func work(box string) []turn {
	fixed := func(tool string, args map[string]any) turn {
		return turn{tool, func(string) map[string]any { return args }}
	}
	return []turn{
		fixed("sandbox_create", obj{"name": box}),
		fixed("sandbox_write", obj{"id": box, "path": "a.txt", "content": "from the agent\n"}),
		fixed("sandbox_exec", obj{"id": box, "command": "cat a.txt; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 3"}),
		fixed("sandbox_exec", obj{"id": "no-such-sandbox", "command": "true"}),
		fixed("sandbox_exec", obj{"id": box}),
		fixed("sandbox_exec", obj{"id": box, "command": "sleep 80; echo slept well"}),
		{"sandbox_process", func(before string) map[string]any {
			process := "none"
			if m := followed.FindStringSubmatch(before); m != nil {
				process = m[1]
			}
			return obj{"id": box, "process": process, "wait_s": 45}
		}},
		fixed("sandbox_delete", obj{"id": box}),
	}
}

// check holds what the model saw against what it has to see.
func (r agentRun) check(t *testing.T, box string, seen []string) {
	t.Helper()
	want := []string{
		box,
		`a\.txt`,
		`(?m)^exit 3 · (?s:.*)from the agent(?s:.*)the end`,
		`no-such-sandbox(?s:.*)sandbox_list`,
		`command`,
		`(?m)^running · (?s:.*)sandbox_process`,
		`exit 0(?s:.*)slept well`,
		`(?i)deleted`,
	}
	if len(seen) != len(want) {
		t.Errorf("%s: the model saw %d results, want %d:\n%q", box, len(seen), len(want), seen)
		return
	}
	for i, w := range want {
		if !regexp.MustCompile(w).MatchString(seen[i]) {
			t.Errorf("%s: step %d: the model saw %.600q, want %s", box, i+1, seen[i], w)
		}
		// Nobody shortens what is short enough; agents add some words of their own.
		if len(seen[i]) > 9_600 {
			t.Errorf("%s: step %d: the model saw %d bytes", box, i+1, len(seen[i]))
		}
		if strings.Contains(seen[i], "_meta") && !r.dumps || strings.Contains(seen[i], productKey) {
			t.Errorf("%s: step %d: the model saw what is not for it: %.600q", box, i+1, seen[i])
		}
	}
}

// TestAgents drives real agents through the plan, over both transports at once,
// with real sandboxes. Their configuration is what atoll mcp init writes. It is
// for make acceptance: the agents are large, and the plan takes minutes.
func TestAgents(t *testing.T) {
	runs := agentRuns
	if !*all {
		return
	}
	node := filepath.Dir(published.Node(t))
	for _, r := range runs {
		published.NPM(t, r.pkg) // before the server idles
	}
	address := enginetest.FreeAddress(t)
	atoll := startProduct(t, address)
	server := "http://" + address
	awaitImage(t, server)
	var under sync.WaitGroup
	for _, r := range runs {
		for _, transport := range []string{"stdio", "http"} {
			npm := filepath.Join(published.NPM(t, r.pkg), "node_modules", ".bin")
			box := r.agent + "-" + transport
			m := newModel(t, work(box))
			home := t.TempDir()
			under.Go(func() {
				out, err := r.drive(t.Context(), home, transport, []string{"PATH=" + node + ":" + npm + ":" + os.Getenv("PATH")}, atoll, server, m.URL)
				seen := m.results()
				r.check(t, box, seen)
				if err != nil || t.Failed() {
					t.Logf("%s: %v\n%s\n%s", box, err, out, m.last)
				}
				if err != nil {
					t.Errorf("%s: %v", box, err)
				}
			})
		}
	}
	under.Wait()
}

// drive sets the agent up in a home of its own and runs it.
func (r agentRun) drive(ctx context.Context, home, transport string, env []string, atoll, server, model string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	fill := strings.NewReplacer("{model}", model)
	files := map[string]string{".config/atoll/credentials.json": fmt.Sprintf(`{"url":%q,"apiKey":%q}`, server, productKey)}
	for name, text := range r.files {
		files[name] = fill.Replace(text)
	}
	for name, text := range files {
		path := filepath.Join(home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			return "", err
		}
	}
	env = append(env, "HOME="+home, "TERM=dumb", "NO_COLOR=1")
	if transport == "http" {
		env = append(env, "ATOLL_API_KEY="+productKey)
	}
	for _, e := range r.env {
		env = append(env, fill.Replace(e))
	}
	var out bytes.Buffer
	run := func(name string, args ...string) error {
		name, err := lookPath(env, name)
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = home, env, &out, &out
		cmd.WaitDelay = 5 * time.Second
		return cmd.Run()
	}
	if err := run(atoll, "mcp", "init", r.agent, "--url", server, "--transport", transport); err != nil {
		return out.String(), fmt.Errorf("init: %w", err)
	}
	err := run(r.command[0], r.command[1:]...)
	return out.String(), err
}

// lookPath finds a program on the PATH of env.
func lookPath(env []string, name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range filepath.SplitList(strings.TrimPrefix(env[0], "PATH=")) {
		if path := filepath.Join(dir, name); exists(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// awaitImage waits until the server has its default image.
func awaitImage(t *testing.T, server string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server+"/api/snapshots/atoll-small", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+productKey)
		state := "no answer"
		if res, err := http.DefaultClient.Do(req); err == nil {
			var body bytes.Buffer
			_, _ = body.ReadFrom(res.Body)
			res.Body.Close()
			if state = body.String(); strings.Contains(state, `"state":"active"`) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the default image is not ready: %s", state)
		}
	}
}
