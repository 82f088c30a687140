package tools_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/mcp/tools"
)

// TestDaytonaContract holds names, arguments, types, defaults and bounds
// against those of the server that the set takes over from.
func TestDaytonaContract(t *testing.T) {
	want, err := os.ReadFile("testdata/daytona.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	n := 0
	for _, tool := range allTools(t) {
		if tool.Set != tools.SetDaytona {
			continue
		}
		n++
		var s map[string]any
		if err := json.Unmarshal([]byte(tool.Schema), &s); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s(%s)\n", tool.Name, facts(s))
		if _, strict := s["additionalProperties"]; strict {
			t.Errorf("%s: its schema refuses what that server's does not", tool.Name)
		}
	}
	if n != 39 {
		t.Errorf("%d tools, want 39", n)
	}
	var lines []string
	for line := range strings.Lines(string(want)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if d := cmp.Diff(strings.Join(lines, ""), got.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// facts writes the properties of a schema as testdata/daytona.txt does.
func facts(s map[string]any) string {
	props, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(props)) {
		p := props[name].(map[string]any)
		f := name + ":" + kind(p)
		if slices.Contains(required, any(name)) {
			f += "!"
		}
		if d, ok := p["default"]; ok {
			text, _ := json.Marshal(d)
			f += "=" + string(text)
		}
		if v, ok := p["minimum"]; ok {
			f += fmt.Sprintf(">=%v", v)
		}
		if v, ok := p["maximum"]; ok {
			f += fmt.Sprintf("<=%v", v)
		}
		all = append(all, f)
	}
	return strings.Join(all, " ")
}

func kind(p map[string]any) string {
	switch t, _ := p["type"].(string); t {
	case "array":
		items := p["items"].(map[string]any)
		return "[" + kind(items) + "]"
	case "object":
		if more, ok := p["additionalProperties"].(map[string]any); ok {
			return "{*:" + kind(more) + "}"
		}
		return "{" + facts(p) + "}"
	default:
		return t
	}
}

func TestDaytonaTools(t *testing.T) {
	b := newBench(t, tools.Options{})
	got := b.ok("create_sandbox", `{"name":"dt","memory":2,"cpu":1,"env":{"A":"b"},"networkAllowList":"example.com, 203.0.113.0/24","ttlMinutes":60,"autoDeleteInterval":-1}`)
	wantPrefix(t, got, "Created sandbox 00000000-")
	id := strings.TrimSuffix(strings.Fields(got)[2], ":")
	req := b.backend.Created()[1]
	if d := cmp.Diff([]string{"203.0.113.0/24"}, req.Network.AllowCIDRs); d != "" || !slices.Equal(req.Network.AllowDomains, []string{"example.com"}) {
		t.Errorf("network %+v", req.Network)
	}
	if req.Target != "" || req.Resources.MemoryMiB != 2048 || req.Lifecycle.TTL.Minutes() != 60 || req.Lifecycle.AutoStop.Minutes() != 15 || req.Lifecycle.AutoArchive.Hours() != 168 || req.Lifecycle.AutoDelete >= 0 {
		t.Errorf("created with %+v, lifecycle %+v", req, req.Lifecycle)
	}
	wantPrefix(t, b.ok("create_sandbox", fmt.Sprintf(`{"id":%q}`, id)), "Using sandbox "+id+": running")
	b.ok("create_sandbox", `{"buildInfo":{"dockerfileContent":"FROM alpine:3.20\n"},"target":"us"}`)
	if last := b.backend.Created()[2]; last.Image != "alpine:3.20" {
		t.Errorf("created with %+v, want the image of the FROM line", last)
	}

	in := func(args string) string { return fmt.Sprintf(`{"id":%q,%s}`, id, args) }
	got = b.ok("execute_command", in(`"command":"echo out; exit 3"`))
	wantPrefix(t, got, "exit 3 · ")
	wantParts(t, got, "\nout")
	wantPrefix(t, b.ok("create_folder", in(`"folderPath":"src"`)), "Made src")
	wantPrefix(t, b.ok("file_upload", in(`"filePath":"src/a.txt","content":"one\ntwo\n","encoding":"utf-8","overwrite":false`)), "Wrote 8 bytes")
	wantParts(t, b.fails("file_upload", in(`"filePath":"src/a.txt","content":"x","encoding":"text","overwrite":false`)), "exists already", `"overwrite":true`)
	b.ok("file_upload", in(`"filePath":"src/b.txt","content":"aGk=","encoding":"base64","overwrite":true`))
	got = b.ok("file_download", in(`"filePath":"src/a.txt"`))
	wantParts(t, got, "src/a.txt · 8 B\none\ntwo\n")
	b.ok("execute_command", in(`"command":"seq 1 50000 > long.txt; mkdir many; cd many; touch $(seq 1 2000)"`))
	wantParts(t, b.ok("file_download", in(`"filePath":"long.txt"`)), "\n1\n2\n", "bytes left out; read it with execute_command", "\n50000")
	if got := b.ok("list_files", in(`"path":"many"`)); !strings.Contains(got, "see the rest with execute_command") || strings.Contains(got, "cursor") {
		t.Errorf("a long list: %.200q", got)
	}
	wantParts(t, b.ok("get_file_info", in(`"filePath":"src/a.txt"`)), "file · 8 B · mode ")
	wantParts(t, b.ok("list_files", in(`"path":"src"`)), "a.txt", "b.txt")
	wantPrefix(t, b.ok("move_file", in(`"sourcePath":"src/b.txt","destPath":"c.txt"`)), "Moved src/b.txt to c.txt")
	wantParts(t, b.ok("list_files", in(`"path":""`)), "c.txt")
	wantPrefix(t, b.ok("delete_file", in(`"filePath":"c.txt"`)), "Deleted c.txt")
	wantParts(t, b.fails("file_download", in(`"filePath":"c.txt"`)), "c.txt", "list_files")
	wantParts(t, b.ok("preview_link", in(`"port":3999,"description":"web","checkServer":false`)), "Port 3999, not checked.\nURL: http://3999-")
	wantParts(t, b.fails("preview_link", in(`"port":3999,"description":"web","checkServer":true`)), "Nothing listens on port 3999", "execute_command")
	wantPrefix(t, b.ok("destroy_sandbox", fmt.Sprintf(`{"id":%q}`, id)), "Deleted ")
	wantParts(t, b.fails("execute_command", in(`"command":"true"`)), "not found", "create_sandbox")
}
