package gatewaytest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// fakeToolbox serves the part of the toolbox API that the command line uses.
// A sandbox is a directory; "/" of its file calls is that directory.
type fakeToolbox struct {
	root string

	mu   sync.Mutex
	made map[string]string
}

func newToolbox(tb testing.TB) http.Handler {
	t := &fakeToolbox{root: tb.TempDir(), made: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /echo", echo)
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("GET /redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("GET /hints", hints)
	mux.HandleFunc("POST /reverse", reverse)
	mux.HandleFunc("GET /internal/status", echo)
	mux.HandleFunc("GET /internal/exec", t.exec)
	mux.HandleFunc("GET /internal/tunnel", tunnel)
	mux.HandleFunc("POST /process/execute", t.execute)
	mux.HandleFunc("GET /files/info", t.info)
	mux.HandleFunc("POST /files/upload-v2", t.upload)
	mux.HandleFunc("GET /files/download", t.download)
	mux.HandleFunc("GET /work-dir", func(w http.ResponseWriter, r *http.Request) { reply(w, toolbox.Dir{Dir: t.dir(r)}) })
	mux.HandleFunc("GET /process/session", t.sessions)
	mux.HandleFunc("GET /process/session/entrypoint/logs", t.entrypointLogs)
	mux.HandleFunc("GET /process/session/{id}/command/{cmd}/logs", t.commandLogs)
	return mux
}

func (t *fakeToolbox) dir(r *http.Request) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := r.Header.Get(sandboxHeader)
	if t.made[id] == "" {
		t.made[id] = filepath.Join(t.root, filepath.Base(id))
		_ = os.MkdirAll(t.made[id], 0o755)
	}
	return t.made[id]
}

// path maps a path of the sandbox to the host.
func (t *fakeToolbox) path(r *http.Request) string {
	p := r.URL.Query().Get("path")
	if strings.HasPrefix(p, t.root) {
		return filepath.Clean(p)
	}
	return filepath.Join(t.dir(r), filepath.Clean("/"+p))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func problem(w http.ResponseWriter, status int, code toolbox.Code, err error) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(toolbox.ErrorResponse{StatusCode: status, Message: err.Error(), Code: code, Source: toolbox.Source})
}

// Echo is what the fake toolbox saw of a request to /echo.
type Echo struct {
	Method, Path, RawPath, Query, Body string
	Header                             http.Header
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Set-Cookie", "evil=1")
	w.Header().Set("Access-Control-Allow-Origin", "https://evil.example")
	reply(w, Echo{
		Method: r.Method, Path: r.URL.Path, RawPath: r.URL.RawPath, Query: r.URL.RawQuery,
		Body: string(body), Header: r.Header,
	})
}

// hints answers with informational answers first and headers that act on an
// origin, as a hostile toolbox may.
func hints(w http.ResponseWriter, _ *http.Request) {
	for range 20 {
		w.Header().Set("Set-Cookie", "early=1")
		w.WriteHeader(http.StatusEarlyHints)
	}
	for _, h := range []string{"Refresh", "Link", "Nel", "Report-To", "Reporting-Endpoints"} {
		w.Header().Set(h, "https://evil.example")
	}
	reply(w, "end")
}

// reverse answers each line as soon as it came, while the request goes on.
func reverse(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	_ = rc.Flush()
	buf := make([]byte, 1024)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			_, _ = w.Write([]byte(strings.ToUpper(string(buf[:n]))))
			_ = rc.Flush()
		}
		if err != nil {
			return
		}
	}
}

func (t *fakeToolbox) execute(w http.ResponseWriter, r *http.Request) {
	var req toolbox.ExecuteRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		problem(w, http.StatusBadRequest, toolbox.CodeInvalidBody, err)
		return
	}
	cmd := exec.CommandContext(r.Context(), "sh", "-c", req.Command)
	cmd.Dir = t.dir(r)
	out, err := cmd.CombinedOutput()
	reply(w, toolbox.ExecuteResponse{ExitCode: exitCode(err), Result: string(out)})
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func (t *fakeToolbox) info(w http.ResponseWriter, r *http.Request) {
	fi, err := os.Stat(t.path(r))
	if err != nil {
		problem(w, http.StatusNotFound, toolbox.CodeFileNotFound, err)
		return
	}
	reply(w, map[string]any{"name": fi.Name(), "isDir": fi.IsDir(), "size": fi.Size(), "mode": fi.Mode().String(), "permissions": strconv.FormatUint(uint64(fi.Mode().Perm()), 8)})
}

func (t *fakeToolbox) upload(w http.ResponseWriter, r *http.Request) {
	p := t.path(r)
	if fi, err := os.Stat(p); err == nil && fi.IsDir() {
		problem(w, http.StatusBadRequest, toolbox.CodeInvalidPath, errors.New("path is a directory"))
		return
	}
	_ = os.MkdirAll(filepath.Dir(p), 0o755)
	f, err := os.Create(p)
	if err == nil {
		_, err = io.Copy(f, r.Body)
		_ = f.Close()
	}
	if err != nil {
		problem(w, http.StatusInternalServerError, toolbox.CodeInternal, err)
		return
	}
	reply(w, map[string]string{"name": filepath.Base(p), "path": p, "type": "file"})
}

func (t *fakeToolbox) download(w http.ResponseWriter, r *http.Request) {
	f, err := os.Open(t.path(r))
	if err != nil {
		problem(w, http.StatusNotFound, toolbox.CodeFileNotFound, err)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.IsDir() {
		problem(w, http.StatusBadRequest, toolbox.CodeInvalidPath, errors.New("not a file"))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(fi.Size(), 10))
	_, _ = io.Copy(w, f)
}

func (t *fakeToolbox) sessions(w http.ResponseWriter, _ *http.Request) {
	zero := 0
	reply(w, []toolbox.Session{{SessionID: "s1", Commands: []toolbox.Command{{ID: "c1", Command: "make", ExitCode: &zero}}}})
}

const markedLog = "\x01\x01\x01out\n\x02\x02\x02err\n"

func (t *fakeToolbox) entrypointLogs(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		reply(w, toolbox.CommandLogs{Output: markedLog, Stdout: "out\n", Stderr: "err\n"})
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	for _, part := range []string{"\x01\x01", "\x01out\n\x02\x02\x02e", "rr\n"} { // markers may be split
		_ = ws.Write(r.Context(), websocket.MessageBinary, []byte(part))
		time.Sleep(time.Millisecond)
	}
	_ = ws.Close(websocket.StatusNormalClosure, "")
}

func (t *fakeToolbox) commandLogs(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("id") != "s1" || r.PathValue("cmd") != "c1" {
		problem(w, http.StatusNotFound, toolbox.CodeNotFound, errors.New("no such command"))
		return
	}
	reply(w, toolbox.CommandLogs{Output: "\x01\x01\x01made\n", Stdout: "made\n"})
}
