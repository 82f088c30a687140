package toolbox

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func TestPTY(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	p, err := b.CreatePTY(ctx, wire.PTYCreate{ID: "p", Cols: 100, Rows: 30, Cwd: "/usr", Envs: map[string]string{"FOO": "bar"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.CreatePTY(ctx, wire.PTYCreate{ID: "p"})
	wantError(t, err, 409, wire.CodeConflict, `"p" exists`)
	_, err = b.CreatePTY(ctx, wire.PTYCreate{ID: "q", Cols: 1001})
	wantError(t, err, 400, wire.CodeBadRequest, "1 to 1000")
	list, err := b.PTYs(ctx)
	if err != nil || len(list) != 1 || list[0].ID != "p" || list[0].Cols != 100 || !list[0].Active || list[0].Cwd != "/usr" || list[0].Envs["FOO"] != "bar" {
		t.Errorf("got %+v, %v", list, err)
	}
	if s, err := b.Status(ctx); err != nil || s.Busy != 1 {
		t.Errorf("got busy %d, %v, want 1", s.Busy, err)
	}
	if err := b.ResizePTY(ctx, "p", 120, 40); err != nil {
		t.Fatal(err)
	}
	wantError(t, b.ResizePTY(ctx, "none", 1, 1), 410, wire.CodeGone, "none")
	wantError(t, b.ResizePTY(ctx, "p", 0, 1), 400, wire.CodeBadRequest, "1 to 1000")
	other, err := b.ConnectPTY(ctx, "p") // a second client sees the same
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(ctx, []byte("stty size; echo $FOO-$TERM-$PWD; exit 3\n")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]func(*strings.Builder) (int, error){
		"first":  func(o *strings.Builder) (int, error) { return p.Copy(ctx, o) },
		"second": func(o *strings.Builder) (int, error) { return other.Copy(ctx, o) },
	} {
		var out strings.Builder
		code, err := c(&out)
		if err != nil || code != 3 || !strings.Contains(out.String(), "40 120\r\nbar-xterm-256color-/usr\r\n") {
			t.Errorf("%s: got %d, %v, %q", name, code, err, out.String())
		}
	}
	eventually(t, "the terminal to be forgotten", func() bool { l, err := b.PTYs(ctx); return err == nil && len(l) == 0 })
	_, err = b.ConnectPTY(ctx, "p")
	wantError(t, err, 404, wire.CodeNotFound, `"p"`)
	eventually(t, "the toolbox to be idle", func() bool { s, _ := b.Status(ctx); return s.Busy == 0 })
}

func TestPTYOverREST(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	status, _, got := b.send("POST", "/process/pty", b.json(wire.PTYCreate{ID: "lazy", LazyStart: true}))
	if status != 201 || got != `{"sessionId":"lazy"}` {
		t.Errorf("got %d %s", status, got)
	}
	if _, _, got := b.send("GET", "/process/pty/lazy", nil); !strings.Contains(got, `"active":false`) || !strings.Contains(got, `"cols":80`) || !strings.Contains(got, `"rows":24`) || !strings.Contains(got, `"envs":{}`) {
		t.Errorf("got %s", got)
	}
	p, err := b.ConnectPTY(ctx, "lazy")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	// What came while nobody watched is shown to the next client.
	p, err = b.ConnectPTY(ctx, "lazy")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.DeletePTY(ctx, "lazy"); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Copy(ctx, &strings.Builder{}); err != nil || code != 137 {
		t.Errorf("got %d, %v, want 137", code, err)
	}
	wantError(t, b.DeletePTY(ctx, "lazy"), 404, wire.CodeNotFound, "lazy")
}

// TestPTYProtocol checks the frames that published clients rely on.
func TestPTYProtocol(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	env := wire.PTYEnvsProtocol + base64.RawURLEncoding.EncodeToString([]byte(`{"FOO":"bar"}`))
	tests := []struct {
		name   string
		offer  []string
		choice string
		end    string // what is typed
		code   websocket.StatusCode
		reason string
	}{
		{"nothing offered", nil, "", "exit\n", 1000, `{"exitCode":0}`},
		{"exit control", []string{wire.PTYExitProtocol}, wire.PTYExitProtocol, "exit 7\n", 1011, `{"exitCode":7}`},
		{"env first", []string{env, wire.PTYExitProtocol}, env, "kill -9 $$\n", 1011, `{"exitCode":137,"exitReason":"killed by signal SIGKILL"}`},
		{"version in front", []string{"X-Daytona-SDK-Version~0.218.0", wire.PTYExitProtocol}, "X-Daytona-SDK-Version~0.218.0", "exit\n", 1000, `{"exitCode":0}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, _, err := websocket.Dial(ctx, "http://toolbox/process/pty/create-connect?cols=90&rows=20", &websocket.DialOptions{HTTPClient: b.http, Subprotocols: tt.offer})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			if conn.Subprotocol() != tt.choice {
				t.Errorf("got sub-protocol %q, want %q", conn.Subprotocol(), tt.choice)
			}
			kind, first, err := conn.Read(ctx)
			if err != nil || kind != websocket.MessageText || string(first) != `{"type":"control","status":"connected"}` {
				t.Fatalf("got %v %s %v", kind, first, err)
			}
			if err := conn.Write(ctx, websocket.MessageText, []byte(tt.end)); err != nil {
				t.Fatal(err)
			}
			exited := ""
			for err == nil {
				var m []byte
				if kind, m, err = conn.Read(ctx); err == nil && kind == websocket.MessageText {
					exited = string(m)
				}
			}
			var ce websocket.CloseError
			if !errors.As(err, &ce) || ce.Code != tt.code || ce.Reason != tt.reason {
				t.Errorf("got %v, want %d %s", err, tt.code, tt.reason)
			}
			want := ""
			if len(tt.offer) > 0 && tt.offer[len(tt.offer)-1] == wire.PTYExitProtocol {
				want = `{"type":"control","status":"exited",` + tt.reason[1:]
			}
			if exited != want {
				t.Errorf("got control %q, want %q", exited, want)
			}
		})
	}
	for query, want := range map[string]int{"id=a&cols=0": 400, "id=a&cols=x": 400, "id=a&rows=1001": 400, "id=create-connect": 400} {
		_, res, err := websocket.Dial(ctx, "http://toolbox/process/pty/create-connect?"+query, &websocket.DialOptions{HTTPClient: b.http})
		if err == nil || res == nil || res.StatusCode != want {
			t.Errorf("%s: got %v %v, want %d", query, res, err, want)
		}
	}
	if status, _, _ := b.send(http.MethodGet, "/process/pty/create-connect", nil); status != 400 {
		t.Errorf("no upgrade: got %d, want 400", status)
	}
	if l, err := b.PTYs(ctx); err != nil || len(l) != 0 {
		t.Errorf("refused calls left %v, %v", l, err)
	}
}

func FuzzPTYEnv(f *testing.F) {
	f.Add(wire.PTYEnvsProtocol + "eyJGT08iOiJiYXIifQ")
	f.Add(wire.PTYEnvsProtocol + "%%%")
	f.Fuzz(func(t *testing.T, p string) {
		env, err := ptyEnv([]string{p})
		if err == nil && env != nil {
			if _, err := json.Marshal(env); err != nil {
				t.Error(err)
			}
		}
	})
}

// A user may delete the work directory, and images need not have it.
func TestPTYWithoutWorkDirectory(t *testing.T) {
	b := open(t)
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	p, err := b.CreatePTY(t.Context(), wire.PTYCreate{ID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), []byte("echo dir=$PWD.; exit 3\n")); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if code, err := p.Copy(t.Context(), &out); code != 3 || err != nil || !strings.Contains(out.String(), "dir=/.") {
		t.Errorf("got %d, %v, %q, want 3 and /", code, err, out.String())
	}
}
