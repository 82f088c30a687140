package clients

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Scope says whose configuration is meant.
type Scope string

// The scopes.
const (
	User    Scope = "user"    // all of the user's projects
	Project Scope = "project" // the directory at hand, shared with its other users
)

// Transport is how the agent reaches the server.
type Transport string

// The transports.
const (
	Stdio Transport = "stdio" // the agent starts the server's command
	HTTP  Transport = "http"  // the agent calls a URL
)

// Env is the computer as far as paths go. Tests make one up.
type Env struct {
	OS         string // as runtime.GOOS: darwin, linux, windows
	Home       string
	ConfigHome string // $XDG_CONFIG_HOME; empty: Home/.config
	AppData    string // %APPDATA%; empty: Home/AppData/Roaming
	Dir        string // where the project is
	// Lookup returns environment variables that move an agent's files. nil: none.
	Lookup func(name string) string
}

func (e Env) variable(name string) string {
	if e.Lookup == nil {
		return ""
	}
	return e.Lookup(name)
}

// join makes a path in the style of e.OS, which need not be this system's.
func (e Env) join(parts ...string) string {
	if e.OS == "windows" {
		return strings.Join(parts, `\`)
	}
	return filepath.Join(parts...)
}

func (e Env) config(parts ...string) string {
	base := e.ConfigHome
	if base == "" {
		base = e.join(e.Home, ".config")
	}
	return e.join(append([]string{base}, parts...)...)
}

func (e Env) home(parts ...string) string { return e.join(append([]string{e.Home}, parts...)...) }

func (e Env) project(parts ...string) string { return e.join(append([]string{e.Dir}, parts...)...) }

// application is where programs keep settings: Application Support, .config or
// AppData.
func (e Env) application(parts ...string) string {
	switch e.OS {
	case "darwin":
		return e.home(append([]string{"Library", "Application Support"}, parts...)...)
	case "windows":
		base := e.AppData
		if base == "" {
			base = e.home("AppData", "Roaming")
		}
		return e.join(append([]string{base}, parts...)...)
	}
	return e.config(parts...)
}

// moved is the directory that a variable names, or the usual one.
func (e Env) moved(variable, usual string, parts ...string) string {
	base := e.variable(variable)
	if base == "" {
		base = usual
	}
	return e.join(append([]string{base}, parts...)...)
}

// Server is the entry to write.
type Server struct {
	Name      string // the key under which agents list it
	Transport Transport
	Command   string   // stdio: absolute path of the program
	Args      []string // stdio
	URL       string   // HTTP
	KeyEnv    string   // HTTP: the variable that holds the API key; never the key
}

// format is the syntax of a file.
type format int

const (
	jsonc format = iota // JSON, with comments and trailing commas where they are
	toml
	yamlMap  // the section is a mapping by name
	yamlList // the section is a list whose items carry their names
)

// Agent is one program that can use MCP servers.
type Agent struct {
	Name   string // as it is typed
	Title  string
	format format
	key    string // the member or table that holds the servers
	user   func(Env) string
	shared func(Env) string // project scope; nil: none
	marks  func(Env) []string
	// entry is the value for a server; ok is false for a transport that its
	// file cannot express.
	entry func(Server) (v any, ok bool)
	// instead tells what to do where entry is not ok.
	instead string
}

// Agents lists all known agents in the order in which they are shown.
func Agents() []Agent { return append(common(), further()...) }

// common are the agents that most people use.
func common() []Agent {
	return []Agent{
		{
			Name: "claude", Title: "Claude Desktop", key: "mcpServers",
			user:    func(e Env) string { return e.application("Claude", "claude_desktop_config.json") },
			marks:   func(e Env) []string { return []string{e.application("Claude")} },
			entry:   plainStdio,
			instead: "add the URL in its settings under Connectors, or use stdio",
		},
		{
			Name: "claude-code", Title: "Claude Code", key: "mcpServers",
			user:   claudeCodeFile,
			shared: func(e Env) string { return e.project(".mcp.json") },
			marks:  func(e Env) []string { return []string{claudeCodeFile(e), e.home(".claude")} },
			entry:  typed("stdio", "${%s}"),
		},
		{
			Name: "cursor", Title: "Cursor", key: "mcpServers",
			user:   func(e Env) string { return e.home(".cursor", "mcp.json") },
			shared: func(e Env) string { return e.project(".cursor", "mcp.json") },
			marks:  func(e Env) []string { return []string{e.home(".cursor")} },
			entry:  either(plainStdio, remote("url", "${env:%s}", nil)),
		},
		{
			Name: "windsurf", Title: "Windsurf", key: "mcpServers",
			user:  func(e Env) string { return e.home(".codeium", "windsurf", "mcp_config.json") },
			marks: func(e Env) []string { return []string{e.home(".codeium", "windsurf")} },
			entry: either(plainStdio, remote("serverUrl", "${env:%s}", nil)),
		},
		{
			Name: "devin", Title: "Devin Desktop (formerly Windsurf)", key: "mcpServers",
			user:   func(e Env) string { return e.application2("devin", "mcp_config.json") },
			shared: func(e Env) string { return e.project(".devin", "mcp_config.json") },
			marks:  func(e Env) []string { return []string{e.application2("devin")} },
			entry:  either(plainStdio, remote("url", "${env:%s}", map[string]any{"transport": "http"})),
		},
		{
			Name: "vscode", Title: "VS Code", key: "servers",
			user:   func(e Env) string { return e.application("Code", "User", "mcp.json") },
			shared: func(e Env) string { return e.project(".vscode", "mcp.json") },
			marks:  func(e Env) []string { return []string{e.application("Code", "User")} },
			entry:  typed("stdio", "${env:%s}"),
		},
		{
			Name: "codex", Title: "Codex", format: toml, key: "mcp_servers",
			user:   func(e Env) string { return e.moved("CODEX_HOME", e.home(".codex"), "config.toml") },
			shared: func(e Env) string { return e.project(".codex", "config.toml") },
			marks:  func(e Env) []string { return []string{e.moved("CODEX_HOME", e.home(".codex"))} },
			entry:  codexEntry,
		},
		{
			Name: "gemini", Title: "Gemini CLI", key: "mcpServers",
			user:   func(e Env) string { return e.home(".gemini", "settings.json") },
			shared: func(e Env) string { return e.project(".gemini", "settings.json") },
			marks:  func(e Env) []string { return []string{e.home(".gemini")} },
			entry:  either(plainStdio, remote("url", "$%s", map[string]any{"type": "http"})),
		},
		{
			Name: "opencode", Title: "OpenCode", key: "mcp",
			user:   func(e Env) string { return e.config("opencode", "opencode.json") },
			shared: func(e Env) string { return e.project("opencode.json") },
			marks:  func(e Env) []string { return []string{e.config("opencode")} },
			entry:  openCodeEntry,
		},
		{
			Name: "copilot", Title: "Copilot CLI", key: "mcpServers",
			user:   func(e Env) string { return e.moved("COPILOT_HOME", e.home(".copilot"), "mcp-config.json") },
			shared: func(e Env) string { return e.project(".github", "mcp.json") },
			marks:  func(e Env) []string { return []string{e.moved("COPILOT_HOME", e.home(".copilot"))} },
			entry:  copilotEntry,
		},
		{
			Name: "zed", Title: "Zed", key: "context_servers",
			user:   func(e Env) string { return e.zed("settings.json") },
			shared: func(e Env) string { return e.project(".zed", "settings.json") },
			marks:  func(e Env) []string { return []string{e.zed()} },
			entry:  zedEntry, instead: "it would need the key in the file; use stdio",
		},
	}
}

// application2 is .config also on macOS, and AppData on Windows.
func (e Env) application2(parts ...string) string {
	if e.OS == "windows" {
		return e.application(parts...)
	}
	return e.config(parts...)
}

func (e Env) zed(parts ...string) string {
	if e.OS == "windows" {
		return e.application(append([]string{"Zed"}, parts...)...)
	}
	return e.config(append([]string{"zed"}, parts...)...)
}

func claudeCodeFile(e Env) string { return e.moved("CLAUDE_CONFIG_DIR", e.Home, ".claude.json") }

// Find returns the agent of that name.
func Find(name string) (Agent, error) {
	all := Agents()
	i := slices.IndexFunc(all, func(a Agent) bool { return a.Name == name })
	if i >= 0 {
		return all[i], nil
	}
	var names []string
	for _, a := range all {
		names = append(names, a.Name)
	}
	return Agent{}, fmt.Errorf("unknown agent %q; known: %s", name, strings.Join(names, ", "))
}

// Path returns the agent's configuration file.
func (a Agent) Path(e Env, s Scope) (string, error) {
	if s == Project {
		if a.shared == nil {
			return "", fmt.Errorf("%s has no configuration per project; use --scope user", a.Title)
		}
		return a.shared(e), nil
	}
	return a.user(e), nil
}

// Value returns the entry for s as the agent's file holds it.
func (a Agent) Value(s Server) (any, error) {
	v, ok := a.entry(s)
	if !ok {
		return nil, fmt.Errorf("%s takes no %s servers from its file; %s", a.Title, s.Transport, a.instead)
	}
	return v, nil
}

// Installed tells whether the agent seems to be on this computer: something
// that only it makes is there.
func (a Agent) Installed(e Env, exists func(path string) bool) bool {
	return slices.ContainsFunc(a.marks(e), exists)
}

// pair keeps the order in which members are written.
type pair struct {
	Key   string
	Value any
}

// object is a JSON object or TOML table with its members in order.
type object []pair

func plainStdio(s Server) (any, bool) {
	return object{{"command", s.Command}, {"args", s.Args}}, s.Transport == Stdio
}

// either takes the entry of the first that knows the transport.
func either(stdio, http func(Server) (any, bool)) func(Server) (any, bool) {
	return func(s Server) (any, bool) {
		if s.Transport == HTTP {
			return http(s)
		}
		return stdio(s)
	}
}

// remote makes entries with a URL and a header that names a variable in the
// agent's own syntax, so that no key is in the file.
func remote(urlKey, variable string, more map[string]any) func(Server) (any, bool) {
	return func(s Server) (any, bool) {
		var o object
		for k, v := range more {
			o = append(o, pair{k, v})
		}
		o = append(o, pair{urlKey, s.URL})
		return append(o, headers(s, variable)...), true
	}
}

func headers(s Server, variable string) object {
	return object{{"headers", object{{"Authorization", "Bearer " + fmt.Sprintf(variable, s.KeyEnv)}}}}
}

func typed(stdio, variable string) func(Server) (any, bool) {
	return func(s Server) (any, bool) {
		if s.Transport == HTTP {
			return append(object{{"type", "http"}, {"url", s.URL}}, headers(s, variable)...), true
		}
		return object{{"type", stdio}, {"command", s.Command}, {"args", s.Args}}, true
	}
}

func codexEntry(s Server) (any, bool) {
	if s.Transport == HTTP {
		return object{{"url", s.URL}, {"bearer_token_env_var", s.KeyEnv}}, true
	}
	// Codex hands down no environment and gives a tool one minute.
	return object{{"command", s.Command}, {"args", s.Args}, {"tool_timeout_sec", 300}}, true
}

func openCodeEntry(s Server) (any, bool) {
	if s.Transport == HTTP {
		return append(object{{"type", "remote"}, {"url", s.URL}}, append(headers(s, "{env:%s}"), pair{"enabled", true})...), true
	}
	return object{{"type", "local"}, {"command", append([]string{s.Command}, s.Args...)}, {"enabled", true}}, true
}

func copilotEntry(s Server) (any, bool) {
	tools := pair{"tools", []string{"*"}}
	if s.Transport == HTTP {
		return append(append(object{{"type", "http"}, {"url", s.URL}}, headers(s, "${%s}")...), tools), true
	}
	return object{{"type", "local"}, {"command", s.Command}, {"args", s.Args}, tools}, true
}

func zedEntry(s Server) (any, bool) {
	if s.Transport == HTTP {
		// Zed expands no variables, so the key would have to be in the file.
		return nil, false
	}
	return object{{"source", "custom"}, {"command", s.Command}, {"args", s.Args}}, true
}
