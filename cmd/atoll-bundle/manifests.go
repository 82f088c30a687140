package main

// object keeps the literals below readable.
type object = map[string]any

const readme = `# Atoll

Isolated Linux computers for agents, through the MCP server of the ` + "`atoll`" + ` command, and skills to work with them.

The command has to be installed, and a server to run: ` + home + `. Its key is read from ` + "`~/.config/atoll/credentials.json`" + ` or ` + "`ATOLL_API_KEY`" + `.

    /plugin install atoll --marketplace atoll-sh/atoll
`

const context = `Run code, builds and tests in Atoll sandboxes, not on this computer: create one with sandbox_create, keep its id, work in it with sandbox_exec, and delete it at the end.
`

// manifests are the JSON files of the stores. Nothing in them is a key.
func (b *bundle) manifests() map[string]any {
	run := object{"command": name, "args": []string{"mcp"}}
	author := object{"name": title, "url": home}
	return map[string]any{
		".claude-plugin/marketplace.json": object{
			"name": name, "owner": author, "metadata": object{"description": description, "version": b.version},
			"plugins": []object{{"name": name, "source": "./claude", "description": description, "version": b.version, "license": "Apache-2.0"}},
		},
		"claude/.claude-plugin/plugin.json": object{
			"name": name, "version": b.version, "description": description, "author": author,
			"homepage": home, "repository": home, "license": "Apache-2.0", "keywords": []string{"sandbox", "mcp", "containers", "code-execution"},
			"icon": "./.claude-plugin/icon.png", "network": object{"hosts": []string{"127.0.0.1"}},
		},
		"claude/.mcp.json": object{"mcpServers": object{name: run}},
		"gemini/gemini-extension.json": object{
			"name": name, "version": b.version, "description": description, "contextFileName": "GEMINI.md",
			"mcpServers": object{name: run},
		},
		"mcpb/manifest.json": b.mcpb(),
	}
}

// mcpb is the manifest of the bundle for desktop applications. The key is asked
// for and kept by the application.
func (b *bundle) mcpb() object {
	return object{
		"manifest_version": "0.3", "name": name, "display_name": title, "version": b.version, "description": description,
		"author": object{"name": title, "url": home}, "homepage": home, "license": "Apache-2.0",
		"repository": object{"type": "git", "url": home + ".git"},
		"icon":       "icon.png",
		"server": object{
			"type": "binary", "entry_point": "server/atoll",
			"mcp_config": object{
				"command": "${__dirname}/server/atoll", "args": []string{"mcp", "--url", "${user_config.url}"},
				"env": object{"ATOLL_API_KEY": "${user_config.key}"},
			},
		},
		"compatibility":   object{"platforms": []string{"linux"}},
		"tools_generated": true,
		"user_config": object{
			"url": object{"type": "string", "title": "Server", "description": "URL of the Atoll server", "default": "http://127.0.0.1:7777", "required": true},
			"key": object{"type": "string", "title": "Key", "description": "An API key of the server: atoll key create", "sensitive": true, "required": true},
		},
	}
}

// server is the entry in the registry of MCP servers: the bundle, and a server
// that runs elsewhere.
func (b *bundle) server(digest string) object {
	bearer := object{
		"name": "Authorization", "value": "Bearer {key}", "isRequired": true, "isSecret": true,
		"variables": object{"key": object{"description": "An API key of the server: atoll key create", "isRequired": true, "isSecret": true}},
	}
	return object{
		"$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
		"name":    registry, "title": title, "description": description, "version": b.version, "websiteUrl": home,
		"repository": object{"url": home, "source": "github"},
		"packages": []object{{
			"registryType": "mcpb", "identifier": home + "/releases/download/v" + b.version + "/atoll.mcpb", "version": b.version,
			"fileSha256": digest, "transport": object{"type": "stdio"},
		}},
		"remotes": []object{{
			// The registry takes https alone here; a server on this machine is reached by the package.
			"type": "streamable-http", "url": "https://{server}/mcp", "headers": []object{bearer},
			"variables": object{"server": object{"description": "Name of your server, with its port unless that is 443", "isRequired": true, "placeholder": "atoll.example"}},
		}},
	}
}
