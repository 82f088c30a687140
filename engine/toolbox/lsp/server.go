package lsp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// startTimeout bounds the first talk with a server: its program is read
	// from a cold disk.
	startTimeout = time.Minute
	// callTimeout bounds a question.
	callTimeout = 30 * time.Second
	// stopTimeout is how long a server has to end by itself.
	stopTimeout = 2 * time.Second
	// maxSaid bounds what is kept of what a server says on stderr.
	maxSaid = 2 << 10
)

// server is a language server's process for one project.
type server struct {
	language language
	project  string // absolute
	conn     *conn
	proc     *process.Process
	over     chan struct{} // closed when the process and all readers have ended
	symbols  bool          // it looks for symbols in the whole project

	mu   sync.Mutex
	said []byte // the last that it wrote to stderr
	used time.Time
	busy int

	documentsMu sync.Mutex // also keeps what the server is told of them in order
	documents   map[string]*document
}

// start runs a language server and introduces itself.
func start(ctx context.Context, r *process.Runner, l language, project string) (*server, error) {
	proc, err := r.Start(process.Command{Argv: l.argv, Cwd: project, Env: l.env}, true, true)
	var failed *process.StartError
	if errors.As(err, &failed) && failed.Code == 127 {
		return nil, wire.Errorf(http.StatusNotImplemented, wire.CodeNotImplemented, "%s is not installed in this sandbox; %s", l.argv[0], l.install)
	}
	if errors.As(err, &failed) {
		return nil, wire.BadRequest("cannot start %s: %s", l.argv[0], failed.Reason)
	}
	if err != nil {
		return nil, err
	}
	if l.id == python.id {
		limit := unix.Rlimit{Cur: pythonMemory, Max: pythonMemory}
		_ = unix.Prlimit(proc.Child().PID, unix.RLIMIT_AS, &limit, nil) // the sandbox's own limit holds without
	}
	s := &server{
		language: l, project: project, conn: newConn(), proc: proc, over: make(chan struct{}),
		documents: map[string]*document{}, used: time.Now(),
	}
	go s.run() // ends with the process
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.initialize(ctx); err != nil {
		s.kill()
		return nil, s.explain("start", err)
	}
	return s, nil
}

// run serves the process's streams until it has ended. What it leaves behind
// may hold them open, so they are closed then.
func (s *server) run() {
	var wg sync.WaitGroup
	wg.Go(func() { s.conn.read(s.proc.Stdout); s.proc.Child().Kill() })
	wg.Go(func() { s.conn.write(s.proc.Stdin) })
	wg.Go(func() { s.listen(s.proc.Stderr) })
	<-s.proc.Child().Done()
	now := time.Now()
	_ = s.proc.Stdin.SetWriteDeadline(now)
	_ = s.proc.Stdout.SetReadDeadline(now.Add(100 * time.Millisecond)) // its last words
	_ = s.proc.Stderr.SetReadDeadline(now.Add(100 * time.Millisecond))
	wg.Wait()
	for _, f := range []*os.File{s.proc.Stdin, s.proc.Stdout, s.proc.Stderr} {
		f.Close()
	}
	close(s.over)
}

// listen keeps the end of what the server says beside the protocol.
func (s *server) listen(f *os.File) {
	buf := make([]byte, maxSaid)
	for {
		n, err := f.Read(buf)
		s.mu.Lock()
		s.said = append(s.said, buf[:n]...)
		s.said = s.said[max(0, len(s.said)-maxSaid):]
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// initialize is the protocol's handshake.
func (s *server) initialize(ctx context.Context) error {
	uri := toURI(s.project)
	plain := map[string]any{"dynamicRegistration": false}
	var answer struct {
		Capabilities struct {
			WorkspaceSymbolProvider any `json:"workspaceSymbolProvider"`
		} `json:"capabilities"`
	}
	err := s.conn.call(ctx, "initialize", map[string]any{
		"processId":        nil,
		"clientInfo":       map[string]any{"name": "atoll"},
		"rootUri":          uri,
		"rootPath":         s.project,
		"workspaceFolders": []any{map[string]any{"uri": uri, "name": "project"}},
		"capabilities": map[string]any{
			"textDocument": map[string]any{
				"synchronization": plain,
				"completion":      map[string]any{"completionItem": map[string]any{"snippetSupport": false}},
				"documentSymbol":  map[string]any{"hierarchicalDocumentSymbolSupport": false},
			},
			"workspace": map[string]any{"symbol": plain, "workspaceFolders": true, "configuration": true},
		},
		"initializationOptions": s.language.options,
	}, &answer)
	if err != nil {
		return err
	}
	provider := answer.Capabilities.WorkspaceSymbolProvider
	s.symbols = provider != nil && provider != false
	return s.conn.notify(ctx, "initialized", map[string]any{})
}

// begin counts a call in; the returned function counts it out. A server that
// is used is not ended for being idle.
func (s *server) begin() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy--
		s.used = time.Now()
	}
}

// idle tells for how long nobody has used the server.
func (s *server) idle(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy > 0 {
		return 0
	}
	return now.Sub(s.used)
}

// alive tells whether the server can still be asked.
func (s *server) alive() bool {
	select {
	case <-s.conn.done:
		return false
	case <-s.proc.Child().Done():
		return false
	default:
		return true
	}
}

// stop asks the server to end and ends it.
func (s *server) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if s.conn.call(ctx, "shutdown", nil, nil) == nil && s.conn.notify(ctx, "exit", nil) == nil {
		select {
		case <-s.over:
			return
		case <-ctx.Done():
		}
	}
	s.kill()
}

func (s *server) kill() {
	s.proc.Child().Kill()
	<-s.over
}

// explain tells callers why a question got no answer.
func (s *server) explain(what string, err error) error {
	var refused *RemoteError
	var known *wire.Error
	name := s.language.argv[0]
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &refused):
		return wire.BadRequest("%s: %s refused: %s", what, name, refused.Message)
	case errors.Is(err, context.DeadlineExceeded):
		return wire.Errorf(http.StatusRequestTimeout, wire.CodeTimeout, "%s: %s did not answer in time", what, name)
	case errors.Is(err, context.Canceled):
		return wire.Errorf(499, wire.CodeBadRequest, "the caller went away")
	case s.alive():
		return fmt.Errorf("%s: %s: %w", what, name, err)
	}
	<-s.over
	s.mu.Lock()
	said := strings.TrimSpace(strings.ToValidUTF8(string(s.said), "?"))
	s.mu.Unlock()
	exit := s.proc.Child().Exit().Code
	return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "%s: %s ended (%v, exit code %d); start it again. It said: %s", what, name, err, exit, said)
}
