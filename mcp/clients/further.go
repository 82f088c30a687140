package clients

// codeStorage is where an extension of VS Code keeps its files.
func (e Env) codeStorage(extension string, parts ...string) string {
	return e.application(append([]string{"Code", "User", "globalStorage", extension}, parts...)...)
}

// further are agents with fewer users. Their files are known from their
// documentation and from other installers; the first ones were seen to be read.
func further() []Agent {
	return []Agent{
		{
			Name: "qwen", Title: "Qwen Code", key: "mcpServers",
			user:   func(e Env) string { return e.home(".qwen", "settings.json") },
			shared: func(e Env) string { return e.project(".qwen", "settings.json") },
			marks:  func(e Env) []string { return []string{e.home(".qwen")} },
			entry:  either(plainStdio, remote("httpUrl", "$%s", nil)),
		},
		{
			Name: "cline", Title: "Cline", key: "mcpServers",
			user: func(e Env) string {
				return e.codeStorage("saoudrizwan.claude-dev", "settings", "cline_mcp_settings.json")
			},
			marks:   func(e Env) []string { return []string{e.codeStorage("saoudrizwan.claude-dev")} },
			entry:   plainStdio,
			instead: keyInFile,
		},
		{
			Name: "cline-cli", Title: "Cline CLI", key: "mcpServers",
			user:    func(e Env) string { return e.home(".cline", "data", "settings", "cline_mcp_settings.json") },
			marks:   func(e Env) []string { return []string{e.home(".cline")} },
			entry:   plainStdio,
			instead: keyInFile,
		},
		{
			Name: "roo", Title: "Roo Code", key: "mcpServers",
			user: func(e Env) string {
				return e.codeStorage("rooveterinaryinc.roo-cline", "settings", "mcp_settings.json")
			},
			shared: func(e Env) string { return e.project(".roo", "mcp.json") },
			marks:  func(e Env) []string { return []string{e.codeStorage("rooveterinaryinc.roo-cline")} },
			entry:  either(plainStdio, remote("url", "${env:%s}", map[string]any{"type": "streamable-http"})),
		},
		{
			Name: "kilo", Title: "Kilo Code", key: "mcp",
			user:   func(e Env) string { return e.config("kilo", "kilo.json") },
			shared: func(e Env) string { return e.project("kilo.json") },
			marks:  func(e Env) []string { return []string{e.config("kilo")} },
			entry:  openCodeEntry,
		},
		{
			Name: "continue", Title: "Continue", format: yamlList, key: "mcpServers",
			user:    func(e Env) string { return e.home(".continue", "config.yaml") },
			marks:   func(e Env) []string { return []string{e.home(".continue")} },
			entry:   plainStdio,
			instead: keyInFile,
		},
		{
			Name: "goose", Title: "Goose", format: yamlMap, key: "extensions",
			user:    gooseFile,
			marks:   func(e Env) []string { return []string{gooseFile(e)} },
			entry:   gooseEntry,
			instead: keyInFile,
		},
		{
			Name: "lmstudio", Title: "LM Studio", key: "mcpServers",
			user:    func(e Env) string { return e.home(".lmstudio", "mcp.json") },
			marks:   func(e Env) []string { return []string{e.home(".lmstudio")} },
			entry:   plainStdio,
			instead: keyInFile,
		},
		{
			Name: "warp", Title: "Warp", key: "mcpServers",
			user:    func(e Env) string { return e.home(".warp", ".mcp.json") },
			shared:  func(e Env) string { return e.project(".warp", ".mcp.json") },
			marks:   func(e Env) []string { return []string{e.home(".warp")} },
			entry:   plainStdio,
			instead: keyInFile,
		},
		{
			Name: "kiro", Title: "Kiro", key: "mcpServers",
			user:   func(e Env) string { return e.home(".kiro", "settings", "mcp.json") },
			shared: func(e Env) string { return e.project(".kiro", "settings", "mcp.json") },
			marks:  func(e Env) []string { return []string{e.home(".kiro")} },
			entry:  either(plainStdio, remote("url", "${%s}", nil)),
		},
		{
			Name: "amazonq", Title: "Amazon Q CLI", key: "mcpServers",
			user:    func(e Env) string { return e.home(".aws", "amazonq", "mcp.json") },
			shared:  func(e Env) string { return e.project(".amazonq", "mcp.json") },
			marks:   func(e Env) []string { return []string{e.home(".aws", "amazonq")} },
			entry:   plainStdio,
			instead: keyInFile,
		},
		{
			Name: "junie", Title: "Junie", key: "mcpServers",
			user:    func(e Env) string { return e.home(".junie", "mcp", "mcp.json") },
			shared:  func(e Env) string { return e.project(".junie", "mcp", "mcp.json") },
			marks:   func(e Env) []string { return []string{e.home(".junie")} },
			entry:   plainStdio,
			instead: "it starts commands only; use stdio",
		},
	}
}

// keyInFile is why an agent gets no URL: it is not known to read the key from
// a variable.
const keyInFile = "it would need the key in the file; use stdio"

func gooseFile(e Env) string {
	if e.OS == "windows" {
		return e.application("Block", "goose", "config", "config.yaml")
	}
	return e.config("goose", "config.yaml")
}

func gooseEntry(s Server) (any, bool) {
	return object{
		{"name", s.Name}, {"type", "stdio"}, {"cmd", s.Command}, {"args", s.Args}, {"enabled", true}, {"timeout", 300},
	}, s.Transport == Stdio
}
