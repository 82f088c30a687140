package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
)

// agent is a client of the server's MCP over HTTP.
type agent struct {
	t *testing.T
	c *client.Client
}

func (m *machine) agent(t *testing.T, path string) *agent {
	t.Helper()
	c, err := client.NewStreamableHttpClient(m.url+path, transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + machineKey}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var init mcpgo.InitializeRequest
	init.Params.ProtocolVersion = mcpgo.LATEST_PROTOCOL_VERSION
	init.Params.ClientInfo = mcpgo.Implementation{Name: "test", Version: "1"}
	if _, err := c.Initialize(t.Context(), init); err != nil {
		t.Fatal(err)
	}
	return &agent{t, c}
}

func (a *agent) call(tool, args string) (text string, failed bool) {
	a.t.Helper()
	var req mcpgo.CallToolRequest
	req.Params.Name = tool
	if err := json.Unmarshal([]byte(args), &req.Params.Arguments); err != nil {
		a.t.Fatalf("%s: %v", args, err)
	}
	res, err := a.c.CallTool(a.t.Context(), req)
	if err != nil {
		a.t.Errorf("%s %s: %v", tool, args, err)
		return "", true
	}
	if len(res.Content) > 0 {
		if c, ok := mcpgo.AsTextContent(res.Content[0]); ok {
			text = c.Text
		}
	}
	return text, res.IsError
}

func (a *agent) must(tool, args string, parts ...string) string {
	a.t.Helper()
	text, failed := a.call(tool, args)
	if failed {
		a.t.Fatalf("%s %s: %s", tool, args, text)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			a.t.Errorf("%s %s: %q, want %q in it", tool, args, text, p)
		}
	}
	return text
}

// TestMachineMCP makes the calls that models get wrong about a real sandbox,
// and then works in it with tools of every set.
func TestMachineMCP(t *testing.T) {
	m := sharedMachine(t)
	a := m.agent(t, "/mcp/x/all,daytona")
	corpus, err := os.ReadFile("../../mcp/tools/testdata/bad_calls.txt")
	if err != nil {
		t.Fatal(err)
	}
	a.must("sandbox_create", `{"name":"box"}`, "Created sandbox box")
	a.must("sandbox_create", `{"name":"off"}`)
	a.must("sandbox_control", `{"id":"off","action":"stop"}`)
	a.must("sandbox_exec", `{"id":"box","command":"printf 'one\\ntwo\\ntwo\\n' > notes.txt; mkdir dir"}`)
	n := 0
	for line := range strings.Lines(string(corpus)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || f[0] == "sandbox_transfer" {
			continue
		}
		n++
		text, failed := a.call(f[0], f[1])
		if !failed || !strings.Contains(text, f[2]) || !strings.Contains(text, f[3]) || len(text) > 600 {
			t.Errorf("%s %s: %q, want a short error with %q and %q", f[0], f[1], text, f[2], f[3])
		}
	}
	t.Logf("%d bad calls", n)
	a.must("sandbox_exec", `{"id":"box","command":"cat notes.txt; ls"}`, "one\ntwo\ntwo\n", "dir")
	a.must("sandbox_list", `{}`, "2 of 2 sandboxes")

	text := a.must("sandbox_code", `{"id":"box","code":"x = 41","context":"new"}`, `"context":"`)
	_, text, _ = strings.Cut(text, `"context":"`)
	id, _, _ := strings.Cut(text, `"`)
	a.must("sandbox_code", `{"id":"box","code":"print(x + 1)","context":"`+id+`","end":true}`, "42", "context deleted")
	a.must("sandbox_exec", `{"id":"box","command":"git init -q -b main repo && cd repo && git config user.name T && git config user.email t@example.com"}`)
	a.must("sandbox_write", `{"id":"box","path":"repo/a.txt","content":"one\n"}`)
	a.must("sandbox_git", `{"id":"box","op":"commit","path":"repo","message":"first"}`, "Committed")
	a.must("sandbox_git", `{"id":"box","op":"log","path":"repo"}`, "first")
	a.must("sandbox_egress", `{"id":"box"}`, "may reach the whole internet")
	a.must("sandbox_egress", `{"id":"box","host":"169.254.169.254"}`, "denied", "blocked/metadata")
	a.must("sandbox_activity", `{"id":"box","kinds":["call"]}`, "git")
	a.must("account_info", `{"about":"usage"}`, "Region ", "cpu")
	a.must("account_info", `{"about":"keys"}`, "keys")
	a.must("account_info", `{"about":"audit"}`, "create sandbox")
	a.must("execute_command", `{"id":"box","command":"id -un; exit 4"}`, "exit 4 · ")
	a.must("file_download", `{"id":"box","filePath":"notes.txt"}`, "one\ntwo\n")

	home := strings.TrimSpace(strings.SplitN(a.must("sandbox_exec", `{"id":"box","command":"pwd"}`), "\n", 2)[1])
	var read mcpgo.ReadResourceRequest
	read.Params.URI = "sandbox://box" + home + "/notes.txt"
	res, err := a.c.ReadResource(t.Context(), read)
	if err != nil || len(res.Contents) != 1 || res.Contents[0].(mcpgo.TextResourceContents).Text != "one\ntwo\ntwo\n" {
		t.Errorf("resource: %+v, %v", res, err)
	}
	a.must("destroy_sandbox", `{"id":"off"}`, "Deleted off")
}
