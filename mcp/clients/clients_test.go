package clients

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gotoml "github.com/pelletier/go-toml/v2"
	"github.com/tailscale/hujson"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write golden files")

var (
	local = Server{Name: "atoll", Transport: Stdio, Command: "/usr/local/bin/atoll", Args: []string{"mcp"}}
	web   = Server{Name: "atoll", Transport: HTTP, URL: "http://127.0.0.1:7777/mcp", KeyEnv: "ATOLL_API_KEY"}
)

func envs() map[string]Env {
	return map[string]Env{
		"darwin":  {OS: "darwin", Home: "/Users/ann", Dir: "/src/app"},
		"linux":   {OS: "linux", Home: "/home/ann", Dir: "/src/app"},
		"windows": {OS: "windows", Home: `C:\Users\ann`, AppData: `C:\Users\ann\AppData\Roaming`, Dir: `C:\src\app`},
	}
}

// TestGolden shows for every agent and system the files and what is put there.
func TestGolden(t *testing.T) {
	for _, a := range Agents() {
		var b strings.Builder
		for _, os := range []string{"darwin", "linux", "windows"} {
			for _, scope := range []Scope{User, Project} {
				path, err := a.Path(envs()[os], scope)
				if err != nil {
					path = "none"
				}
				fmt.Fprintf(&b, "%s %s: %s\n", os, scope, path)
			}
		}
		for _, s := range []Server{local, web} {
			text, err := a.Print(s)
			if err != nil {
				text = "error: " + err.Error() + "\n"
			}
			fmt.Fprintf(&b, "\n-- %s --\n%s", s.Transport, text)
		}
		file := filepath.Join("testdata", a.Name+".golden")
		if *update {
			if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v; run with -update", err)
		}
		if d := cmp.Diff(string(want), b.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", a.Name, d)
		}
	}
}

// TestPage keeps docs/mcp-clients.md what the table of agents says.
func TestPage(t *testing.T) {
	const path = "../../docs/mcp-clients.md"
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, len(Agents()))
	for _, a := range Agents() {
		var files []string
		for _, os := range []string{"linux", "darwin", "windows"} {
			f, err := a.Path(envs()[os], User)
			if err != nil {
				t.Fatal(err)
			}
			if os != "windows" {
				f = strings.ReplaceAll(f, envs()[os].Home, "~")
			}
			f = "`" + strings.NewReplacer(envs()[os].AppData+`\`, `%APPDATA%\`, envs()[os].Home+`\`, `%USERPROFILE%\`).Replace(f) + "`"
			if len(files) == 0 || files[len(files)-1] != f {
				files = append(files, f)
			}
		}
		project := "–"
		if f, err := a.Path(envs()["linux"], Project); err == nil {
			project = "`" + strings.TrimPrefix(f, envs()["linux"].Dir+"/") + "`"
		}
		over := "stdio"
		if _, err := a.Value(web); err == nil {
			over += ", http"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", a.Name, a.Title, strings.Join(files, "<br>"), project, over)
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("run with -update (-want +got):\n%s", d)
	}
}

const pageHead = `# Agents and their files

This page is generated from the table in ` + "`mcp/clients`" + `: change the table, then run ` + "`go test ./mcp/clients -update`" + `.

` + "```sh" + `
atoll mcp init                          # which agents are installed here
atoll mcp init claude-code cursor       # tell these
atoll mcp init --all --dry-run          # show what would change for all that are installed
atoll mcp init codex --transport http   # let it call the server itself
atoll mcp init cursor --scope project   # for this directory and everybody who shares it
atoll mcp init cursor --check           # connect as the agent will
atoll mcp init cursor --remove
` + "```" + `

Only the entry of this server changes. All other bytes stay, comments, order and line breaks included, and removing the entry gives back the bytes from before. The file is replaced in one step under a lock, with a backup beside it. One that cannot be read, or is written so that it cannot be changed safely, is refused with the line's number and left as it is. Links are followed; mode and owner are kept.

No key is written. Over stdio the agent starts ` + "`atoll mcp`" + `, which finds the key in ` + "`~/.config/atoll/credentials.json`" + ` or in the server's home; over HTTP the file names the variable ` + "`ATOLL_API_KEY`" + ` in the agent's own syntax. Agents that are not known to read a variable there are offered stdio only.

Claude Code, Gemini CLI, OpenCode and Qwen Code are asked in the tests whether they are connected after ` + "`init`" + `; Codex and Copilot CLI, which do not connect when they list, whether they have the entry. The files of the others are known from documentation and from other installers.

` + "`make acceptance`" + ` also drives Claude Code, Codex, OpenCode, Gemini CLI and Copilot CLI, unmodified and set up by ` + "`init`" + `, over both transports with real sandboxes. A scripted model leads them through eight steps, among them an output of a megabyte, an unknown sandbox, a forgotten argument and a command of 80 seconds, and what each one showed its model is held against what it has to see.

%d agents:

| name | agent | user's file (Linux, macOS, Windows) | project's file | over |
| --- | --- | --- | --- | --- |
`

func TestVariablesMoveFiles(t *testing.T) {
	e := envs()["linux"]
	e.ConfigHome = "/cfg"
	e.Lookup = func(name string) string {
		return map[string]string{"CODEX_HOME": "/cx", "CLAUDE_CONFIG_DIR": "/cc", "COPILOT_HOME": "/cp"}[name]
	}
	for name, want := range map[string]string{
		"codex": "/cx/config.toml", "claude-code": "/cc/.claude.json", "copilot": "/cp/mcp-config.json", "vscode": "/cfg/Code/User/mcp.json",
	} {
		a, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := a.Path(e, User); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func agent(t testing.TB, name string) Agent {
	t.Helper()
	a, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// jsonFiles are contents that people have.
var jsonFiles = []string{
	`{}`,
	"{}\n",
	"{\n}\n",
	"{ }",
	"{\n  // nothing yet\n}\n",
	`{"mcpServers":{}}`,
	"{\n  \"mcpServers\": {}\n}\n",
	"{\n  \"mcpServers\": {\n  }\n}\n",
	"{\n  \"mcpServers\": {\n    // none\n  }\n}\n",
	`{"theme":"dark"}`,
	`{"theme":"dark",}`,
	`{ "theme": "dark" }`,
	"{\n  \"theme\": \"dark\"\n}\n",
	"{\n  \"theme\": \"dark\",\n}\n",
	"{\n  // my theme\n  \"theme\": \"dark\", // keep\n  \"mcpServers\": {\n    /* other */\n    \"other\": { \"command\": \"x\" },\n  },\n}\n",
	"{\n\t\"mcpServers\": {\n\t\t\"other\": {\n\t\t\t\"command\": \"x\"\n\t\t}\n\t},\n\t\"z\": 1\n}",
	"{\r\n  \"mcpServers\": {\r\n    \"other\": {\"command\": \"x\"} // last\r\n  }\r\n}\r\n",
	"{\n  \"mcpServers\": {\n    \"other\": {\"command\": \"x\"} /* , */\n    // and more, later\n  }\n}\n",
	"{\"mcpServers\": {\"other\": {\"command\": \"x\"}}, \"a\": [1, 2,\n3]}\n",
	"\xef\xbb\xbf{\n  \"a\": 1\n}\n",
	"// a file\n{\n    \"a\": {\"b\": 1}\n}\n// end\n",
	"{\"a\\u0062\": 1, \"mcpServers\" /*c*/ : /*d*/ {\n\"x\": {}}}",
	"{ \n  \"a\": 1\n}",
}

var tomlFiles = []string{
	"",
	"# my codex config\nmodel = \"gpt-5\" # keep me\n",
	"model = \"gpt-5\"",
	"model = \"gpt-5\"\n\n\n",
	"[mcp_servers.other]\ncommand = \"x\"\nargs = [\n  \"a\", # one\n  \"b\",\n]\n\n# profile comment\n[profiles.a]\nmodel = \"b\"\n",
	"[mcp_servers]\n[mcp_servers.other]\ncommand = '''\n# not a comment\n'''",
	"a = 1\r\n[mcp_servers.other]\r\ncommand = \"x\"\r\n",
	"mcp_servers.other.command = \"x\"\n",
	"[[list]]\na = 1\n# end",
}

// yamlFiles are contents with a mapping under extensions.
var yamlFiles = []string{
	"",
	"# mine\nmodel: x # keep\n",
	"model: x",
	"model: x\n\n\n",
	"extensions:\n",
	"extensions:",
	"a: 1\nextensions:\nb: 2\n",
	"extensions: {}\nb: 2\n",
	"b: 2\nextensions: {}",
	"extensions:\n  other:\n    cmd: x # one\n    args: [a, b]\n\n# next\nb: 2\n",
	"extensions:\n    other:\n        cmd: |\n          line\n          another\nb:\n- 1\n- 2\n",
	"extensions:\r\n  other:\r\n    cmd: x\r\nb: 2\r\n",
	"---\na: 1\nextensions:\n  # first\n  other: {cmd: x}\n  # last\n",
	"\xef\xbb\xbfa: 1\n",
	"extensions:\n  other:\n    cmd: x",
}

func asList(s string) string {
	s = strings.ReplaceAll(s, "extensions: {}", "mcpServers: []")
	s = strings.ReplaceAll(s, "    other:\n        cmd: |\n", "    - name: other\n      cmd: |\n")
	s = strings.ReplaceAll(s, "  other: {cmd: x}", "  - {name: other, cmd: x}")
	s = strings.ReplaceAll(s, "  other:", "  - name: other")
	return strings.ReplaceAll(s, "extensions", "mcpServers")
}

func files(a Agent) []string {
	switch a.format {
	case toml:
		return tomlFiles
	case yamlMap:
		return yamlFiles
	case yamlList:
		var all []string
		for _, f := range yamlFiles {
			all = append(all, asList(f))
		}
		return append(all, "mcpServers:\n- name: other\n  command: x\nb: 1\n")
	}
	if a.key == "mcpServers" {
		return jsonFiles
	}
	var all []string
	for _, f := range jsonFiles {
		all = append(all, strings.ReplaceAll(f, "mcpServers", a.key))
	}
	return all
}

func TestRemoveGivesBackTheBytes(t *testing.T) {
	for _, a := range Agents() {
		for _, src := range files(a) {
			for _, s := range []Server{local, web} {
				if _, err := a.Value(s); err == nil {
					checkRoundTrip(t, a, src, s)
				}
			}
		}
	}
}

// checkRoundTrip: the server is in after adding, nothing else has changed,
// adding again does nothing, another transport replaces it, and removing it
// gives back the bytes.
func checkRoundTrip(t *testing.T, a Agent, src string, s Server) {
	t.Helper()
	added, err := a.Add([]byte(src), s)
	if err != nil {
		t.Errorf("%s: add to %q: %v", a.Name, src, err)
		return
	}
	want := values(t, a, []byte(src))
	servers, _ := want[a.key].(map[string]any)
	if servers == nil {
		servers = map[string]any{}
		want[a.key] = servers
	}
	entry := values(t, a, mustPrint(t, a, s))[a.key].(map[string]any)[s.Name]
	servers[s.Name] = entry
	if d := cmp.Diff(want, values(t, a, added)); d != "" {
		t.Errorf("%s: add to %q made %q (-want +got):\n%s", a.Name, src, added, d)
	}
	again, err := a.Add(added, s)
	if err != nil || string(again) != string(added) {
		t.Errorf("%s: adding twice to %q made %q, then %q (%v)", a.Name, src, added, again, err)
	}
	removed, err := a.Remove(added, s.Name)
	if err != nil || string(removed) != src {
		t.Errorf("%s: %q became %q, then %q (%v)", a.Name, src, added, removed, err)
	}
	other := s
	other.Args, other.URL = []string{"mcp", "--url", "http://h"}, "http://h/mcp"
	changed, err := a.Add(added, other)
	if err != nil {
		t.Errorf("%s: change %q: %v", a.Name, added, err)
		return
	}
	if back, err := a.Remove(changed, s.Name); err != nil || string(back) != src {
		t.Errorf("%s: %q changed to %q, then %q (%v)", a.Name, src, changed, back, err)
	}
}

func mustPrint(t *testing.T, a Agent, s Server) []byte {
	t.Helper()
	text, err := a.Print(s)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(text)
}

func values(t *testing.T, a Agent, src []byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	_, src = byteOrderMark(src)
	if len(strings.TrimSpace(string(src))) == 0 {
		return out
	}
	var err error
	switch a.format {
	case toml:
		err = gotoml.Unmarshal(src, &out)
	case yamlMap, yamlList:
		err = yaml.Unmarshal(src, &out)
		if list, ok := out[a.key].([]any); ok { // as a mapping, which is easier to change
			byName := map[string]any{}
			for _, item := range list {
				byName[item.(map[string]any)[nameKey].(string)] = item
			}
			out[a.key] = byName
		}
	default:
		var std []byte
		if std, err = hujson.Standardize(append([]byte(nil), src...)); err == nil {
			err = json.Unmarshal(std, &out)
		}
	}
	if err != nil {
		t.Fatalf("%q: %v", src, err)
	}
	return out
}

func TestRemoveOneOfSeveral(t *testing.T) {
	for _, c := range []struct{ agent, src, want string }{
		{"cursor", `{"mcpServers": {"atoll": {"command": "a"}, "b": {}}}`, `{"mcpServers": { "b": {}}}`},
		{"cursor", "{\n  \"mcpServers\": {\n    // ours\n    \"atoll\": {\"command\": \"a\"},\n    // theirs\n    \"b\": {}\n  }\n}", "{\n  \"mcpServers\": {\n    // ours\n    // theirs\n    \"b\": {}\n  }\n}"},
		{"cursor", "{\n  \"mcpServers\": {\n    \"atoll\": {} // c\n  }\n}", "{\n  \"mcpServers\": { // c\n  }\n}"},
		{"cursor", "{\n  \"mcpServers\": {\n    \"atoll\": {}\n  }\n}", ""},
		{"cursor", "{\n  \"a\": 1,\n  \"mcpServers\": {\n    \"atoll\": {}\n  }\n}", "{\n  \"a\": 1\n}"},
		{"codex", "a = 1\n\n[mcp_servers.atoll]\ncommand = \"x\"\n[mcp_servers.atoll.env]\nA = \"1\"\n\n# next\n[profiles.a]\nmodel = \"b\"\n", "a = 1\n\n# next\n[profiles.a]\nmodel = \"b\"\n"},
		{"codex", "[mcp_servers.atoll]\nargs = [\n \"a\",\n]\n", ""},
		{"codex", "b = 1\n", "b = 1\n"},
		{"goose", "extensions:\n  atoll:\n    cmd: x\n    # inside\n  other:\n    cmd: y\n", "extensions:\n    # inside\n  other:\n    cmd: y\n"},
		{"goose", "extensions:\n  other: {}\n  atoll:\n    cmd: x\n", "extensions:\n  other: {}\n"},
		{"continue", "mcpServers:\n- name: atoll\n  command: x\n- name: b\n", "mcpServers:\n- name: b\n"},
		{"cursor", "", ""},
		{"cursor", `{"mcpServers": {"b": {}}}`, `{"mcpServers": {"b": {}}}`},
	} {
		got, err := agent(t, c.agent).Remove([]byte(c.src), "atoll")
		if err != nil || string(got) != c.want {
			t.Errorf("remove from %q: %q (%v), want %q", c.src, got, err, c.want)
		}
	}
}

func TestBrokenFilesAreRefused(t *testing.T) {
	for _, c := range []struct{ agent, src, want string }{
		{"cursor", "{\n  \"a\": 1\n  \"b\": 2\n}", "line 3"},
		{"cursor", "[1]", "line 1: it is not a JSON object"},
		{"cursor", "{\n\"mcpServers\": []}", `line 2: "mcpServers" is not an object`},
		{"cursor", "{\"mcpServers\": {}, \"mcpServers\": {}}", "occurs twice"},
		{"codex", "a = 1\nb = \n", "line 2"},
		{"codex", "mcp_servers = 5\n", "not a table"},
		{"codex", "mcp_servers = { atoll = { command = \"x\" } }\n", "edit it by hand"},
		{"codex", "mcp_servers = { other = { command = \"x\" } }\n", "edit it by hand"},
		{"goose", "a: 1\nb: [\n", "line 2"},
		{"goose", "- 1\n", "line 1: it is not a YAML mapping"},
		{"goose", "extensions: 5\n", "neither"},
		{"goose", "extensions: [a]\n", "not a mapping"},
		{"goose", "extensions: {other: {cmd: x}}\n", "edit it by hand"},
		{"goose", "a: &x {b: 1}\nextensions: *x\n", "edit it by hand"},
		{"goose", "extensions:\n  other:\n    cmd: |\n      a\n      # not a comment\nb: 1\n---\nc: 1\n", "more than one YAML document"},
		{"continue", "mcpServers: {a: 1}\n", "not a list"},
	} {
		for _, f := range []func() ([]byte, error){
			func() ([]byte, error) { return agent(t, c.agent).Add([]byte(c.src), local) },
		} {
			if _, err := f(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %q: %v, want an error with %q", c.agent, c.src, err, c.want)
			}
		}
	}
}

func TestNoSecretIsWritten(t *testing.T) {
	for _, a := range Agents() {
		for _, s := range []Server{local, web} {
			text, err := a.Print(s)
			if err != nil {
				continue
			}
			if s.Transport == HTTP && !strings.Contains(text, "ATOLL_API_KEY") {
				t.Errorf("%s over HTTP names no variable for the key:\n%s", a.Name, text)
			}
		}
	}
}

func home(t *testing.T) Env {
	return Env{OS: "linux", Home: t.TempDir(), Dir: t.TempDir()}
}

func plan(t *testing.T, name string, e Env, remove bool) Change {
	t.Helper()
	c, err := Plan(agent(t, name), e, User, local, remove)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestApply(t *testing.T) {
	e := home(t)
	now := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	c := plan(t, "cursor", e, false)
	if backup, err := c.Apply(now); err != nil || backup != "" {
		t.Fatalf("new file: %q %v", backup, err)
	}
	if st, err := os.Stat(c.Path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("new file: %v %v, want mode 600", st, err)
	}
	if c := plan(t, "cursor", e, false); !c.Nothing() || c.Diff() != "" {
		t.Errorf("a second run would change:\n%s", c.Diff())
	}
	before := []byte("{\n  \"mcpServers\": {\n    \"b\": {}\n  }\n}\n")
	if err := os.WriteFile(c.Path, before, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	c = plan(t, "cursor", e, false)
	backup, err := c.Apply(now)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(backup); string(got) != string(before) || !strings.HasSuffix(backup, ".bak-20270102-030405") {
		t.Errorf("backup %s holds %q", backup, got)
	}
	if st, _ := os.Stat(c.Path); st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 640", st.Mode().Perm())
	}
	want := "--- " + c.Path + "\n+++ " + c.Path + "\n@@ -1,5 +1,9 @@\n {\n   \"mcpServers\": {\n-    \"b\": {}\n+    \"b\": {},\n+    \"atoll\": {\n+      \"command\": \"/usr/local/bin/atoll\",\n+      \"args\": [\"mcp\"]\n+    }\n   }\n }\n"
	if d := cmp.Diff(want, c.Diff()); d != "" {
		t.Errorf("diff (-want +got):\n%s", d)
	}
	if _, err := plan(t, "cursor", e, true).Apply(now); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(c.Path); string(got) != string(before) {
		t.Errorf("after removal: %q", got)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(c.Path), ".atoll-*"))
	locks, _ := filepath.Glob(c.Path + ".atoll-lock")
	if len(left)+len(locks) > 0 {
		t.Errorf("left behind: %v %v", left, locks)
	}
}

func TestApplyFollowsLinks(t *testing.T) {
	e := home(t)
	c := plan(t, "cursor", e, false)
	real := filepath.Join(t.TempDir(), "dotfiles.json")
	if err := os.MkdirAll(filepath.Dir(c.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, c.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(time.Now()); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(c.Path); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v %v", st, err)
	}
	if got, err := os.ReadFile(real); err != nil || !strings.Contains(string(got), "atoll") {
		t.Errorf("the target holds %q (%v)", got, err)
	}
	if _, err := plan(t, "cursor", e, true).Apply(time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(real); err != nil || string(got) != "{}\n" {
		t.Errorf("after removal the target holds %q (%v)", got, err)
	}
}

func TestApplyRemovesTheFileItMade(t *testing.T) {
	e := home(t)
	for _, name := range []string{"cursor", "codex"} {
		if _, err := plan(t, name, e, false).Apply(time.Now()); err != nil {
			t.Fatal(err)
		}
		c := plan(t, name, e, true)
		if _, err := c.Apply(time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(c.Path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", c.Path, err)
		}
	}
}

func TestApplyRefusesAFileThatChanged(t *testing.T) {
	e := home(t)
	c := plan(t, "cursor", e, false)
	if err := os.MkdirAll(filepath.Dir(c.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Path, []byte(`{"a":1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(time.Now()); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestParallelRunsLoseNothing(t *testing.T) {
	e := home(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			s := local
			s.Name = fmt.Sprintf("s%d", i)
			for {
				c, err := Plan(agent(t, "cursor"), e, User, s, false)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err = c.Apply(time.Now()); err == nil {
					return
				} else if !strings.Contains(err.Error(), "meanwhile") {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	content, err := os.ReadFile(filepath.Join(e.Home, ".cursor", "mcp.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(values(t, agent(t, "cursor"), content)["mcpServers"].(map[string]any)); n != 6 {
		t.Errorf("%d servers, want 6:\n%s", n, content)
	}
}

func TestInstalled(t *testing.T) {
	e := envs()["linux"]
	exists := func(path string) bool { return path == "/home/ann/.cursor" }
	var found []string
	for _, a := range Agents() {
		if a.Installed(e, exists) {
			found = append(found, a.Name)
		}
	}
	if d := cmp.Diff([]string{"cursor"}, found); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzJSON(f *testing.F) {
	for _, src := range jsonFiles {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		a := agent(t, "cursor")
		if len(strings.TrimSpace(strings.TrimPrefix(src, "\xef\xbb\xbf"))) == 0 || !fresh(a, src) {
			return
		}
		fuzzRoundTrip(t, a, src)
	})
}

func FuzzTOML(f *testing.F) {
	for _, src := range tomlFiles {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		a := agent(t, "codex")
		if len(strings.TrimSpace(strings.TrimPrefix(src, "\xef\xbb\xbf"))) == 0 || strings.Contains(src, "atoll") {
			return
		}
		fuzzRoundTrip(t, a, src)
	})
}

func FuzzYAML(f *testing.F) {
	for _, src := range yamlFiles {
		f.Add(src)
		f.Add(asList(src))
	}
	f.Fuzz(func(t *testing.T, src string) {
		if len(strings.TrimSpace(strings.TrimPrefix(src, "\xef\xbb\xbf"))) == 0 || strings.Contains(src, "atoll") {
			return
		}
		fuzzRoundTrip(t, agent(t, "goose"), src)
		fuzzRoundTrip(t, agent(t, "continue"), src)
	})
}

// fresh tells whether the server is not in the file yet.
func fresh(a Agent, src string) bool {
	removed, err := a.Remove([]byte(src), "atoll")
	return err == nil && string(removed) == src
}

func fuzzRoundTrip(t *testing.T, a Agent, src string) {
	added, err := a.Add([]byte(src), local)
	if err != nil {
		return // broken, and refused
	}
	again, err := a.Add(added, local)
	if err != nil || string(again) != string(added) {
		t.Errorf("adding twice to %q made %q, then %q (%v)", src, added, again, err)
	}
	if removed, err := a.Remove(added, "atoll"); err != nil || string(removed) != src {
		t.Errorf("%q became %q, then %q (%v)", src, added, removed, err)
	}
}
