// Package interpreter keeps Python interpreters whose state outlives a program:
// contexts. Each is one process of the sandbox's user, started when it is first
// needed, and runs programs in the order they came.
package interpreter

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// defaultID names the context of programs that name none.
	defaultID = "default"
	// maxContexts bounds the contexts that callers make.
	maxContexts = 64
	// defaultTimeout is that of a program which sets none.
	defaultTimeout = 600 * time.Second
	// obey is how long an interrupted program has to end.
	obey = 3 * time.Second
	// settle is how long output is waited for that does not come, because the
	// program closed its streams.
	settle = time.Second
	// maxCode bounds a program.
	maxCode = 4 << 20
)

// The ways Execute ends early, besides *wire.Error.
var (
	ErrTimeout = errors.New("the program was stopped after its timeout")
	ErrGone    = errors.New("the caller went away")
	errDied    = errors.New("the interpreter ended")
)

// DiedError tells that the interpreter ended under a program.
type DiedError struct {
	Code int // of its exit
}

// Error says so.
func (e *DiedError) Error() string { return "the interpreter ended; its state is lost" }

// Manager holds all contexts.
type Manager struct {
	runner *process.Runner

	mu       sync.Mutex
	contexts map[string]*session
	order    []string // without the default one
	closed   bool
}

// session is one context.
type session struct {
	info    wire.InterpreterContext
	slot    chan struct{} // held by the program that runs; waiters are served in order
	deleted chan struct{}

	mu     sync.Mutex
	worker *worker // nil: not started
}

// NewManager returns a Manager without contexts.
func NewManager(r *process.Runner) *Manager {
	return &Manager{runner: r, contexts: map[string]*session{}}
}

func (m *Manager) newSession(id, cwd string) *session {
	if cwd == "" {
		cwd = m.runner.WorkDir()
	} else {
		cwd = m.runner.Resolve(cwd)
	}
	return &session{
		info: wire.InterpreterContext{ID: id, Cwd: cwd, Language: "python", CreatedAt: time.Now().UTC()},
		slot: make(chan struct{}, 1), deleted: make(chan struct{}),
	}
}

// Create makes a context and starts its interpreter, for a call of the server's
// ledger.
func (m *Manager) Create(q wire.CreateContext, call string) (wire.InterpreterContext, error) {
	switch {
	case q.Language != "" && q.Language != "python":
		return wire.InterpreterContext{}, wire.BadRequest("language: %.40q is not offered; only python keeps its state", q.Language)
	case strings.IndexByte(q.Cwd, 0) >= 0:
		return wire.InterpreterContext{}, wire.BadRequest("cwd: it holds a NUL byte; remove it")
	}
	s := m.newSession(strings.ToLower(rand.Text()), q.Cwd)
	w, err := start(m.runner, s.info.Cwd, call)
	if err != nil {
		return wire.InterpreterContext{}, err
	}
	s.worker = w
	m.mu.Lock()
	full := m.closed || len(m.order) >= maxContexts
	if !full {
		m.contexts[s.info.ID] = s
		m.order = append(m.order, s.info.ID)
	}
	m.mu.Unlock()
	if full {
		w.kill()
		return wire.InterpreterContext{}, wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "there are %d contexts already; delete some first", maxContexts)
	}
	return s.describe(), nil
}

func (s *session) describe() wire.InterpreterContext {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.info
	info.Active = s.worker != nil && s.worker.alive()
	return info
}

// List describes the contexts that callers made, oldest first.
func (m *Manager) List() []wire.InterpreterContext {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]wire.InterpreterContext, 0, len(m.order))
	for _, id := range m.order {
		list = append(list, m.contexts[id].describe())
	}
	return list
}

// find returns a context; the default one is made when it is asked for.
func (m *Manager) find(id string) (*session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == "" {
		id = defaultID
	}
	if s, ok := m.contexts[id]; ok {
		return s, nil
	}
	if id != defaultID || m.closed {
		return nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "interpreter context %.80q not found", id)
	}
	s := m.newSession(id, "")
	m.contexts[id] = s
	return s, nil
}

// forget takes a context out and reports whether it was there.
func (m *Manager) forget(s *session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.contexts[s.info.ID] != s {
		return false
	}
	delete(m.contexts, s.info.ID)
	m.order = slices.DeleteFunc(m.order, func(id string) bool { return id == s.info.ID })
	close(s.deleted)
	return true
}

// Delete ends a context, with what it runs.
func (m *Manager) Delete(id string) error {
	if id == defaultID {
		return wire.BadRequest("the default context cannot be deleted")
	}
	s, err := m.find(id)
	if err != nil {
		return err
	}
	if !m.forget(s) {
		return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "interpreter context %.80q not found", id)
	}
	s.kill()
	return nil
}

func (s *session) kill() {
	s.mu.Lock()
	w := s.worker
	s.mu.Unlock()
	if w != nil {
		w.kill()
	}
}

// Close ends all contexts.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	all := make([]*session, 0, len(m.contexts))
	for _, s := range m.contexts {
		all = append(all, s)
	}
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range all {
		m.forget(s)
		wg.Go(s.kill)
	}
	wg.Wait()
}

// Execute runs a program in its context, after those that came before it, and
// hands on what it says; the last chunk is a control chunk. When ctx ends or
// the timeout passes, the program is interrupted, and if it does not obey its
// interpreter is ended.
func (m *Manager) Execute(ctx context.Context, q wire.InterpreterExecute, send func(wire.InterpreterChunk) error) error {
	timeout, err := check(q)
	if err != nil {
		return err
	}
	s, err := m.find(q.ContextID)
	if err != nil {
		return err
	}
	select {
	case s.slot <- struct{}{}:
		defer func() { <-s.slot }()
	case <-ctx.Done():
		return ErrGone
	case <-s.deleted:
		return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "the interpreter context was deleted")
	}
	w, err := m.ready(s, process.CallOf(ctx))
	if err != nil {
		return err
	}
	m.runner.Table.Calls.Tell(w.child.PID, process.CallOf(ctx), 0)
	defer m.runner.Table.Calls.Tell(w.child.PID, "", 0)
	t, err := w.begin(q)
	if err == nil {
		x := execution{worker: w, turn: t, send: send}
		err = x.follow(ctx, timeout)
		w.end(t)
	}
	if errors.Is(err, errDied) {
		err = &DiedError{Code: w.child.Exit().Code}
	}
	if !w.alive() && s.info.ID != defaultID {
		m.forget(s) // its state is lost; the caller shall notice
	}
	return err
}

func check(q wire.InterpreterExecute) (time.Duration, error) {
	switch {
	case strings.TrimSpace(q.Code) == "":
		return 0, wire.BadRequest("code: it is empty; give a program")
	case len(q.Code) > maxCode:
		return 0, wire.BadRequest("code: it is longer than %d MiB; upload it as a file", maxCode>>20)
	case q.Timeout == nil:
		return defaultTimeout, process.CheckEnv("envs", q.Envs)
	case *q.Timeout < 0 || *q.Timeout > 1e9:
		return 0, wire.BadRequest("timeout: %g is not possible; give seconds, or 0 for no limit", *q.Timeout)
	}
	return time.Duration(*q.Timeout * float64(time.Second)), process.CheckEnv("envs", q.Envs)
}

// ready returns the context's worker, a new one where there is none.
func (m *Manager) ready(s *session, call string) (*worker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.deleted:
		return nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "the interpreter context was deleted")
	default:
	}
	if s.worker != nil && s.worker.alive() {
		return s.worker, nil
	}
	w, err := start(m.runner, s.info.Cwd, call)
	if err != nil {
		return nil, err
	}
	s.worker = w
	return w, nil
}
