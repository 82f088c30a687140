package toolbox

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/session"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// exec runs a command in a session and waits for it.
func (b *box) exec(id, command string) wire.SessionExecuted {
	b.t.Helper()
	got, err := b.Exec(b.t.Context(), id, wire.SessionExecute{Command: command})
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	if got.ExitCode == nil || got.Output == nil || got.Stdout == nil || got.Stderr == nil {
		b.t.Fatalf("%s: got %+v, want all fields", command, got)
	}
	return got
}

func (b *box) session(id string) {
	b.t.Helper()
	if err := b.StartSession(b.t.Context(), id); err != nil {
		b.t.Fatal(err)
	}
}

// TestSessionCommands runs the commands in two shells, because each parses the
// framing in its own way.
func TestSessionCommands(t *testing.T) {
	steps := []struct {
		command        string
		stdout, stderr string // stderr: a part of it
		code           int
	}{
		{"cd /usr; X=1; export Y=2; f() { echo fn $1; }", "", "", 0},
		{"pwd; echo $X $Y; f 3", "/usr\n1 2\nfn 3\n", "", 0},
		{"echo out; echo err >&2", "out\n", "err", 0},
		{"false", "", "", 1},
		{"if", "", "", -1}, // a syntax error; the session must survive it
		{"echo 'it'\\''s' \"quoted\"", "it's quoted\n", "", 0},
		{"cat <<EOF\nline $Y\nEOF\n", "line 2\n", "", 0},
		{"cat; echo end", "end\n", "", 0}, // stdin is empty
		{"(exit 42)", "", "", 42},
		{"PATH=/usr/bin; no-such-command", "", "not found", 127},
		{"sleep 300 & echo bg", "bg\n", "", 0},
		{"# only a comment", "", "", 0},
		{"printf 'no newline'", "no newline", "", 0},
		{"echo still here", "still here\n", "", 0},
	}
	for _, sh := range []string{"bash", "dash"} {
		t.Run(sh, func(t *testing.T) {
			b := open(t, func(c *Config) { c.Env["SHELL"] = "/bin/" + sh })
			write(t, b.etc+"/shells", "")
			b.session("s")
			for _, s := range steps {
				got := b.exec("s", s.command)
				if *got.Stdout != s.stdout || !strings.Contains(*got.Stderr, s.stderr) {
					t.Errorf("%s: got %q %q, want %q %q", s.command, *got.Stdout, *got.Stderr, s.stdout, s.stderr)
				}
				if s.code >= 0 && *got.ExitCode != s.code || s.code < 0 && *got.ExitCode == 0 {
					t.Errorf("%s: got code %d, want %d", s.command, *got.ExitCode, s.code)
				}
			}
		})
	}
}

func TestSessionLifecycle(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.session("s")
	wantError(t, b.StartSession(ctx, "s"), 409, wire.CodeConflict, `"s" exists`)
	wantError(t, b.StartSession(ctx, "entrypoint"), 400, wire.CodeBadRequest, "reserved")
	wantError(t, b.StartSession(ctx, ""), 400, wire.CodeBadRequest, "sessionId: it is empty")
	_, err := b.Exec(ctx, "s", wire.SessionExecute{})
	wantError(t, err, 400, wire.CodeBadRequest, "command: it is empty")
	_, err = b.Exec(ctx, "none", wire.SessionExecute{Command: "ls"})
	wantError(t, err, 404, wire.CodeNotFound, `"none"`)
	_, err = b.Session(ctx, "entrypoint")
	wantError(t, err, 404, wire.CodeNotFound, "no entrypoint")

	done := b.exec("s", "echo one")
	_, err = b.Command(ctx, "s", "nope")
	wantError(t, err, 404, wire.CodeProcessNotFound, "nope")
	wantError(t, b.Input(ctx, "s", done.CmdID, "x"), 410, wire.CodeCommandCompleted, "has ended")

	list, err := b.Sessions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	want := []wire.Session{{SessionID: "s", Commands: []wire.Command{{ID: done.CmdID, Command: "echo one", ExitCode: &zero}}}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	if got := b.exec("s", "echo bye; exit 3"); *got.ExitCode != 3 || *got.Stdout != "bye\n" {
		t.Errorf("exit: got %+v", got)
	}
	eventually(t, "the session to end", func() bool {
		_, err = b.Exec(ctx, "s", wire.SessionExecute{Command: "ls"})
		return err != nil
	})
	wantError(t, err, 410, wire.CodeSessionEnded, "has exited")
	if err := b.EndSession(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	wantError(t, b.EndSession(ctx, "s"), 404, wire.CodeNotFound, `"s"`)
	b.session("s") // the name is free again
}

func TestSessionAsync(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.session("s")
	c, err := b.Exec(ctx, "s", wire.SessionExecute{Command: "echo ready; read a; read b; echo got $a $b; echo bad >&2; exit_code() { return 6; }; exit_code", RunAsync: true})
	if err != nil || c.ExitCode != nil || c.Output != nil {
		t.Fatalf("got %+v, %v, want only the id", c, err)
	}
	eventually(t, "the command to print", func() bool {
		l, _, err := b.Logs(ctx, "s", c.CmdID, 0, 0)
		return err == nil && l.Stdout == "ready\n"
	})
	if cmd, err := b.Command(ctx, "s", c.CmdID); err != nil || cmd.ExitCode != nil {
		t.Errorf("got %+v, %v, want no exit code yet", cmd, err)
	}
	for _, line := range []string{"x", "y"} {
		if err := b.Input(ctx, "s", c.CmdID, line); err != nil {
			t.Fatal(err)
		}
	}
	var stream strings.Builder
	if err := b.Follow(ctx, "s", c.CmdID, &stream); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := session.Split([]byte(stream.String()), session.Stdout)
	if string(stderr) != "bad\n" || !strings.HasPrefix(string(stdout), "ready\nx\n") || !strings.Contains(string(stdout), "got x y\n") {
		t.Errorf("got %q", stream.String())
	}
	if cmd, err := b.Command(ctx, "s", c.CmdID); err != nil || cmd.ExitCode == nil || *cmd.ExitCode != 6 {
		t.Errorf("got %+v, %v, want 6", cmd, err)
	}
	quiet, err := b.Exec(ctx, "s", wire.SessionExecute{Command: "read a; echo $a", Async: true, SuppressInputEcho: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Input(ctx, "s", quiet.CmdID, "z"); err != nil {
		t.Fatalf("input at once: %v", err)
	}
	if err := b.Follow(ctx, "s", quiet.CmdID, &stream); err != nil {
		t.Fatal(err)
	}
	if l, _, err := b.Logs(ctx, "s", quiet.CmdID, 0, 0); err != nil || l.Stdout != "z\n" {
		t.Errorf("got %+v, %v", l, err)
	}
}

// TestSessionInputEarly sends input to a command that waits for another.
func TestSessionInputEarly(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.session("s")
	first, err := b.Exec(ctx, "s", wire.SessionExecute{Command: "read go", RunAsync: true})
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Exec(ctx, "s", wire.SessionExecute{Command: "read a; read b; echo got $a $b", RunAsync: true, SuppressInputEcho: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"x", "y"} {
		if err := b.Input(ctx, "s", second.CmdID, line); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, b.Input(ctx, "s", second.CmdID, strings.Repeat("x", 40<<10)), 409, wire.CodeConflict, "has not started")
	if err := b.Input(ctx, "s", first.CmdID, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Follow(ctx, "s", second.CmdID, io.Discard); err != nil {
		t.Fatal(err)
	}
	if l, _, err := b.Logs(ctx, "s", second.CmdID, 0, 0); err != nil || l.Stdout != "got x y\n" {
		t.Errorf("got %+v, %v", l, err)
	}
}

// TestSessionLogFormats checks what each kind of client gets.
func TestSessionLogFormats(t *testing.T) {
	b := open(t)
	b.session("s")
	c := b.exec("s", "echo a; sleep 0.05; echo b >&2")
	logs := "/process/session/s/command/" + c.CmdID + "/logs"
	split := `{"output":"\u0001\u0001\u0001a\n\u0002\u0002\u0002b\n","stdout":"a\n","stderr":"b\n"}`
	tests := []struct {
		header []string
		query  string
		want   string
	}{
		{nil, "", "a\nb\n"},
		{[]string{"X-Daytona-Split-Output", "true"}, "", split},
		{[]string{"X-Daytona-SDK-Version", "0.167.0"}, "", split},
		{[]string{"X-Daytona-SDK-Version", "v0.218.0"}, "", split},
		{[]string{"X-Daytona-SDK-Version", "0.0.0-dev"}, "", split},
		{[]string{"X-Daytona-SDK-Version", "0.166.9"}, "", "\x01\x01\x01a\n\x02\x02\x02b\n"},
		{nil, "?follow=true", "\x01\x01\x01a\n\x02\x02\x02b\n"},
		{nil, "?offset=5&limit=4", `{"output":"\u0002\u0002\u0002b","stdout":"","stderr":"b"}`},
		{nil, "?offset=8", `{"output":"b\n","stdout":"","stderr":"b\n"}`},
		{nil, "?offset=-2", `{"output":"b\n","stdout":"","stderr":"b\n"}`},
		{nil, "?offset=99", `{"output":"","stdout":"","stderr":""}`},
		{nil, "?offset=x", "offset:"},
		{nil, "?follow=maybe", "follow:"},
	}
	for _, tt := range tests {
		if _, _, got := b.send("GET", logs+tt.query, nil, tt.header...); got != tt.want && (!strings.HasSuffix(tt.want, ":") || !strings.Contains(got, tt.want)) {
			t.Errorf("%v %s: got %q, want %q", tt.header, tt.query, got, tt.want)
		}
	}
	if _, h, _ := b.send("GET", logs+"?offset=0", nil); h.Get(wire.OffsetHeader) != "10" {
		t.Errorf("got offset %q, want 10", h.Get(wire.OffsetHeader))
	}
}

// TestSessionDelete ends what a session runs, also in the background.
func TestSessionDelete(t *testing.T) {
	b := open(t)
	b.session("s")
	marker := b.dir + "/pids"
	b.exec("s", "sleep 300 & echo $! >"+marker+"; setsid sleep 300 & echo $! >>"+marker)
	if _, err := b.Exec(t.Context(), "s", wire.SessionExecute{Command: "echo $$ >>" + marker + "; echo up; sleep 300", RunAsync: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command to start", func() bool { return strings.Count(read(t, marker), "\n") == 3 })
	if err := b.EndSession(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	wantDead(t, marker)
}

// TestSessionLateOutput keeps what a background process prints after its
// command has ended.
func TestSessionLateOutput(t *testing.T) {
	b := open(t)
	b.session("s")
	c := b.exec("s", "(sleep 0.2; echo late) & echo now")
	eventually(t, "late output", func() bool {
		l, _, err := b.Logs(t.Context(), "s", c.CmdID, 0, 0)
		return err == nil && l.Stdout == "now\nlate\n"
	})
}

// TestSessionPages reads a long log in pieces from both channels.
func TestSessionPages(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.session("s")
	c := b.exec("s", "seq 1 60000; echo warn >&2; printf 'caf\\303\\251 %.0s' $(seq 1 2000)")
	var stdout, stderr strings.Builder
	for at, n := int64(0), 0; ; n++ {
		l, next, err := b.Logs(ctx, "s", c.CmdID, at, 10_001)
		if err != nil {
			t.Fatal(err)
		}
		stdout.WriteString(l.Stdout)
		stderr.WriteString(l.Stderr)
		if next == at {
			break
		}
		if next < at || n > 1000 {
			t.Fatalf("offset went from %d to %d", at, next)
		}
		at = next
	}
	if stdout.String() != *c.Stdout || stderr.String() != "warn\n" || strings.Contains(stdout.String(), "\uFFFD") {
		t.Errorf("got %d and %d bytes, want %d and 5", stdout.Len(), stderr.Len(), len(*c.Stdout))
	}
}
