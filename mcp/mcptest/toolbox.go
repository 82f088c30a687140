package mcptest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Toolbox answers the toolbox's HTTP API for one temporary directory. Commands
// run as they are, on this computer.
type Toolbox struct {
	Dir string // the work directory and home

	server *httptest.Server
	addr   string

	mu       sync.Mutex
	sessions map[string]*session
	order    []string
}

type session struct {
	commands []*command
}

type command struct {
	id, line string
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	done     chan struct{}

	mu   sync.Mutex
	out  []byte
	more chan struct{} // closed and replaced when out grows or the command ends
	exit *int
}

// NewToolbox starts a toolbox.
func NewToolbox(t testing.TB) *Toolbox {
	b := &Toolbox{Dir: t.TempDir(), sessions: map[string]*session{}}
	b.server, b.addr = serve(t, b.routes())
	return b
}

// Close kills what runs.
func (b *Toolbox) Close() {
	b.mu.Lock()
	for _, s := range b.sessions {
		s.kill()
	}
	b.mu.Unlock()
	b.server.CloseClientConnections()
	b.server.Close()
}

// RoundTrip sends r to the toolbox, whatever host it names.
func (b *Toolbox) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", b.addr
	return http.DefaultTransport.RoundTrip(r)
}

// Running counts the commands that have not ended.
func (b *Toolbox) Running() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, s := range b.sessions {
		for _, c := range s.commands {
			select {
			case <-c.done:
			default:
				n++
			}
		}
	}
	return n
}

// Sessions lists the ids of the sessions that are kept.
func (b *Toolbox) Sessions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.order)
}

func (b *Toolbox) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /version", b.json(func(*http.Request) (any, error) { return map[string]string{"version": "test"}, nil }))
	m.HandleFunc("GET /user-home-dir", b.json(func(*http.Request) (any, error) { return wire.Dir{Dir: b.Dir}, nil }))
	m.HandleFunc("GET /port/{port}/in-use", b.json(func(r *http.Request) (any, error) { return wire.PortInUse{IsInUse: r.PathValue("port") == "8000"}, nil }))
	m.HandleFunc("GET /proxy/{port}/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	m.HandleFunc("GET /files", b.json(b.list))
	m.HandleFunc("GET /files/info", b.json(b.info))
	m.HandleFunc("GET /files/download", b.download)
	m.HandleFunc("POST /files/upload-v2", b.json(b.upload))
	m.HandleFunc("POST /files/folder", b.json(func(r *http.Request) (any, error) { return nil, os.MkdirAll(b.path(r, "path"), 0o755) }))
	m.HandleFunc("POST /files/move", b.json(func(r *http.Request) (any, error) {
		return nil, os.Rename(b.path(r, "source"), b.path(r, "destination"))
	}))
	m.HandleFunc("DELETE /files", b.json(b.remove))
	m.HandleFunc("POST /files/permissions", b.json(b.chmod))
	m.HandleFunc("POST /process/execute", b.json(b.execute))
	m.HandleFunc("GET /process/session", b.json(b.listSessions))
	m.HandleFunc("POST /process/session", b.json(b.newSession))
	m.HandleFunc("GET /process/session/{s}", b.json(b.oneSession))
	m.HandleFunc("DELETE /process/session/{s}", b.json(b.endSession))
	m.HandleFunc("POST /process/session/{s}/exec", b.json(b.sessionExec))
	m.HandleFunc("GET /process/session/{s}/command/{c}", b.json(b.oneCommand))
	m.HandleFunc("GET /process/session/{s}/command/{c}/logs", b.logs)
	m.HandleFunc("POST /process/session/{s}/command/{c}/input", b.json(b.input))
	return m
}

func (b *Toolbox) json(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

func fail(w http.ResponseWriter, err error) {
	te, ok := err.(*wire.Error)
	switch {
	case ok:
	case os.IsNotExist(err):
		te = wire.Errorf(404, wire.CodeFileNotFound, "file not found")
	default:
		te = wire.Errorf(400, wire.CodeBadRequest, "%v", err)
	}
	w.WriteHeader(te.Status)
	_ = json.NewEncoder(w).Encode(wire.ErrorResponse{StatusCode: te.Status, Message: te.Message, Code: te.Code, Partial: te.Partial})
}

// path resolves a query parameter below the work directory. Only the tools'
// own helper files may be elsewhere.
func (b *Toolbox) path(r *http.Request, name string) string {
	p := r.URL.Query().Get(name)
	switch {
	case strings.HasPrefix(p, b.Dir), strings.HasPrefix(p, "/tmp/.atoll-"):
		return p
	case p == "":
		return b.Dir
	}
	return filepath.Join(b.Dir, filepath.Clean("/"+p))
}

func fileInfo(path string, st os.FileInfo) wire.FileInfo {
	return wire.FileInfo{Name: st.Name(), Path: path, IsDir: st.IsDir(), Size: st.Size(), Mode: st.Mode().String(), Permissions: fmt.Sprintf("%04o", st.Mode().Perm())}
}

func (b *Toolbox) info(r *http.Request) (any, error) {
	st, err := os.Stat(b.path(r, "path"))
	if err != nil {
		return nil, err
	}
	return fileInfo(b.path(r, "path"), st), nil
}

func (b *Toolbox) list(r *http.Request) (any, error) {
	entries, err := os.ReadDir(b.path(r, "path"))
	if err != nil {
		return nil, err
	}
	all := []wire.FileInfo{}
	for _, e := range entries {
		st, err := e.Info()
		if err == nil {
			all = append(all, fileInfo(e.Name(), st))
		}
	}
	return all, nil
}

func (b *Toolbox) download(w http.ResponseWriter, r *http.Request) {
	content, err := os.ReadFile(b.path(r, "path"))
	if err != nil {
		fail(w, err)
		return
	}
	_, _ = w.Write(content)
}

func (b *Toolbox) upload(r *http.Request) (any, error) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	p := b.path(r, "path")
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return nil, err
	}
	_ = os.Remove(p)
	return wire.UploadedFile{Name: filepath.Base(p), Path: p, Type: "file"}, os.WriteFile(p, content, 0o644)
}

func (b *Toolbox) remove(r *http.Request) (any, error) {
	if _, err := os.Stat(b.path(r, "path")); err != nil {
		return nil, err
	}
	return nil, os.RemoveAll(b.path(r, "path"))
}

func (b *Toolbox) chmod(r *http.Request) (any, error) {
	mode, err := strconv.ParseUint(r.URL.Query().Get("mode"), 8, 32)
	if err != nil {
		return nil, err
	}
	return nil, os.Chmod(b.path(r, "path"), os.FileMode(mode))
}

func (b *Toolbox) execute(r *http.Request) (any, error) {
	var req wire.ExecuteRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(r.Context(), "bash", "-c", req.Command)
	cmd.Dir = b.Dir
	out, _ := cmd.CombinedOutput()
	return wire.ExecuteResponse{ExitCode: cmd.ProcessState.ExitCode(), Result: string(out)}, nil
}

func (b *Toolbox) newSession(r *http.Request) (any, error) {
	var req wire.CreateSession
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[req.SessionID] = &session{}
	b.order = append(b.order, req.SessionID)
	return nil, nil
}

func (b *Toolbox) find(r *http.Request) (*session, *command, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[r.PathValue("s")]
	if s == nil {
		return nil, nil, wire.Errorf(404, wire.CodeNotFound, "session not found")
	}
	for _, c := range s.commands {
		if c.id == r.PathValue("c") {
			return s, c, nil
		}
	}
	if r.PathValue("c") != "" {
		return nil, nil, wire.Errorf(404, wire.CodeNotFound, "command not found")
	}
	return s, nil, nil
}

func (b *Toolbox) sessionExec(r *http.Request) (any, error) {
	var req wire.SessionExecute
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	s, _, err := b.find(r)
	if err != nil {
		return nil, err
	}
	c := &command{id: fmt.Sprintf("c%d", time.Now().UnixNano()), line: req.Command, done: make(chan struct{}), more: make(chan struct{})}
	c.cmd = exec.Command("bash", "-c", req.Command)
	c.cmd.Dir = b.Dir
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = time.Second
	c.cmd.Stdout = channel{c, []byte{1, 1, 1}}
	c.cmd.Stderr = channel{c, []byte{2, 2, 2}}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait()
		c.add(nil, true)
		close(c.done)
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	s.commands = append(s.commands, c)
	return wire.SessionExecuted{CmdID: c.id}, nil
}

type channel struct {
	c      *command
	marker []byte
}

func (ch channel) Write(p []byte) (int, error) {
	ch.c.add(slices.Concat(ch.marker, p), false)
	return len(p), nil
}

func (c *command) add(p []byte, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, p...)
	if ended {
		code := c.cmd.ProcessState.ExitCode()
		c.exit = &code
	}
	close(c.more)
	c.more = make(chan struct{})
}

func (c *command) wire() wire.Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Command{ID: c.id, Command: c.line, ExitCode: c.exit}
}

func (s *session) kill() {
	for _, c := range s.commands {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		<-c.done
	}
}

func (s *session) wire(id string) wire.Session {
	w := wire.Session{SessionID: id, Commands: []wire.Command{}}
	for _, c := range s.commands {
		w.Commands = append(w.Commands, c.wire())
	}
	return w
}

func (b *Toolbox) listSessions(*http.Request) (any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []wire.Session{}
	for _, id := range b.order {
		all = append(all, b.sessions[id].wire(id))
	}
	return all, nil
}

func (b *Toolbox) oneSession(r *http.Request) (any, error) {
	s, _, err := b.find(r)
	if err != nil {
		return nil, err
	}
	return s.wire(r.PathValue("s")), nil
}

func (b *Toolbox) oneCommand(r *http.Request) (any, error) {
	_, c, err := b.find(r)
	if err != nil {
		return nil, err
	}
	return c.wire(), nil
}

func (b *Toolbox) endSession(r *http.Request) (any, error) {
	s, _, err := b.find(r)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.kill()
	delete(b.sessions, r.PathValue("s"))
	b.order = slices.DeleteFunc(b.order, func(id string) bool { return id == r.PathValue("s") })
	return nil, nil
}

func (b *Toolbox) input(r *http.Request) (any, error) {
	_, c, err := b.find(r)
	if err != nil {
		return nil, err
	}
	var req wire.SessionInput
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	_, err = io.WriteString(c.stdin, req.Data+"\n")
	return nil, err
}

func (b *Toolbox) logs(w http.ResponseWriter, r *http.Request) {
	_, c, err := b.find(r)
	if err != nil {
		fail(w, err)
		return
	}
	if r.URL.Query().Get("follow") == "true" {
		c.stream(w, r)
		return
	}
	c.mu.Lock()
	out := bytes.Clone(c.out)
	c.mu.Unlock()
	offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
	out = out[min(offset, len(out)):]
	if limit, _ := strconv.Atoi(r.URL.Query().Get("limit")); limit > 0 {
		out = out[:min(limit, len(out))]
	}
	w.Header().Set(wire.OffsetHeader, strconv.Itoa(offset+len(out)))
	_, _ = w.Write(out)
}

// stream sends what there is and what comes until the command ends.
func (c *command) stream(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(context.WithoutCancel(r.Context()))
	for sent := 0; ; {
		c.mu.Lock()
		p, ended, more := bytes.Clone(c.out[sent:]), c.exit != nil, c.more
		c.mu.Unlock()
		if len(p) > 0 {
			if conn.Write(ctx, websocket.MessageBinary, p) != nil {
				return
			}
			sent += len(p)
			continue
		}
		if ended {
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}
