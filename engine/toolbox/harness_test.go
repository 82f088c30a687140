package toolbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// box is a toolbox on a real unix socket, not as PID 1.
type box struct {
	*client.Client
	t    *testing.T
	tb   *Toolbox
	http *http.Client
	dir  string // work directory
	etc  string
}

func open(t *testing.T, change ...func(*Config)) *box {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{filepath.Dir(root), root} { // so that "dev" gets in
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := &box{t: t, dir: filepath.Join(root, "work"), etc: filepath.Join(root, "etc")}
	// The machine needs no account for "dev".
	write(t, b.etc+"/passwd", "root:x:0:0:root:/root:/bin/bash\ndev:x:41234:41235::"+b.dir+":/bin/bash\n")
	write(t, b.etc+"/group", "root:x:0:\ndev:x:41235:\nextra:x:41236:dev,root\n")
	write(t, b.etc+"/shells", "# shells\n/bin/bash\n/no/such/zsh\n")
	sock, err := os.MkdirTemp("", "tbx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sock) })
	c := Config{
		Version: "test", Socket: sock + "/s/t.sock", User: "dev", WorkDir: b.dir, EtcDir: b.etc,
		StateDir: filepath.Join(root, "state"), Env: map[string]string{"PATH": os.Getenv("PATH"), "FROM_IMAGE": "1"},
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	for _, f := range change {
		f(&c)
	}
	tb, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b.tb = tb
	if err := tb.Open(); err != nil {
		t.Fatal(err)
	}
	rt := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	}}
	t.Cleanup(func() { rt.CloseIdleConnections(); tb.Close(2 * time.Second) })
	b.Client, b.http = client.New(rt), &http.Client{Transport: rt}
	return b
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// send makes a plain request and returns status, headers and body.
func (b *box) send(method, path string, body io.Reader, header ...string) (int, http.Header, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://toolbox"+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, res.Header, string(text)
}

func (b *box) json(v any) io.Reader {
	j, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	return bytes.NewReader(j)
}

// run executes a command line that must succeed.
func (b *box) run(command string) string {
	b.t.Helper()
	res, err := b.Execute(b.t.Context(), wire.ExecuteRequest{Command: command})
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	if res.ExitCode != 0 {
		b.t.Fatalf("%s: exit %d: %s", command, res.ExitCode, res.Result)
	}
	return res.Result
}

// wantError checks an error's status, code and a part of its message.
func wantError(t *testing.T, err error, status int, code wire.Code, part string) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a toolbox error %d %s", err, status, code)
	}
	if e.Status != status || e.Code != code || !strings.Contains(e.Message, part) {
		t.Errorf("got %d %s %q, want %d %s and %q in it", e.Status, e.Code, e.Message, status, code, part)
	}
}

// eventually waits for something that other processes do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
