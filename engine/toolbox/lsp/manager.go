// Package lsp keeps language servers, which tell of a project's code what an
// editor shows: completions and symbols. There is one for each language and
// project, a process of the sandbox's user, started when asked for and ended
// when asked for, when nobody has used it for a while, or with the toolbox.
package lsp

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/files"
	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// maxServers bounds the servers of a sandbox: each takes 100 MB and more.
	maxServers = 8
	// maxIdle is how long a server lives without being used.
	maxIdle = 30 * time.Minute
)

// key names a server.
type key struct{ language, project string }

// Manager holds all servers.
type Manager struct {
	runner *process.Runner
	files  *files.FS

	mu      sync.Mutex
	servers map[key]*entry
	reaper  *time.Timer // runs while there are servers
	closed  bool
}

// entry is a server, or one that is being started.
type entry struct {
	ready  chan struct{} // closed when server or err is valid
	server *server
	err    error
}

// NewManager returns a Manager without servers.
func NewManager(r *process.Runner, f *files.FS) *Manager {
	return &Manager{runner: r, files: f, servers: map[key]*entry{}}
}

// name checks which server is meant.
func (m *Manager) name(q wire.LspServer) (language, key, error) {
	l, err := languageOf(q.LanguageID)
	if err != nil {
		return l, key{}, err
	}
	if q.PathToProject == "" || strings.IndexByte(q.PathToProject, 0) >= 0 {
		return l, key{}, wire.BadRequest("pathToProject: give the project's directory")
	}
	return l, key{l.id, m.runner.Resolve(q.PathToProject)}, nil
}

// Start starts a server. One that runs already stays as it is.
func (m *Manager) Start(ctx context.Context, q wire.LspServer) error {
	l, k, err := m.name(q)
	if err != nil {
		return err
	}
	if info, err := os.Stat(k.project); err != nil || !info.IsDir() {
		return wire.BadRequest("pathToProject: %.200s is not a directory in this sandbox", k.project)
	}
	e, first, err := m.claim(k)
	if err != nil {
		return err
	}
	if !first {
		select {
		case <-e.ready:
			return e.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// Others may wait for this one, so it is started even if its caller leaves.
	e.server, e.err = start(context.WithoutCancel(ctx), m.runner, l, k.project)
	close(e.ready)
	if e.err != nil {
		m.forget(k, e)
	}
	return e.err
}

// claim returns the entry of a server, a new one when first is true.
func (m *Manager) claim(k key) (e *entry, first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.servers[k]; e != nil && !e.dead() {
		return e, false, nil
	}
	delete(m.servers, k)
	for other, e := range m.servers {
		if e.dead() {
			delete(m.servers, other)
		}
	}
	if m.closed || len(m.servers) >= maxServers {
		return nil, false, wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "%d language servers run already; stop one first", maxServers)
	}
	e = &entry{ready: make(chan struct{})}
	m.servers[k] = e
	if m.reaper == nil {
		m.reaper = time.AfterFunc(maxIdle/4, m.reap)
	}
	return e, true, nil
}

// dead tells that a started server has ended.
func (e *entry) dead() bool {
	select {
	case <-e.ready:
		return e.err != nil || !e.server.alive()
	default:
		return false
	}
}

// forget takes an entry out and reports whether it was there.
func (m *Manager) forget(k key, e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.servers[k] != e {
		return false
	}
	delete(m.servers, k)
	return true
}

// reap ends the servers that nobody has used for a while.
func (m *Manager) reap() {
	m.mu.Lock()
	var idle []*server
	now := time.Now()
	for k, e := range m.servers {
		select {
		case <-e.ready:
		default:
			continue
		}
		if e.dead() || e.server.idle(now) > maxIdle {
			delete(m.servers, k)
			if e.err == nil {
				idle = append(idle, e.server)
			}
		}
	}
	m.reaper = nil
	if len(m.servers) > 0 && !m.closed {
		m.reaper = time.AfterFunc(maxIdle/4, m.reap)
	}
	m.mu.Unlock()
	for _, s := range idle {
		s.stop(context.Background())
	}
}

// Stop ends a server.
func (m *Manager) Stop(ctx context.Context, q wire.LspServer) error {
	_, k, err := m.name(q)
	if err != nil {
		return err
	}
	m.mu.Lock()
	e := m.servers[k]
	m.mu.Unlock()
	if e == nil {
		return notStarted(k)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.err != nil || !m.forget(k, e) {
		return notStarted(k)
	}
	e.server.stop(context.WithoutCancel(ctx))
	return nil
}

func notStarted(k key) error {
	return wire.Errorf(http.StatusBadRequest, wire.CodeLSPNotStarted, "there is no %s language server for %.200s; start it first", k.language, k.project)
}

// Close ends all servers.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	all := m.servers
	m.servers = map[key]*entry{}
	if m.reaper != nil {
		m.reaper.Stop()
	}
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range all {
		wg.Go(func() {
			if <-e.ready; e.err == nil {
				e.server.kill()
			}
		})
	}
	wg.Wait()
}

// ask runs do with a running server, for as long as a question may take.
func (m *Manager) ask(ctx context.Context, q wire.LspServer, what string, do func(context.Context, *server) error) error {
	_, k, err := m.name(q)
	if err != nil {
		return err
	}
	m.mu.Lock()
	e := m.servers[k]
	m.mu.Unlock()
	if e == nil {
		return notStarted(k)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.dead() {
		return notStarted(k)
	}
	defer e.server.begin()()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := do(ctx, e.server); err != nil {
		return e.server.explain(what, err)
	}
	return nil
}

// document runs do with a running server and a file's absolute path.
func (m *Manager) document(ctx context.Context, q wire.LspDocument, what string, do func(ctx context.Context, s *server, path string) error) error {
	path, err := pathOf(q.URI)
	if err != nil {
		return err
	}
	return m.ask(ctx, q.LspServer, what, func(ctx context.Context, s *server) error {
		return do(ctx, s, m.runner.Resolve(path))
	})
}

// Open tells a server that a file is being edited.
func (m *Manager) Open(ctx context.Context, q wire.LspDocument) error {
	return m.document(ctx, q, "did-open", func(ctx context.Context, s *server, path string) error {
		_, err := s.open(ctx, m.files, path)
		return err
	})
}

// CloseDocument tells a server that a file is not edited any more.
func (m *Manager) CloseDocument(ctx context.Context, q wire.LspDocument) error {
	return m.document(ctx, q, "did-close", func(ctx context.Context, s *server, path string) error {
		return s.close(ctx, path)
	})
}

// Completions lists what may stand at a position of a file, as the file is now.
func (m *Manager) Completions(ctx context.Context, q wire.LspCompletions) (list wire.LspCompletionList, err error) {
	if q.Position.Line < 0 || q.Position.Character < 0 {
		return list, wire.BadRequest("position: line and character count from 0")
	}
	err = m.document(ctx, q.LspDocument, "completions", func(ctx context.Context, s *server, path string) (err error) {
		list, err = s.completions(ctx, m.files, path, q)
		return err
	})
	return list, err
}

// DocumentSymbols lists what a file defines, as it is now.
func (m *Manager) DocumentSymbols(ctx context.Context, q wire.LspDocument) (all []wire.LspSymbol, err error) {
	err = m.document(ctx, q, "document-symbols", func(ctx context.Context, s *server, path string) (err error) {
		all, err = s.documentSymbols(ctx, m.files, path)
		return err
	})
	return all, err
}

// WorkspaceSymbols lists what a project defines under names that hold query.
func (m *Manager) WorkspaceSymbols(ctx context.Context, q wire.LspServer, query string) (all []wire.LspSymbol, err error) {
	if len(query) > 1000 {
		return nil, wire.BadRequest("query: it is longer than 1000 bytes")
	}
	err = m.ask(ctx, q, "workspacesymbols", func(ctx context.Context, s *server) (err error) {
		all, err = s.workspaceSymbols(ctx, m.files, query)
		return err
	})
	return all, err
}
