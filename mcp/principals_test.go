package mcp

import (
	"encoding/json"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// openAll serves every tool there is over HTTP.
func openAll(t *testing.T, opt Options) (*Server, *mcptest.Backend, string) {
	t.Helper()
	backend := mcptest.New(t)
	services := backend.Services()
	services.Policy = egress.FromNetwork
	opt.Principal = byKey
	if opt.Sets == nil {
		opt.Sets = []string{tools.SetAll, tools.SetDaytona}
	}
	opt.LocalDirs = []string{t.TempDir()}
	s, err := New(services, opt)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		web.Close()
	})
	return s, backend, web.URL + "/mcp"
}

// sample holds arguments for tools whose schema alone does not tell which are
// needed together.
var sample = map[string]map[string]any{
	"sandbox_snapshot":          {"name": "s"},
	"sandbox_git":               {"op": "status"},
	"sandbox_fs":                {"op": "delete"},
	"sandbox_control":           {"action": "stop"},
	"account_info":              {"about": "keys"},
	"file_upload":               {"encoding": "text"},
	"sandbox_transfer":          {"local_path": "."},
	"sandbox_ui":                {"op": "stop"},
	"computer_use_mouse_scroll": {"direction": "down"},
}

// arguments makes ones that pass the tool's checks, so that what decides is
// whose sandbox it is.
func arguments(t *testing.T, tool tools.Tool, id string) map[string]any {
	t.Helper()
	var s struct {
		Properties map[string]struct {
			Type    string   `json:"type"`
			Enum    []string `json:"enum"`
			Minimum float64  `json:"minimum"`
		} `json:"properties"`
		Required []string `json:"required"`
	}
	if err := json.Unmarshal([]byte(tool.Schema), &s); err != nil {
		t.Fatal(err)
	}
	args := map[string]any{}
	for _, name := range s.Required {
		switch p := s.Properties[name]; {
		case len(p.Enum) > 0:
			args[name] = p.Enum[0]
		case p.Type == "string":
			args[name] = name
		case p.Type == "boolean":
			args[name] = true
		default:
			args[name] = max(p.Minimum, 1)
		}
	}
	maps.Copy(args, sample[tool.Name])
	if _, ok := s.Properties["id"]; ok {
		args["id"] = id
	}
	return args
}

// TestOthersSandboxesDoNotExist calls every tool about another organization's
// sandbox. The answer must be the one about a sandbox that never was.
func TestOthersSandboxesDoNotExist(t *testing.T) {
	s, backend, url := openAll(t, Options{})
	owner, stranger := newAgent(t, url, "owner", modern), newAgent(t, url, "stranger", modern)
	for _, c := range []struct {
		tool string
		args map[string]any
	}{
		{"sandbox_create", map[string]any{"name": "box"}},
		{"sandbox_write", map[string]any{"id": "box", "path": "f", "content": "mine"}},
		{"sandbox_exec", map[string]any{"id": "box", "command": "sleep 1000", "background": true}},
		{"sandbox_snapshot", map[string]any{"id": "box", "name": "saved"}},
	} {
		if got := owner.call(c.tool, c.args, nil); got.Result.IsError {
			t.Fatalf("%s: %s", c.tool, got.text())
		}
	}
	const uuid, absent = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-999999999999"
	for _, tool := range s.tools {
		if !strings.Contains(tool.Schema, `"id":{`) {
			continue // below
		}
		for _, id := range []string{uuid, "box"} {
			got := stranger.call(tool.Name, arguments(t, tool, id), nil)
			never := stranger.call(tool.Name, arguments(t, tool, absent), nil)
			if want := strings.ReplaceAll(never.text(), absent, id); !got.Result.IsError || got.text() != want || !strings.Contains(want, "not found") {
				t.Errorf("%s of another's sandbox %s: %q, want the answer about none: %q", tool.Name, id, got.text(), want)
			}
		}
	}

	// The others, which name no sandbox.
	for _, tool := range s.tools {
		if strings.Contains(tool.Schema, `"id":{`) {
			continue
		}
		got := stranger.call(tool.Name, arguments(t, tool, ""), nil)
		switch tool.Name {
		case "account_info":
			if !strings.Contains(got.text(), "does not offer") {
				t.Errorf("account_info: %q", got.text())
			}
		case "sandbox_create":
			if got.Result.IsError || backend.Created()[1].OrganizationID != "stranger" {
				t.Errorf("sandbox_create: %q for %q", got.text(), backend.Created()[1].OrganizationID)
			}
		case "snapshot_delete":
			if got := stranger.call(tool.Name, map[string]any{"name": "saved"}, nil); !got.Result.IsError || !strings.Contains(got.text(), "no snapshot") {
				t.Errorf("snapshot_delete of another's: %q", got.text())
			}
		default:
			t.Errorf("%s names no sandbox: say here what a stranger may see of it", tool.Name)
		}
	}
	for _, tool := range []string{"sandbox_list", "sandbox_snapshot"} {
		if got := stranger.call(tool, nil, nil); strings.Contains(got.text(), "box  ") || strings.Contains(got.text(), "saved") {
			t.Errorf("%s shows a stranger %q", tool, got.text())
		}
	}

	// Nothing happened to the owner's.
	if got := owner.call("sandbox_read", map[string]any{"id": "box", "path": "f"}, nil); !strings.Contains(got.text(), "mine") {
		t.Errorf("the owner's file: %q", got.text())
	}
	if got := owner.call("sandbox_snapshot", nil, nil); !strings.Contains(got.text(), "saved") {
		t.Errorf("the owner's snapshots: %q", got.text())
	}
	if n := backend.Box("box").Running(); n != 1 {
		t.Errorf("%d commands of the owner run, want 1", n)
	}
}

// TestReadOnlyInEveryWay asks for the same list in every way there is, and
// calls what it leaves out.
func TestReadOnlyInEveryWay(t *testing.T) {
	s, _, url := openAll(t, Options{})
	_, _, bound := openAll(t, Options{ReadOnly: true})
	for name, c := range map[string]struct {
		url    string
		header map[string]string
	}{
		"path":            {url + "/readonly", nil},
		"path with a set": {url + "/x/all,daytona/readonly", nil},
		"header":          {url, map[string]string{"X-MCP-Readonly": "true"}},
		"garbled header":  {url, map[string]string{"X-MCP-Readonly": "maybe"}},
		"server":          {bound, map[string]string{"X-MCP-Readonly": "false"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t, c.url, "org", modern)
			a.header = c.header
			listed := map[string]bool{}
			for _, tool := range a.request("tools/list", nil).Result.Tools {
				listed[tool.Name] = true
			}
			for _, tool := range s.tools {
				if tool.Hints.ReadOnly != listed[tool.Name] && tool.Set != tools.SetLocal {
					t.Errorf("%s is listed: %v, read-only: %v", tool.Name, listed[tool.Name], tool.Hints.ReadOnly)
				}
				if tool.Hints.ReadOnly {
					continue
				}
				if got := a.call(tool.Name, arguments(t, tool, "x"), nil); got.Error == nil {
					t.Errorf("%s was called: %q", tool.Name, got.text())
				}
			}
		})
	}
}

func TestToolsetsAreStatic(t *testing.T) {
	s, _, url := openAll(t, Options{Sets: []string{tools.SetCore}})
	names := func(url string, header map[string]string) []string {
		a := newAgent(t, url, "org", modern)
		a.header = header
		var all []string
		for _, tool := range a.request("tools/list", nil).Result.Tools {
			all = append(all, tool.Name)
		}
		return all
	}
	want := func(sets ...string) []string {
		var all []string
		for _, tool := range s.tools {
			if tool.In(sets) {
				all = append(all, tool.Name)
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		url    string
		header map[string]string
		want   []string
	}{
		"default":     {url, nil, want(tools.SetCore)},
		"path":        {url + "/x/git,code", nil, want(tools.SetGit, tools.SetCode)},
		"header":      {url, map[string]string{"X-MCP-Toolsets": "desktop, egress"}, want(tools.SetDesktop, tools.SetEgress)},
		"path first":  {url + "/x/admin", map[string]string{"X-MCP-Toolsets": "desktop"}, want(tools.SetAdmin)},
		"daytona":     {url + "/x/daytona", nil, want(tools.SetDaytona)},
		"with others": {url + "/x/core,daytona", nil, want(tools.SetCore, tools.SetDaytona)},
	} {
		got := names(c.url, c.header)
		if !slices.Equal(got, c.want) || len(got) == 0 {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if !slices.IsSorted(got) {
			t.Errorf("%s: %v is not sorted", name, got)
		}
	}
	if got := names(url+"/x/daytona", nil); len(got) != 39 {
		t.Errorf("daytona has %d tools, want 39", len(got))
	}

	// Calls change no list, and what is not offered cannot be called.
	before := names(url, nil)
	a := newAgent(t, url, "org", modern)
	a.call("sandbox_create", map[string]any{"name": "box"}, nil)
	a.call("sandbox_exec", map[string]any{"id": "box", "command": "true"}, nil)
	if got := a.call("sandbox_git", map[string]any{"id": "box", "op": "status"}, nil); got.Error == nil {
		t.Errorf("a tool of another set was called: %q", got.text())
	}
	if got := names(url, nil); !slices.Equal(got, before) {
		t.Errorf("after calls %v, before %v", got, before)
	}
	for _, path := range []string{"/x/local", "/x/core,local", "/x/nonsense", "/x/", "/x/core/more", "/nonsense", "/x/,"} {
		a := newAgent(t, url+path, "org", modern)
		if got := a.request("tools/list", nil); got.Error == nil || len(got.Error.Message) == 0 {
			t.Errorf("%s: %+v, want an error", path, got.Result.Tools)
		}
	}
}
