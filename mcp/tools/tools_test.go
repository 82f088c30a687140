package tools_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
)

var update = flag.Bool("update", false, "write golden files")

// bench is a set of tools over a fake backend with one sandbox named box.
type bench struct {
	t       *testing.T
	backend *mcptest.Backend
	tools   map[string]tools.Tool
}

func newBench(t *testing.T, opt tools.Options) *bench {
	if opt.LocalDirs == nil {
		opt.LocalDirs = []string{t.TempDir()}
	}
	b := &bench{t: t, backend: mcptest.New(t), tools: map[string]tools.Tool{}}
	kit := tools.New(b.backend.Services(), opt)
	t.Cleanup(func() { kit.Close(context.WithoutCancel(t.Context())) })
	for _, tool := range kit.Tools() {
		b.tools[tool.Name] = tool
	}
	b.ok("sandbox_create", `{"name":"box"}`)
	return b
}

func (b *bench) call(ctx context.Context, tool, args string) tools.Result {
	b.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(args), &v); err != nil {
		b.t.Fatalf("%s: %v", args, err)
	}
	return b.tools[tool].Call(ctx, tools.Args{Organization: "org", Values: v})
}

func (b *bench) ok(tool, args string) string {
	b.t.Helper()
	r := b.call(b.t.Context(), tool, args)
	if r.IsError {
		b.t.Fatalf("%s %s: %s", tool, args, r.Text)
	}
	if len(r.Text) > 9000 {
		b.t.Errorf("%s: %d bytes, at most 9000", tool, len(r.Text))
	}
	return r.Text
}

func (b *bench) fails(tool, args string) string {
	b.t.Helper()
	r := b.call(b.t.Context(), tool, args)
	if !r.IsError {
		b.t.Fatalf("%s %s: succeeded with %q, want an error", tool, args, r.Text)
	}
	return r.Text
}

func wantPrefix(t *testing.T, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want it to begin with %q", got, want)
	}
}

func wantParts(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("got %.300q, want %q in it", got, p)
		}
	}
}

// allTools is every tool there is, over an empty backend.
func allTools(t *testing.T) []tools.Tool {
	return tools.New(mcptest.New(t).Services(), tools.Options{LocalDirs: []string{t.TempDir()}}).Tools()
}

func TestGolden(t *testing.T) {
	for _, tool := range allTools(t) {
		var schema map[string]any
		if err := json.Unmarshal([]byte(tool.Schema), &schema); err != nil {
			t.Errorf("%s: %v", tool.Name, err)
		}
		got, err := json.MarshalIndent(map[string]any{
			"name": tool.Name, "set": tool.Set, "title": tool.Title, "description": tool.Description, "inputSchema": schema, "hints": tool.Hints,
		}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", tool.Name+".json")
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v; run with -update", err)
		}
		if d := cmp.Diff(strings.TrimSpace(string(want)), string(got)); d != "" {
			t.Errorf("%s changed; run with -update if that is meant (-want +got):\n%s", tool.Name, d)
		}
	}
}

func TestCreate(t *testing.T) {
	b := newBench(t, tools.Options{})
	got := b.ok("sandbox_create", `{"name":"two","cpu":2,"memory_mb":512,"disk_gb":4,"env":{"A":"b"},"labels":{"team":"web"},"network":"none","idle_minutes":0,"ttl_minutes":60,"snapshot":null}`)
	wantPrefix(t, got, "Created sandbox two: running")
	req := b.backend.Created()[1]
	if req.OrganizationID != "org" || req.Resources.CPU != 2 || req.Resources.MemoryMiB != 512 || req.Resources.DiskMiB != 4096 ||
		!req.Network.BlockAll || req.Env["A"] != "b" || req.Labels["team"] != "web" {
		t.Errorf("created with %+v", req)
	}
	if l := req.Lifecycle; l == nil || l.AutoStop != 0 || l.TTL != time.Hour || l.AutoDelete != -1 {
		t.Errorf("lifecycle %+v", req.Lifecycle)
	}
	if l := b.backend.Created()[0].Lifecycle; l != nil {
		t.Errorf("lifecycle without arguments is %+v, want the server's default", l)
	}
}

func TestListAndControl(t *testing.T) {
	b := newBench(t, tools.Options{})
	b.ok("sandbox_create", `{"name":"two","labels":{"team":"web"}}`)
	wantParts(t, b.ok("sandbox_list", `{}`), "2 of 2 sandboxes", "\nbox  running", "team=web")
	wantPrefix(t, b.ok("sandbox_list", `{"label":"team=web"}`), "1 of 1")
	wantPrefix(t, b.ok("sandbox_list", `{"label":"team=none"}`), "No sandboxes match")
	wantPrefix(t, b.ok("sandbox_control", `{"id":"two","action":"stop"}`), "two is stopped")
	wantPrefix(t, b.ok("sandbox_list", `{"state":"stopped"}`), "1 of 1")
	wantParts(t, b.fails("sandbox_exec", `{"id":"two","command":"true"}`), "is stopped", `sandbox_control {"id":"two","action":"start"}`)
	wantPrefix(t, b.ok("sandbox_control", `{"id":"two","action":"start"}`), "two is running")
	wantPrefix(t, b.ok("sandbox_control", `{"id":"two","action":"extend"}`), "two is extended")
	wantParts(t, b.ok("sandbox_list", `{"id":"box"}`), "box is running", "in use: 10.0 MiB memory")
	wantPrefix(t, b.ok("sandbox_delete", `{"id":"two"}`), "Deleted two")
	wantParts(t, b.fails("sandbox_delete", `{"id":"two"}`), "not found", "sandbox_list")
}

func TestExec(t *testing.T) {
	b := newBench(t, tools.Options{})
	box := b.backend.Box("box")
	for _, c := range []struct{ args, first, rest string }{
		{`"command":"echo out >&2; exit 3"`, "exit 3 · ", "out"},
		{`"command":"true"`, "exit 0 · ", ""},
		{`"command":"cat","stdin":"a\nb"`, "exit 0 · ", "a\nb"},
		{`"command":"cat; echo \"it's\" $A","env":{"A":"x 'y' $z"}`, "exit 0 · ", "it's x 'y' $z"},
		{`"command":"echo 'a"`, "exit 2 · ", ""},
		{`"command":"mkdir d; cd d; pwd | tail -c 3"`, "exit 0 · ", "/d"},
		{`"command":"pwd | tail -c 3","cwd":"d"`, "exit 0 · ", "/d"},
		{`"command":"sleep 60","timeout_s":1`, "exit 124 · timed out after 1 s", ""},
		{`"command":"printf 'a\\000b\\377'"`, "exit 0 · ", "a␀b�"},
	} {
		got := b.ok("sandbox_exec", `{"id":"box",`+c.args+`}`)
		wantPrefix(t, got, c.first)
		_, rest, _ := strings.Cut(got, "\n")
		if c.rest != "" && rest != c.rest {
			t.Errorf("%s: printed %q, want %q", c.args, rest, c.rest)
		}
	}
	if left := box.Sessions(); len(left) != 1 {
		t.Errorf("sessions: %v, want the one that all commands ran in", left)
	}
}

func TestLongOutputIsAddressable(t *testing.T) {
	b := newBench(t, tools.Options{})
	got := b.ok("sandbox_exec", `{"id":"box","command":"seq 1 200000"}`)
	wantPrefix(t, got, "exit 0 · ")
	wantParts(t, got, "\n1\n2\n", "\n200000", "bytes left out", `sandbox_process {"id":"box","process":"x-`)
	process := b.backend.Box("box").Sessions()[0]
	var all strings.Builder
	for offset := 0; ; {
		got := b.ok("sandbox_process", fmt.Sprintf(`{"id":"box","process":%q,"offset":%d}`, process, offset))
		status, text, _ := strings.Cut(got, "\n")
		var next int
		_, after, _ := strings.Cut(status, "next offset ")
		if _, err := fmt.Sscanf(after, "%d", &next); err != nil {
			t.Fatalf("%q: %v", status, err)
		}
		if next == offset {
			break
		}
		offset = next
		all.WriteString(text)
	}
	var want strings.Builder
	for i := range 200000 {
		fmt.Fprintf(&want, "%d\n", i+1)
	}
	if all.String() != want.String() {
		t.Errorf("paged output has %d bytes, want %d, or differs", all.Len(), want.Len())
	}
}

func TestLongCommandGoesOnInTheBackground(t *testing.T) {
	b := newBench(t, tools.Options{Foreground: 300 * time.Millisecond})
	got := b.ok("sandbox_exec", `{"id":"box","command":"echo one; sleep 1; echo two; exit 5"}`)
	wantPrefix(t, got, "running · ")
	wantParts(t, got, "\none", `"offset":`)
	process := b.backend.Box("box").Sessions()[0]
	wantParts(t, b.ok("sandbox_process", `{"id":"box"}`), process+"  running  echo one; sleep 1")
	got = b.ok("sandbox_process", fmt.Sprintf(`{"id":"box","process":%q,"wait_s":10}`, process))
	wantPrefix(t, got, "exit 5 · ")
	wantParts(t, got, "one\ntwo")
}

func TestBackgroundProcess(t *testing.T) {
	b := newBench(t, tools.Options{})
	box := b.backend.Box("box")
	wantPrefix(t, b.ok("sandbox_process", `{"id":"box"}`), "No background processes")
	wantPrefix(t, b.ok("sandbox_exec", `{"id":"box","command":"while read l; do echo got $l; done","background":true}`), "Started process p-")
	process := box.Sessions()[0]
	wantPrefix(t, b.ok("sandbox_process", fmt.Sprintf(`{"id":"box","process":%q,"action":"input","data":"hello"}`, process)), "Sent to")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if got := b.ok("sandbox_process", fmt.Sprintf(`{"id":"box","process":%q}`, process)); strings.Contains(got, "got hello") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("no answer to input: %q", got)
		}
	}
	wantParts(t, b.ok("sandbox_process", fmt.Sprintf(`{"id":"box","process":%q,"action":"kill"}`, process)), "Killed "+process, "got hello")
	if n := box.Running(); n != 0 {
		t.Errorf("%d commands run after kill", n)
	}
	wantParts(t, b.fails("sandbox_process", fmt.Sprintf(`{"id":"box","process":%q}`, process)), "no process", "lists them")
}

func TestCancellationKillsTheCommand(t *testing.T) {
	b := newBench(t, tools.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for b.backend.Box("box").Running() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel(nil)
	}()
	if r := b.call(ctx, "sandbox_exec", `{"id":"box","command":"sleep 100"}`); !r.IsError {
		t.Errorf("got %q, want an error", r.Text)
	}
	if n := b.backend.Box("box").Running(); n != 0 {
		t.Errorf("%d commands still run", n)
	}
}

func TestShutdownLeavesTheCommand(t *testing.T) {
	b := newBench(t, tools.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for b.backend.Box("box").Running() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel(tools.ErrShutdown)
	}()
	wantParts(t, b.call(ctx, "sandbox_exec", `{"id":"box","command":"sleep 100"}`).Text, "shutting down", "x-")
	if n := b.backend.Box("box").Running(); n != 1 {
		t.Errorf("%d commands run, want 1", n)
	}
}

func TestFiles(t *testing.T) {
	b := newBench(t, tools.Options{})
	wantPrefix(t, b.ok("sandbox_write", `{"id":"box","path":"src/a.txt","content":"one\ntwo\nthree\ntwo\n"}`), "Wrote 18 bytes")
	got := b.ok("sandbox_read", `{"id":"box","path":"src/a.txt"}`)
	wantParts(t, got, "lines 1-4 of 4\none\n")
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"src/a.txt","offset":2,"limit":1}`), `lines 2-2 of 4; go on with "offset":3`, "\ntwo\n")
	wantParts(t, b.fails("sandbox_read", `{"id":"box","path":"src/a.txt","offset":9}`), "has 4 lines")
	wantParts(t, b.fails("sandbox_read", `{"id":"box","path":"nope"}`), `no "nope"`, "sandbox_find")
	wantParts(t, b.fails("sandbox_read", `{"id":"box","path":"src"}`), "is a directory", "sandbox_find")

	wantParts(t, b.fails("sandbox_edit", `{"id":"box","path":"src/a.txt","old":"two","new":"2"}`), "occurs 2 times", "lines 2, 4", `"all":true`)
	wantParts(t, b.fails("sandbox_edit", `{"id":"box","path":"src/a.txt","old":" three","new":"2"}`), "does not occur", "Line 3")
	b.ok("sandbox_fs", `{"id":"box","op":"chmod","path":"src/a.txt","mode":"755"}`)
	wantParts(t, b.ok("sandbox_edit", `{"id":"box","path":"src/a.txt","old":"three","new":"3"}`), "Replaced 1", "@@ line 3 @@\n one\n two\n-three\n+3\n two")
	st, err := os.Stat(filepath.Join(b.backend.Box("box").Dir, "src/a.txt"))
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("after the edit: %v %v, want mode 755", st, err)
	}
	wantPrefix(t, b.ok("sandbox_edit", `{"id":"box","path":"src/a.txt","old":"two","new":"2","all":true}`), "Replaced 2")
	wantPrefix(t, b.ok("sandbox_write", `{"id":"box","path":"src/a.txt","content":"end\n","append":true}`), "Appended 4 bytes")
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"~/src/a.txt"}`), "one\n2\n3\n2\nend\n")

	b.ok("sandbox_fs", `{"id":"box","op":"mkdir","path":"new"}`)
	b.ok("sandbox_fs", `{"id":"box","op":"copy","path":"src/a.txt","to":"new/b.txt"}`)
	b.ok("sandbox_fs", `{"id":"box","op":"move","path":"new/b.txt","to":"new/c.txt"}`)
	wantParts(t, b.ok("sandbox_find", `{"id":"box"}`), "new/", "src/")
	wantParts(t, b.ok("sandbox_find", `{"id":"box","glob":"*.txt"}`), "1-2 of 2", "new/c.txt\nsrc/a.txt")
	wantParts(t, b.ok("sandbox_find", `{"id":"box","grep":"^e.d$","path":"src"}`), "a.txt:5:end")
	wantParts(t, b.ok("sandbox_find", `{"id":"box","glob":"src/**/*.txt"}`), "1-1 of 1")
	wantParts(t, b.fails("sandbox_find", `{"id":"box","grep":"("}`), `"grep" is not valid`)
	wantParts(t, b.fails("sandbox_find", `{"id":"box","path":"nope","glob":"*"}`), `no "nope"`)
	b.ok("sandbox_fs", `{"id":"box","op":"delete","path":"new"}`)
	wantPrefix(t, b.ok("sandbox_find", `{"id":"box","glob":"c.txt"}`), "Nothing found")
}

func TestReadKinds(t *testing.T) {
	b := newBench(t, tools.Options{})
	const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	b.ok("sandbox_write", `{"id":"box","path":"p.png","encoding":"base64","content":"`+png+`"}`)
	r := b.call(t.Context(), "sandbox_read", `{"id":"box","path":"p.png"}`)
	if len(r.Images) != 1 || r.Images[0].MIME != "image/png" || r.Images[0].Base64 != png {
		t.Errorf("got %+v, want the picture", r)
	}
	b.ok("sandbox_write", `{"id":"box","path":"x.bin","encoding":"base64","content":"AAECAw=="}`)
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"x.bin"}`), "binary", "sandbox_exec")
	b.ok("sandbox_exec", `{"id":"box","command":"seq 1 100000 > long; head -c 500000 /dev/zero | tr '\\0' x > wide; : > empty"}`)
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"long","limit":100000}`), "of 100000; go on with")
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"wide"}`), "lines 1-1 of 1", "left out")
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"empty"}`), "empty")
	b.ok("sandbox_exec", `{"id":"box","command":"mkdir many; for i in $(seq 1 3000); do : > many/some-long-file-name-$i; done"}`)
	got := b.ok("sandbox_find", `{"id":"box","path":"many","glob":"*"}`)
	wantParts(t, got, "of 3000; more with \"cursor\":")
	wantParts(t, b.ok("sandbox_find", `{"id":"box","path":"many","glob":"*","cursor":"2999"}`), "3000-3000 of 3000")
}

func TestExposeAndSnapshot(t *testing.T) {
	b := newBench(t, tools.Options{})
	web := httptest.NewServer(http.NotFoundHandler())
	_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
	args := fmt.Sprintf(`{"id":"box","port":%s}`, port)
	private := "http://" + port + "-00000000-0000-4000-8000-000000000001.localhost/?DAYTONA_SANDBOX_AUTH_KEY=token\n"
	wantParts(t, b.ok("sandbox_expose", args), "answers with HTTP 404", "URL: "+private, "Keep it private")
	with := func(more string) string { return fmt.Sprintf(`{"id":"box","port":%s,%s}`, port, more) }
	wantParts(t, b.ok("sandbox_expose", with(`"minutes":5`)), "URL: http://"+port+"-signed300.localhost\n", "5 minutes")
	open := b.ok("sandbox_expose", with(`"public":true`))
	wantParts(t, open, "-00000000-0000-4000-8000-000000000001.localhost\n", "is public")
	if got := b.ok("sandbox_expose", args); got != open {
		t.Errorf("of the public sandbox: got %q, want %q", got, open)
	}
	wantParts(t, b.ok("sandbox_expose", with(`"public":false`)), private)
	web.Close()
	wantParts(t, b.fails("sandbox_expose", args), "Nothing listens on port "+port, "background")
	wantPrefix(t, b.ok("sandbox_snapshot", `{}`), "No snapshots")
	wantParts(t, b.ok("sandbox_snapshot", `{"id":"box","name":"s1"}`), "Saved snapshot s1", `sandbox_create {"snapshot":"s1"}`)
	wantParts(t, b.ok("sandbox_snapshot", `{}`), "s1  active")
	wantPrefix(t, b.ok("sandbox_snapshot", `{"id":"box","fork":2,"name":"f"}`), "Forked box into f-1, f-2")
	wantParts(t, b.fails("sandbox_snapshot", `{"id":"box","fork":1,"name":"f-1"}`), "is taken")
}

// A command that no system takes is refused before it reaches the sandbox.
func TestHugeCommand(t *testing.T) {
	b := newBench(t, tools.Options{})
	got := b.fails("sandbox_exec", `{"id":"box","command":"`+strings.Repeat("x", 1<<20)+`"}`)
	wantParts(t, got, `"command"`, "sandbox_write")
	if len(got) > 480 {
		t.Errorf("%d bytes of answer", len(got))
	}
}

// FuzzArguments: no arguments make a tool panic, and every answer has a text.
func FuzzArguments(f *testing.F) {
	f.Add("sandbox_list", `{"id":"x"}`)
	f.Add("sandbox_create", `{"env":{"A":"b"},"cpu":1e400}`)
	f.Add("sandbox_find", `{"id":"x","grep":null,"cursor":5}`)
	b := mcptest.New(f)
	all := map[string]tools.Tool{}
	for _, tool := range tools.New(b.Services(), tools.Options{}).Tools() {
		all[tool.Name] = tool
	}
	names := slices.Sorted(maps.Keys(all))
	f.Fuzz(func(t *testing.T, name, args string) {
		tool, ok := all[name]
		if !ok {
			tool = all[names[len(name)%len(names)]]
		}
		if tool.Name == "sandbox_create" {
			return // each makes a directory and a server
		}
		var v any
		if json.Unmarshal([]byte(args), &v) != nil {
			v = args
		}
		if r := tool.Call(t.Context(), tools.Args{Organization: "org", Values: v}); r.Text == "" {
			t.Errorf("%s %s: no text", tool.Name, args)
		}
	})
}

func BenchmarkExec(b *testing.B) {
	backend := mcptest.New(b)
	all := map[string]tools.Tool{}
	for _, tool := range tools.New(backend.Services(), tools.Options{}).Tools() {
		all[tool.Name] = tool
	}
	all["sandbox_create"].Call(b.Context(), tools.Args{Organization: "org", Values: map[string]any{"name": "box"}})
	for b.Loop() {
		r := all["sandbox_exec"].Call(b.Context(), tools.Args{Organization: "org", Values: map[string]any{"id": "box", "command": "true"}})
		if r.IsError {
			b.Fatal(r.Text)
		}
	}
}
