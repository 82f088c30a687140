package tools_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// requires skips where this computer lacks a program.
func requires(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

func TestCode(t *testing.T) {
	requires(t, "python3")
	b := newBench(t, tools.Options{})
	got := b.ok("sandbox_code", `{"id":"box","code":"print(6*7)"}`)
	wantPrefix(t, got, "exit 0 · ")
	wantParts(t, got, "\n42")
	wantPrefix(t, b.ok("sandbox_code", `{"id":"box","code":"import sys; sys.exit(3)"}`), "exit 3 · ")

	got = b.ok("sandbox_code", `{"id":"box","code":"x = 41","context":"new"}`)
	wantParts(t, got, "ok · ", `go on with "context":"`)
	_, after, _ := strings.Cut(got, `"context":"`)
	id, _, _ := strings.Cut(after, `"`)
	wantParts(t, b.ok("sandbox_code", fmt.Sprintf(`{"id":"box","code":"print(x+1)","context":%q}`, id)), "ok · ", "\n42")
	wantParts(t, b.ok("sandbox_code", fmt.Sprintf(`{"id":"box","code":"1/0","context":%q}`, id)), "raised ZeroDivisionError", "division by zero")
	wantParts(t, b.fails("sandbox_code", fmt.Sprintf(`{"id":"box","code":"import time; time.sleep(60)","context":%q,"timeout_s":1}`, id)), `"timeout_s" (1)`, "sandbox_exec")
	b.ok("sandbox_code", `{"id":"box","code":"y = 1","context":"default"}`)
	wantParts(t, b.ok("sandbox_code", `{"id":"box","code":"print(y, 'x' in dir())","context":"default"}`), "1 False")
	got = b.ok("sandbox_code", `{"id":"box","code":"for i in range(100000): print(i)","context":"default"}`)
	wantParts(t, got, "\n0\n1\n", "\n99999", "bytes left out", "sandbox_read")
	wantParts(t, b.ok("sandbox_code", fmt.Sprintf(`{"id":"box","code":"","context":%q,"end":true}`, id)), "context deleted")
	wantParts(t, b.fails("sandbox_code", fmt.Sprintf(`{"id":"box","code":"x","context":%q}`, id)), `no "context"`, `"context":"new"`)
}

func TestGit(t *testing.T) {
	requires(t, "git")
	b := newBench(t, tools.Options{})
	home := b.backend.Box("box").Dir
	origin := filepath.Join(home, "origin.git")
	b.ok("sandbox_exec", `{"id":"box","command":"git init -q --bare -b main origin.git && git clone -q origin.git seed && cd seed && git config user.name T && git config user.email t@example.com && echo one > a && git add a && git commit -qm first && git push -q origin HEAD:main"}`)
	git := func(args string) string { t.Helper(); return b.ok("sandbox_git", `{"id":"box",`+args+`}`) }
	wantParts(t, git(fmt.Sprintf(`"op":"clone","url":%q,"path":"work"`, origin)), "Cloned "+origin+" into work, on main.")
	wantPrefix(t, git(`"op":"status","path":"work"`), "On main, 0 ahead and 0 behind origin/main; nothing to commit.")
	b.ok("sandbox_write", `{"id":"box","path":"work/b","content":"two\n"}`)
	b.ok("sandbox_write", `{"id":"box","path":"work/a","content":"1\n"}`)
	wantParts(t, git(`"op":"status","path":"work"`), "2 files differ", "b (new)", "a (")
	wantParts(t, git(`"op":"diff","path":"work"`), "-one", "+1")
	wantPrefix(t, git(`"op":"branch","path":"work","ref":"fix"`), "Created branch fix.")
	wantPrefix(t, git(`"op":"checkout","path":"work","ref":"fix"`), "On fix.")
	wantPrefix(t, git(`"op":"commit","path":"work","message":"second"`), "Committed ")
	wantPrefix(t, git(`"op":"push","path":"work"`), "Pushed.")
	wantParts(t, git(`"op":"branch","path":"work"`), "On fix.", "main")
	wantParts(t, git(`"op":"log","path":"work","ref":"main..fix"`), "second")
	wantPrefix(t, git(`"op":"pull","path":"work"`), "Pulled.")
	b.ok("sandbox_exec", `{"id":"box","command":"cd work; seq 1 20000 > big; git add big"}`)
	wantParts(t, git(`"op":"diff","path":"work","ref":"HEAD"`), "bytes left out", "+20000")

	fails := func(args string, parts ...string) {
		t.Helper()
		wantParts(t, b.fails("sandbox_git", `{"id":"box",`+args+`}`), parts...)
	}
	fails(`"op":"status","path":"home-of-nothing"`, `"path"`)
	fails(`"op":"checkout","path":"work","ref":"nope"`, `"ref"`)
	fails(`"op":"log","path":"work","ref":"nope"`, `"ref"`)
	fails(`"op":"clone","url":"https://u:secret@example.invalid/x.git"`, `"url" holds a password`, `"credential"`)
	fails(`"op":"clone","url":"https://example.invalid/x.git","credential":"NO_SUCH"`, "NO_SUCH", `"credential"`)
	fails(`"op":"clone","url":"--upload-pack=x"`, `"url" must not begin with a dash`)
	fails(`"op":"diff","path":"work","ref":"--output=/tmp/x"`, `"ref" must not begin with a dash`)
}

func TestTransfer(t *testing.T) {
	requires(t, "tar")
	local := t.TempDir()
	b := newBench(t, tools.Options{LocalDirs: []string{local}})
	write := func(name, content string) {
		t.Helper()
		file := filepath.Join(local, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	write("src/a.txt", "one")
	write("src/deep/b.txt", "two")
	write("src/node_modules/big.js", "x")
	if err := os.Symlink(outside, filepath.Join(local, "src/link")); err != nil {
		t.Fatal(err)
	}
	box := b.backend.Box("box").Dir
	wantParts(t, b.ok("sandbox_transfer", `{"id":"box","direction":"upload","local_path":"src","path":"in","exclude":["node_modules"]}`), "Uploaded 2 files (6 B) to in.")
	for name, want := range map[string]bool{"in/a.txt": true, "in/deep/b.txt": true, "in/node_modules": false, "in/link": false} {
		if _, err := os.Lstat(filepath.Join(box, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
	b.ok("sandbox_transfer", fmt.Sprintf(`{"id":"box","direction":"upload","local_path":%q,"path":"one.txt"}`, filepath.Join(local, "src/a.txt")))
	wantParts(t, b.ok("sandbox_read", `{"id":"box","path":"one.txt"}`), "one")

	// What comes out of a sandbox stays below the destination, without links
	// and without what git would run.
	b.ok("sandbox_exec", `{"id":"box","command":"mkdir -p out/.git/hooks out/d; echo three > out/d/c.txt; echo evil > out/.git/hooks/pre-commit; ln -s /etc/passwd out/p; printf '#!/bin/sh\n' > out/run; chmod 4777 out/run"}`)
	wantParts(t, b.ok("sandbox_transfer", `{"id":"box","direction":"download","local_path":"got","path":"out"}`), "Downloaded 2 files")
	if got, err := os.ReadFile(filepath.Join(local, "got/d/c.txt")); err != nil || string(got) != "three\n" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, name := range []string{"got/.git", "got/p"} {
		if _, err := os.Lstat(filepath.Join(local, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if st, err := os.Stat(filepath.Join(local, "got/run")); err != nil || st.Mode() != 0o755 {
		t.Errorf("got/run: %v, %v; want mode 755", st, err)
	}
	b.ok("sandbox_transfer", `{"id":"box","direction":"download","local_path":"got","path":"one.txt"}`)
	if got, err := os.ReadFile(filepath.Join(local, "got/one.txt")); err != nil || string(got) != "one" {
		t.Errorf("got %q, %v", got, err)
	}

	for args, want := range map[string]string{
		fmt.Sprintf(`"direction":"upload","local_path":%q,"path":"x"`, outside): "outside what your user allowed",
		`"direction":"upload","local_path":"../x","path":"x"`:                   "outside what your user allowed",
		`"direction":"upload","local_path":"src/link","path":"x"`:               `"local_path"`,
		`"direction":"upload","local_path":"nope","path":"x"`:                   "does not exist",
		`"direction":"download","local_path":"src/link","path":"one.txt"`:       `"local_path"`,
		`"direction":"download","local_path":".git/hooks/x","path":"one.txt"`:   ".git",
		`"direction":"download","local_path":"x","path":"nope"`:                 `no "nope"`,
		`"direction":"upload","local_path":"src","path":"x","exclude":["["]`:    `"exclude"`,
	} {
		wantParts(t, b.fails("sandbox_transfer", `{"id":"box",`+args+`}`), want)
	}
	if got, _ := os.ReadFile(outside); string(got) != "secret" {
		t.Errorf("a link led outside: %q", got)
	}
	if left, _ := filepath.Glob("/tmp/.atoll-upload-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// ledger answers with records of its own.
type ledger struct {
	engine.Activity
	items []engine.ActivityRecord
}

func (l ledger) Records(context.Context, engine.SandboxRef, engine.ActivityQuery) (engine.ActivityPage, error) {
	return engine.ActivityPage{Items: l.items}, nil
}

// office answers what administrators ask.
type office struct{ asked []engine.Principal }

func (o *office) List(_ context.Context, p engine.Principal) ([]engine.APIKey, error) {
	o.asked = append(o.asked, p)
	return []engine.APIKey{{Name: "ci", Prefix: "atl_ab", Suffix: "yz", Permissions: []string{"write:sandboxes"}}}, nil
}

func (o *office) Usage(_ context.Context, p engine.Principal, id string) (engine.Usage, error) {
	limit := 8.0
	return engine.Usage{Regions: []engine.RegionUsage{{
		RegionQuota: engine.RegionQuota{Region: "local", Class: engine.ClassContainer, Limits: engine.RegionLimits{TotalCPU: &limit}}, CPU: 3, MemoryMiB: 2048,
	}}, Snapshots: 2}, nil
}

func (o *office) Audit(_ context.Context, p engine.Principal, q engine.AuditQuery) (engine.AuditPage, error) {
	return engine.AuditPage{Total: 51, Next: "n", Items: []engine.AuditEntry{{
		At: time.Unix(0, 0), ActorEmail: "a@example.com", Action: "create", TargetType: "sandbox", TargetID: "box", Status: 200, Metadata: map[string]string{"tool": "sandbox_create"},
	}}}, nil
}

// Without a depth, all of a tree is shown.
func TestTreesAreWhole(t *testing.T) {
	b := newBench(t, tools.Options{})
	r := recorded(b)
	var asked []string
	r.answer = func(req *http.Request) (*http.Response, error) {
		asked = append(asked, req.URL.Query().Get("maxDepth"))
		body := `{"root":{"id":"r","role":"frame","name":"main","children":[{"id":"c","role":"button","name":"OK"}]}}`
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
	wantParts(t, b.ok("sandbox_ui", `{"id":"box","op":"tree"}`), "2 nodes\nframe \"main\"  r\n button \"OK\"  c")
	b.ok("computer_use_accessibility_tree", `{"id":"box"}`)
	b.ok("computer_use_accessibility_tree", `{"id":"box","max_depth":0}`)
	if !slices.Equal(asked, []string{"-1", "-1", "0"}) {
		t.Errorf("asked for depths %v, want all, all and the root", asked)
	}
	wantParts(t, b.fails("computer_use_accessibility_tree", `{"id":"box","max_depth":-5}`), `"max_depth"`)
}

// with replaces the bench's tools by those over another backend.
func (b *bench) with(change func(*tools.Backend)) {
	services := b.backend.Services()
	change(&services)
	kit := tools.New(services, tools.Options{})
	b.t.Cleanup(func() { kit.Close(context.WithoutCancel(b.t.Context())) })
	for _, tool := range kit.Tools() {
		b.tools[tool.Name] = tool
	}
}

func TestEgress(t *testing.T) {
	b := newBench(t, tools.Options{})
	b.ok("sandbox_create", `{"name":"tight","network":"allowlist","allow_hosts":["*.example.com","203.0.113.7"]}`)
	b.ok("sandbox_create", `{"name":"shut","network":"none"}`)
	b.with(func(s *tools.Backend) {
		s.Policy = egress.FromNetwork
		s.Activity = ledger{items: []engine.ActivityRecord{
			{Kind: engine.ActivityDNS, Host: "evil.test", Verdict: "deny", Rule: "egress/default"},
			{Kind: engine.ActivityDNS, Host: "evil.test", Verdict: "deny", Rule: "egress/default"},
			{Kind: engine.ActivityDNS, Host: "a.example.com", Verdict: "allow"},
			{Kind: engine.ActivityDeny, Remote: "192.0.2.9:22", Rule: "egress/default"},
		}}
	})
	wantParts(t, b.ok("sandbox_egress", `{"id":"box"}`), "may reach the whole internet")
	wantParts(t, b.ok("sandbox_egress", `{"id":"shut"}`), "may reach nothing")
	got := b.ok("sandbox_egress", `{"id":"tight"}`)
	wantParts(t, got, "only what a rule allows", "*.example.com (ports 80 and 443)", "203.0.113.7/32", `"evil.test" by egress/default ×2`, `"192.0.2.9:22"`, "Ask your user")
	if strings.Contains(got, `"a.example.com"`) {
		t.Errorf("what was allowed is listed as denied: %s", got)
	}
	wantPrefix(t, b.ok("sandbox_egress", `{"id":"tight","host":"a.example.com"}`), "a.example.com, port 443: allowed")
	wantParts(t, b.ok("sandbox_egress", `{"id":"tight","host":"a.example.com","port":22}`), "port 22: denied", "Ask your user")
	wantParts(t, b.ok("sandbox_egress", `{"id":"tight","host":"example.org"}`), "denied", "egress/default")
	wantParts(t, b.ok("sandbox_egress", `{"id":"box","host":"10.0.0.1"}`), "denied", "private network")
	wantParts(t, b.ok("sandbox_egress", `{"id":"box","host":"169.254.169.254"}`), "denied", "blocked/metadata")
	wantParts(t, b.fails("sandbox_egress", `{"id":"box","host":"https://example.com/x"}`), `"host"`, "without scheme")
	wantParts(t, b.fails("sandbox_egress", `{"id":"box","port":443}`), `"port" needs "host"`)
}

func TestAccount(t *testing.T) {
	b := newBench(t, tools.Options{})
	o := &office{}
	b.with(func(s *tools.Backend) { s.Keys, s.Usage, s.Audit = o, o, o })
	as := func(about string, p engine.Principal) tools.Result {
		return b.tools["account_info"].Call(t.Context(), tools.Args{Organization: "org", Principal: p, Values: map[string]any{"about": about}})
	}
	all := engine.Principal{OrganizationID: "org", UserID: "u", Permissions: engine.Permissions()}
	wantParts(t, as("usage", all).Text, "Region local", "3 of 8 cpu", "2 GiB memory", "Snapshots: 2")
	wantParts(t, as("keys", all).Text, "1 keys", `"ci"  atl_ab…yz  write:sandboxes`)
	wantParts(t, as("audit", all).Text, `1 of 51 entries, newest first; more with "cursor":"n"`, "a@example.com  create sandbox", "sandbox_create")
	if len(o.asked) != 1 || o.asked[0].UserID != "u" {
		t.Errorf("asked as %+v, want the caller", o.asked)
	}
	few := engine.Principal{OrganizationID: "org", Permissions: []string{engine.WriteSandboxes}}
	for _, about := range []string{"usage", "audit"} {
		if r := as(about, few); !r.IsError || !strings.Contains(r.Text, "lacks the permission") {
			t.Errorf("%s without the permission: %q", about, r.Text)
		}
	}
	wantParts(t, b.fails("snapshot_delete", `{"name":"nope"}`), `"name" "nope"`, "sandbox_snapshot")
	wantParts(t, newBench(t, tools.Options{}).fails("account_info", `{"about":"keys"}`), "does not offer")
}

func TestDesktop(t *testing.T) {
	for _, program := range []string{"Xvfb", "x11vnc"} {
		requires(t, program)
	}
	b := newBench(t, tools.Options{})
	wantParts(t, b.fails("sandbox_screenshot", `{"id":"box"}`), "not started", `sandbox_ui {"id":"box","op":"start"}`)
	wantParts(t, b.fails("computer_use_screenshot", `{"id":"box"}`), "not started", `computer_use_start {"id":"box"}`)
	wantParts(t, b.ok("sandbox_ui", `{"id":"box","op":"start"}`), "The desktop runs", "pixels")
	t.Cleanup(func() { b.call(context.WithoutCancel(t.Context()), "sandbox_ui", `{"id":"box","op":"stop"}`) })
	shows := func(tool, args, mime string) {
		t.Helper()
		r := b.call(t.Context(), tool, args)
		if r.IsError || len(r.Images) != 1 || r.Images[0].MIME != mime || r.Images[0].Base64 == "" {
			t.Errorf("%s %s: %q with %d images, want one of %s", tool, args, r.Text, len(r.Images), mime)
		}
	}
	shows("sandbox_screenshot", `{"id":"box"}`, "image/png")
	shows("sandbox_screenshot", `{"id":"box","region":[0,0,100,50],"scale":0.5}`, "image/png")
	shows("sandbox_input", `{"id":"box","action":"move","x":30,"y":40}`, "image/png")
	shows("sandbox_input", `{"id":"box","action":"click"}`, "image/png")
	shows("sandbox_input", `{"id":"box","action":"key","text":"ctrl+a"}`, "image/png")
	shows("sandbox_input", `{"id":"box","action":"scroll","amount":-2}`, "image/png")
	wantParts(t, b.ok("computer_use_mouse_position", `{"id":"box"}`), "30,40")
	wantParts(t, b.ok("computer_use_mouse_move", `{"id":"box","x":50.4,"y":60}`), "50,60")
	wantParts(t, b.ok("computer_use_mouse_click", `{"id":"box","x":5,"y":6,"button":"right"}`), "5,6")
	b.ok("computer_use_mouse_drag", `{"id":"box","start_x":5,"start_y":6,"end_x":50,"end_y":60}`)
	b.ok("computer_use_mouse_scroll", `{"id":"box","x":5,"y":6,"direction":"down"}`)
	b.ok("computer_use_keyboard_type", `{"id":"box","text":"hi"}`)
	b.ok("computer_use_keyboard_press", `{"id":"box","key":"a","modifiers":["shift"]}`)
	b.ok("computer_use_keyboard_hotkey", `{"id":"box","keys":"ctrl+c"}`)
	wantParts(t, b.ok("computer_use_display_info", `{"id":"box"}`), "Display")
	wantParts(t, b.ok("computer_use_windows", `{"id":"box"}`), "windows")
	wantParts(t, b.ok("computer_use_status", `{"id":"box"}`), "The desktop is ")
	shows("computer_use_screenshot", `{"id":"box","show_cursor":true}`, "image/png")
	shows("computer_use_screenshot_compressed", `{"id":"box","format":"jpeg","quality":40,"scale":0.5}`, "image/jpeg")
	shows("computer_use_screenshot_region", `{"id":"box","x":0,"y":0,"width":64,"height":64}`, "image/png")
	shows("computer_use_screenshot_compressed_region", `{"id":"box","x":0,"y":0,"width":64,"height":64,"format":"jpeg"}`, "image/jpeg")
	if _, err := exec.LookPath("ffmpeg"); err == nil {
		wantParts(t, b.ok("computer_use_recording_start", `{"id":"box","label":"demo"}`), "Recording ")
		wantParts(t, b.ok("sandbox_ui", `{"id":"box","op":"stop_recording"}`), "Stopped.", "demo")
		wantPrefix(t, b.ok("computer_use_recording_list", `{"id":"box"}`), "1 recordings")
	}
	wantParts(t, b.fails("computer_use_recording_get", `{"id":"box","recording_id":"nope"}`), `"recording_id" "nope"`, "computer_use_recording_list")
	wantParts(t, b.fails("sandbox_input", `{"id":"box","action":"key","text":"nokey"}`), "nokey")
	wantPrefix(t, b.ok("computer_use_stop", `{"id":"box"}`), "The desktop is stopped.")
}
