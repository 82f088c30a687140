package toolbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func TestExecute(t *testing.T) {
	b := open(t)
	long := "echo " + strings.Repeat("x", 1<<20-20) + " | wc -c"
	tests := []struct {
		name string
		in   wire.ExecuteRequest
		want wire.ExecuteResponse
	}{
		{"merged output", wire.ExecuteRequest{Command: "echo a; echo b >&2; echo c"}, wire.ExecuteResponse{Result: "a\nb\nc\n"}},
		{"split output", wire.ExecuteRequest{Command: "echo a; echo b >&2", Split: true}, wire.ExecuteResponse{Stdout: "a\n", Stderr: "b\n"}},
		{"exit code", wire.ExecuteRequest{Command: "exit 7"}, wire.ExecuteResponse{ExitCode: 7}},
		{"signal", wire.ExecuteRequest{Command: "kill -TERM $$"}, wire.ExecuteResponse{ExitCode: 143}},
		{"pipe and quotes", wire.ExecuteRequest{Command: "printf '%s\\n' \"b c\" a | sort && echo ok"}, wire.ExecuteResponse{Result: "a\nb c\nok\n"}},
		{"many lines", wire.ExecuteRequest{Command: "for i in 1 2; do\n echo $i\ndone\n"}, wire.ExecuteResponse{Result: "1\n2\n"}},
		{"stdin", wire.ExecuteRequest{Command: "cat", Stdin: "in\x01put"}, wire.ExecuteResponse{Result: "in\x01put"}},
		{"no stdin", wire.ExecuteRequest{Command: "cat; echo end"}, wire.ExecuteResponse{Result: "end\n"}},
		{"stdin unread", wire.ExecuteRequest{Command: "true", Stdin: strings.Repeat("y", 1<<20)}, wire.ExecuteResponse{}},
		{"env", wire.ExecuteRequest{Command: "echo $A $FROM_IMAGE", Envs: map[string]string{"A": "x y"}}, wire.ExecuteResponse{Result: "x y 1\n"}},
		{"cwd", wire.ExecuteRequest{Command: "pwd", Cwd: "/usr/lib/../bin"}, wire.ExecuteResponse{Result: "/usr/bin\n"}},
		{"work directory", wire.ExecuteRequest{Command: "pwd"}, wire.ExecuteResponse{Result: b.dir + "\n"}},
		{"default user", wire.ExecuteRequest{Command: "id -u; id -G; echo $HOME $USER $LOGNAME"}, wire.ExecuteResponse{Result: "41234\n41235 41236\n" + b.dir + " dev dev\n"}},
		{"other user", wire.ExecuteRequest{Command: "id -u; id -g; echo $HOME", User: "root"}, wire.ExecuteResponse{Result: "0\n0\n/root\n"}},
		{"user by number", wire.ExecuteRequest{Command: "id -u; id -g", User: "555:extra"}, wire.ExecuteResponse{Result: "555\n41236\n"}},
		{"background child holds the output", wire.ExecuteRequest{Command: "sleep 300 & echo bg"}, wire.ExecuteResponse{Result: "bg\n"}},
		{"cwd missing", wire.ExecuteRequest{Command: "pwd", Cwd: "/no/such"}, wire.ExecuteResponse{ExitCode: -1, Result: "cannot use cwd /no/such: the directory does not exist"}},
		{"cwd a file", wire.ExecuteRequest{Command: "pwd", Cwd: "/etc/passwd"}, wire.ExecuteResponse{ExitCode: -1, Result: "cannot use cwd /etc/passwd: it is not a directory"}},
		{"1 MiB of command", wire.ExecuteRequest{Command: long}, wire.ExecuteResponse{Result: fmt.Sprintln(len(long) - len("echo  | wc -c") + 1)}},
		{"long command keeps no file", wire.ExecuteRequest{Command: "[ -e /proc/$$/fd/3 ]; echo $? #" + strings.Repeat("x", 200<<10)}, wire.ExecuteResponse{Result: "1\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := b.Execute(t.Context(), tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if tt.in.Split {
				got.Result = "" // its order is that of arrival
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(got, "DurationMs")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestExecuteRefuses(t *testing.T) {
	b := open(t)
	tests := []struct {
		name string
		in   wire.ExecuteRequest
		want string
	}{
		{"empty", wire.ExecuteRequest{}, "command: it is empty"},
		{"blank", wire.ExecuteRequest{Command: " \n"}, "command: it is blank"},
		{"NUL", wire.ExecuteRequest{Command: "echo \x00"}, "NUL byte at offset 5"},
		{"too long", wire.ExecuteRequest{Command: strings.Repeat("a", 1<<20+1)}, "limit is 1 MiB"},
		{"NUL in cwd", wire.ExecuteRequest{Command: "ls", Cwd: "/\x00"}, "cwd: it holds a NUL"},
		{"env name", wire.ExecuteRequest{Command: "ls", Envs: map[string]string{"1A": ""}}, `envs: "1A"`},
		{"env value", wire.ExecuteRequest{Command: "ls", Envs: map[string]string{"A": "\x00"}}, "value of A holds a NUL"},
		{"env size", wire.ExecuteRequest{Command: "ls", Envs: map[string]string{"A": strings.Repeat("a", 1<<17)}}, "longer than 128 KiB"},
		{"user", wire.ExecuteRequest{Command: "ls", User: "nobody-here"}, `no user "nobody-here"`},
		{"group", wire.ExecuteRequest{Command: "ls", User: "dev:nope"}, `no group "nope"`},
		{"timeout", wire.ExecuteRequest{Command: "ls", Timeout: -1}, "timeout: -1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := b.Execute(t.Context(), tt.in)
			wantError(t, err, 400, wire.CodeBadRequest, tt.want)
		})
	}
	for body, want := range map[string]string{
		"":                         "the body is empty",
		"{":                        "not valid JSON",
		`{"command":1}`:            "command: it must be a string, not number",
		`{"command":"a","envs":1}`: "envs: it must be an object",
		`[]`:                       "the body: it must be an object",
	} {
		status, _, got := b.send("POST", "/process/execute", strings.NewReader(body))
		if status != 400 || !strings.Contains(got, want) || !strings.Contains(got, `"code":"INVALID_REQUEST_BODY"`) || !strings.Contains(got, `"source":"DAYTONA_DAEMON"`) {
			t.Errorf("%q: got %d %s, want %q", body, status, got, want)
		}
	}
}

// TestExecuteTimeout kills what can be traced and keeps what was printed.
func TestExecuteTimeout(t *testing.T) {
	b := open(t)
	marker := b.dir + "/pids"
	_, err := b.Execute(t.Context(), wire.ExecuteRequest{
		Command: "echo before; echo warn >&2; sleep 301 & echo $! >>" + marker + "; setsid sleep 302 & echo $! >>" + marker + "; (sleep 303) ; echo never",
		Timeout: 3, Split: true, // enough for a busy machine to come to the last sleep
	})
	wantError(t, err, 408, wire.CodeExecTimeout, "timeout of 3 s")
	var e *wire.Error
	errors.As(err, &e)
	if e.Partial == nil || e.Partial.Stdout != "before\n" || e.Partial.Stderr != "warn\n" || !strings.Contains(e.Partial.Result, "before\n") || !e.Partial.TimedOut {
		t.Errorf("got partial output %+v", e.Partial)
	}
	wantDead(t, marker)
}

func wantDead(t *testing.T, marker string) {
	t.Helper()
	for pid := range strings.FieldsSeq(read(t, marker)) {
		eventually(t, "process "+pid+" to end", func() bool {
			b, err := os.ReadFile("/proc/" + pid + "/stat")
			return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(b), ") Z ")
		})
	}
}

// TestExecuteCallerGone ends the command when nobody waits for it any more.
func TestExecuteCallerGone(t *testing.T) {
	b := open(t)
	marker := b.dir + "/pids"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := b.Execute(ctx, wire.ExecuteRequest{Command: "echo $$ >" + marker + "; sleep 300"})
		done <- err
	}()
	eventually(t, "the command to start", func() bool { i, err := os.Stat(marker); return err == nil && i.Size() > 0 })
	s, err := b.Status(t.Context())
	if err != nil || s.Busy != 1 {
		t.Errorf("got busy %d, %v, want 1", s.Busy, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	wantDead(t, marker)
	eventually(t, "the toolbox to be idle", func() bool { s, _ := b.Status(t.Context()); return s.Busy == 0 })
}

// TestExecuteHugeOutput keeps both ends of what no answer can hold.
func TestExecuteHugeOutput(t *testing.T) {
	b := open(t)
	got, err := b.Execute(t.Context(), wire.ExecuteRequest{Command: "echo first; head -c 40000000 /dev/zero | tr '\\0' x; echo; echo last"})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Truncated || len(got.Result) > 17<<20 || !strings.HasPrefix(got.Result, "first\n") || !strings.HasSuffix(got.Result, "\nlast\n") || !strings.Contains(got.Result, "bytes of output dropped") {
		t.Errorf("got truncated %v, %d bytes, %.20q", got.Truncated, len(got.Result), got.Result)
	}
}

// TestBackgroundServerLives checks that a process left behind survives its
// next line of output.
func TestBackgroundServerLives(t *testing.T) {
	b := open(t)
	b.run("(sleep 0.3; echo a; echo b; touch " + b.dir + "/alive) & echo started")
	eventually(t, "the background process to get on", func() bool { _, err := os.Stat(b.dir + "/alive"); return err == nil })
}

func TestConcurrentExecutes(t *testing.T) {
	b := open(t)
	errs := make(chan error, 40)
	for i := range cap(errs) {
		go func() {
			got, err := b.Execute(t.Context(), wire.ExecuteRequest{Command: fmt.Sprintf("echo %d; exit %d", i, i)})
			if err == nil && (got.ExitCode != i || got.Result != fmt.Sprintln(i)) {
				err = fmt.Errorf("command %d: got %+v", i, got)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestCodeRun(t *testing.T) {
	b := open(t)
	tests := []struct {
		name string
		in   wire.CodeRunRequest
		want wire.CodeRunResponse
	}{
		{"python", wire.CodeRunRequest{Language: "python", Code: "import sys,os\nprint(6*7, sys.argv[1:], os.environ['B'])", Argv: []string{"x"}, Envs: map[string]string{"B": "2"}}, wire.CodeRunResponse{Result: "42 ['x'] 2\n"}},
		{"python fails", wire.CodeRunRequest{Language: "python", Code: "raise SystemExit(3)"}, wire.CodeRunResponse{ExitCode: 3}},
		{"python traceback", wire.CodeRunRequest{Language: "python", Code: "def f():\n  1/0\nif __name__ == '__main__':\n  f()"}, wire.CodeRunResponse{ExitCode: 1, Result: "Traceback (most recent call last):\n  File \"<stdin>\", line 4, in <module>\n  File \"<stdin>\", line 2, in f\nZeroDivisionError: division by zero\n"}},
		{"python syntax", wire.CodeRunRequest{Language: "python", Code: "x = ="}, wire.CodeRunResponse{ExitCode: 1, Result: "  File \"<stdin>\", line 1\n    x = =\n        ^\nSyntaxError: invalid syntax\n"}},
		{"python names", wire.CodeRunRequest{Language: "python", Code: "import sys; print(sorted(n for n in dir() if n[0] != '_'), sys.argv, sys.stdin.read() == '')"}, wire.CodeRunResponse{Result: "['sys'] ['-'] True\n"}},
		{"python encoding", wire.CodeRunRequest{Language: "python", Code: "print('é')"}, wire.CodeRunResponse{Result: "é\n"}},
		{"typescript", wire.CodeRunRequest{Language: "typescript", Code: "import * as os from 'os';\nenum E { A = 7 }\nconst f = (n: number): string => `${n * E.A}`;\nconsole.log(f(6), typeof os.cpus, process.argv.slice(2), process.env.B);\nprocess.exitCode = 3", Argv: []string{"x", "--y"}, Envs: map[string]string{"B": "2"}}, wire.CodeRunResponse{ExitCode: 3, Result: "42 function [ 'x', '--y' ] 2\n"}},
		{"javascript", wire.CodeRunRequest{Language: "javascript", Code: "console.log(6*7, process.argv.slice(2))", Argv: []string{"x"}}, wire.CodeRunResponse{Result: "42 [ 'x' ]\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Artifacts.Charts = []wire.Chart{}
			tb := open(t, func(c *Config) { c.User = "root" }) // interpreters may live below /root here
			got, err := tb.CodeRun(t.Context(), tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	_, err := b.CodeRun(t.Context(), wire.CodeRunRequest{Language: "cobol", Code: "x"})
	wantError(t, err, 400, wire.CodeBadRequest, `language: "cobol"`)
}

// TestStream runs commands over the WebSocket that the CLI uses.
func TestStream(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	tests := []struct {
		name           string
		in             wire.ExecStart
		stdin          string
		stdout, stderr string
		code           int
	}{
		{"argv", wire.ExecStart{Argv: []string{"sh", "-c", "cat; echo e >&2; exit 4"}}, "input", "input", "e\n", 4},
		{"command", wire.ExecStart{Command: "wc -c"}, strings.Repeat("z", 1<<20), "1048576\n", "", 0},
		{"not found", wire.ExecStart{Argv: []string{"no-such-program"}}, "", "", "no-such-program: command not found\n", 127},
		{"not executable", wire.ExecStart{Argv: []string{"/etc/passwd"}}, "", "", "/etc/passwd: permission denied\n", 126},
		{"terminal", wire.ExecStart{Command: "stty size; test -t 0 && echo tty", TTY: true, Cols: 100, Rows: 30}, "", "30 100\r\ntty\r\n", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := b.Stream(ctx, tt.in)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			go func() {
				if err := s.Write(ctx, []byte(tt.stdin)); err == nil && !tt.in.TTY {
					_ = s.CloseInput(ctx)
				}
			}()
			var stdout, stderr strings.Builder
			end, err := s.Wait(ctx, &stdout, &stderr)
			if err != nil {
				t.Fatal(err)
			}
			if stdout.String() != tt.stdout || stderr.String() != tt.stderr || end.ExitCode != tt.code {
				t.Errorf("got %q %q %d, want %q %q %d", stdout.String(), stderr.String(), end.ExitCode, tt.stdout, tt.stderr, tt.code)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		s, err := b.Stream(ctx, wire.ExecStart{Command: "ls", User: "nope"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Wait(ctx, &strings.Builder{}, &strings.Builder{})
		wantError(t, err, 400, wire.CodeBadRequest, `no user "nope"`)
	})
	t.Run("signal", func(t *testing.T) {
		s, err := b.Stream(ctx, wire.ExecStart{Command: "trap 'echo int; exit 9' INT; echo ready; while :; do sleep 0.05; done"})
		if err != nil {
			t.Fatal(err)
		}
		var out notifier
		out.on, out.c = "ready", make(chan struct{})
		go func() { <-out.c; _ = s.Control(ctx, wire.ExecControl{Type: "signal", Signal: "SIGINT"}) }()
		end, err := s.Wait(ctx, &out, &out)
		if err != nil || end.ExitCode != 9 || !strings.Contains(out.b.String(), "int\n") {
			t.Errorf("got %+v %v %q", end, err, out.b.String())
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		marker := b.dir + "/streampid"
		s, err := b.Stream(ctx, wire.ExecStart{Command: "echo $$ >" + marker + "; echo ready; sleep 300"})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the command to start", func() bool { i, err := os.Stat(marker); return err == nil && i.Size() > 0 })
		s.Close()
		wantDead(t, marker)
	})
}

// notifier closes c once its output holds on.
type notifier struct {
	b  strings.Builder
	on string
	c  chan struct{}
}

func (n *notifier) Write(p []byte) (int, error) {
	had := strings.Contains(n.b.String(), n.on)
	n.b.Write(p)
	if !had && strings.Contains(n.b.String(), n.on) {
		close(n.c)
	}
	return len(p), nil
}

func TestEnv(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	if err := b.SetEnv(ctx, wire.UpdateEnv{Set: map[string]string{"A": "1", "S1": "ph:x", "S2": "ph:y"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.SetEnv(ctx, wire.UpdateEnv{Set: map[string]string{"S2": "ph:z"}, Unset: []string{"FROM_IMAGE"}, UnsetValuePrefix: "ph:"}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.run("echo $A,$S1,$S2,$FROM_IMAGE"), "1,,ph:z,\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	wantError(t, b.SetEnv(ctx, wire.UpdateEnv{Set: map[string]string{"A B": ""}}), 400, wire.CodeBadRequest, "set:")
}

func TestStatusAndIdentity(t *testing.T) {
	b := open(t, func(c *Config) { c.User = "ghost" })
	ctx := t.Context()
	s, err := b.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s.User != "root" || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "ghost") {
		t.Errorf("got user %q, warnings %q, want root and one about ghost", s.User, s.Warnings)
	}
	write(t, b.etc+"/hosts", "127.0.0.1 localhost\n10.1.1.1 mine\n127.0.1.1 old # set by atoll\n")
	id := wire.Identity{
		SandboxID: "x", Hostname: "box-1", Env: map[string]string{"LATE": "yes"}, User: "dev", WorkDir: b.dir + "/late",
		Entrypoint: []string{"sh", "-c", "echo $LATE; id -u; exit 5"},
	}
	for range 2 { // a repeated call does no harm
		if err := b.SetIdentity(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := b.run("echo $LATE; pwd; id -u; stat -c %u ."), "yes\n"+b.dir+"/late\n41234\n41234\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := read(t, b.etc+"/hosts"), "127.0.0.1 localhost\n10.1.1.1 mine\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 box-1 # set by atoll\n"; got != want {
		t.Errorf("hosts: got %q, want %q", got, want)
	}
	if got := read(t, b.etc+"/hostname"); got != "box-1\n" {
		t.Errorf("hostname: got %q", got)
	}
	var out strings.Builder
	if err := b.Follow(ctx, "entrypoint", "", &out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "\x01\x01\x01yes\n41234\n"; got != want {
		t.Errorf("entrypoint: got %q, want %q", got, want)
	}
	ses, err := b.Session(ctx, "entrypoint")
	if err != nil || len(ses.Commands) != 1 || ses.Commands[0].ExitCode == nil || *ses.Commands[0].ExitCode != 5 {
		t.Errorf("got %+v, %v, want exit code 5", ses, err)
	}
	wantError(t, b.SetIdentity(ctx, wire.Identity{Hostname: "a\nb"}), 400, wire.CodeBadRequest, "hostname:")
	s, err = b.Status(ctx)
	if err != nil || s.User != "dev" || len(s.Warnings) != 0 || time.Since(s.LastActivity) > time.Minute {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestOtherOperations(t *testing.T) {
	b := open(t)
	for path, want := range map[string]string{
		"/version":                     `{"version":"test"}`,
		"/work-dir":                    `{"dir":"` + b.dir + `"}`,
		"/user-home-dir":               `{"dir":"` + b.dir + `"}`,
		"/git/status?path=x":           `"code":"GIT_REPO_NOT_FOUND"`,
		"/computeruse/status":          `{"status":"inactive"}`,
		"/process/interpreter/context": `{"contexts":[]}`,
		"/nope":                        `"code":"NOT_FOUND"`,
		"/port/0/in-use":               "use 1 to 65535",
		"/port/1/in-use":               `{"isInUse":false}`,
	} {
		if _, _, got := b.send("GET", path, nil); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	m, err := b.Metrics(t.Context())
	if err != nil || m.CPUCount < 1 || m.MemTotal <= 0 || m.MemUsed <= 0 || m.DiskTotal <= 0 || m.TimestampUnix == 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}
