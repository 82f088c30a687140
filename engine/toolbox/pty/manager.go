package pty

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	maxTerminals = 128
	maxSize      = 1000 // columns or rows
)

// Manager holds the terminals that have names.
type Manager struct {
	runner *process.Runner

	mu    sync.Mutex
	named map[string]*Session
	order []string
}

// Session is a named terminal. It starts its shell at once or with its first
// client, and is forgotten when the shell ends.
type Session struct {
	m *Manager

	mu     sync.Mutex
	info   wire.PTYInfo
	call   string    // that made it
	term   *Terminal // nil: not started
	killed bool
}

// NewManager returns an empty Manager.
func NewManager(r *process.Runner) *Manager {
	return &Manager{runner: r, named: map[string]*Session{}}
}

// Create makes a terminal, for a call of the server's ledger.
func (m *Manager) Create(q wire.PTYCreate, call string) (*Session, error) {
	if err := m.check(&q); err != nil {
		return nil, err
	}
	s := &Session{m: m, call: call, info: wire.PTYInfo{
		ID: q.ID, Cols: q.Cols, Rows: q.Rows, Cwd: q.Cwd, Envs: q.Envs,
		CreatedAt: time.Now().UTC(), LazyStart: q.LazyStart,
	}}
	if err := m.add(s); err != nil {
		return nil, err
	}
	if q.LazyStart {
		return s, nil
	}
	if _, err := s.terminal(); err != nil {
		m.remove(s)
		return nil, err
	}
	return s, nil
}

func (m *Manager) check(q *wire.PTYCreate) error {
	if q.ID == "" {
		q.ID = strings.ToLower(rand.Text())
	}
	if len(q.ID) > 256 || strings.ContainsAny(q.ID, "/\x00") {
		return wire.BadRequest("id: use at most 256 characters, without / and NUL")
	}
	if q.ID == "create-connect" {
		return wire.BadRequest("id: %q is reserved; choose another", q.ID)
	}
	if q.Cols == 0 {
		q.Cols = 80
	}
	if q.Rows == 0 {
		q.Rows = 24
	}
	if err := checkSize(q.Cols, q.Rows); err != nil {
		return err
	}
	if q.Envs == nil {
		q.Envs = map[string]string{}
	}
	if q.Cwd == "" {
		q.Cwd = m.runner.StartDir()
	} else {
		q.Cwd = m.runner.Resolve(q.Cwd)
	}
	return process.CheckEnv("envs", q.Envs)
}

func checkSize(cols, rows int) error {
	if cols < 1 || cols > maxSize || rows < 1 || rows > maxSize {
		return wire.BadRequest("cols, rows: %d by %d is not possible; use 1 to %d", cols, rows, maxSize)
	}
	return nil
}

func (m *Manager) add(s *Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.named[s.info.ID]; ok {
		return wire.Errorf(http.StatusConflict, wire.CodeConflict, "terminal %q exists already", s.info.ID)
	}
	if len(m.named) >= maxTerminals {
		return wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "there are %d terminals already; delete some first", maxTerminals)
	}
	m.named[s.info.ID] = s
	m.order = append(m.order, s.info.ID)
	return nil
}

func (m *Manager) remove(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.named[s.info.ID] == s {
		delete(m.named, s.info.ID)
		m.order = slices.DeleteFunc(m.order, func(o string) bool { return o == s.info.ID })
	}
}

// Session finds a terminal.
func (m *Manager) Session(id string) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.named[id]; ok {
		return s, nil
	}
	return nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "terminal %q not found; it may have ended", id)
}

// List describes all terminals, oldest first.
func (m *Manager) List() []wire.PTYInfo {
	m.mu.Lock()
	all := make([]*Session, 0, len(m.order))
	for _, id := range m.order {
		all = append(all, m.named[id])
	}
	m.mu.Unlock()
	list := make([]wire.PTYInfo, 0, len(all))
	for _, s := range all {
		list = append(list, s.Info())
	}
	return list
}

// Delete kills a terminal.
func (m *Manager) Delete(id string) error {
	s, err := m.Session(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.killed = true
	t := s.term
	s.mu.Unlock()
	if t != nil {
		t.Kill()
	}
	m.remove(s)
	return nil
}

// Close ends all terminals.
func (m *Manager) Close(ctx context.Context) {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.named))
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			s.mu.Lock()
			s.killed = true
			t := s.term
			s.mu.Unlock()
			if t != nil {
				t.Terminate(ctx, time.Second)
			}
		})
	}
	wg.Wait()
}

// terminal returns the running terminal and starts it when need be.
func (s *Session) terminal() (*Terminal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != nil {
		return s.term, nil
	}
	if s.killed {
		return nil, gone()
	}
	t, err := start(s.m.runner, process.Command{Login: true, Cwd: s.info.Cwd, Env: s.info.Envs, Call: s.call}, s.info.Cols, s.info.Rows, s.ended)
	var failed *process.StartError
	if errors.As(err, &failed) {
		return nil, wire.BadRequest("cannot start the shell: %s", failed.Reason)
	}
	if err != nil {
		return nil, fmt.Errorf("start the shell of terminal %s: %w", s.info.ID, err)
	}
	s.term = t
	s.info.Active = true
	return t, nil
}

// ended forgets the terminal.
func (s *Session) ended() {
	s.mu.Lock()
	s.info.Active = false
	s.mu.Unlock()
	s.m.remove(s)
}

// Attach starts the shell if need be and adds a client.
func (s *Session) Attach() (*Terminal, *Client, error) {
	t, err := s.terminal()
	if err != nil {
		return nil, nil, err
	}
	return t, t.Attach(), nil
}

// Info describes the terminal.
func (s *Session) Info() wire.PTYInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// Resize changes the size.
func (s *Session) Resize(cols, rows int) (wire.PTYInfo, error) {
	if err := checkSize(cols, rows); err != nil {
		return wire.PTYInfo{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != nil {
		if err := s.term.Resize(cols, rows); err != nil {
			return wire.PTYInfo{}, err
		}
	}
	s.info.Cols, s.info.Rows = cols, rows
	return s.info, nil
}

// ExitReason says in words how a process ended; empty for a plain exit.
func ExitReason(e process.Exit) string {
	if e.Signal == 0 {
		return ""
	}
	return "killed by signal " + unix.SignalName(e.Signal)
}
