package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Entrypoint is the reserved id of the session that shows the image's own
// program.
const Entrypoint = "entrypoint"

// maxSessions bounds how many sessions there may be.
const maxSessions = 256

// Manager holds all sessions.
type Manager struct {
	runner *process.Runner
	dir    string

	mu         sync.Mutex
	sessions   map[string]*Session // nil while the shell starts
	order      []string
	next       int
	entrypoint *entrypoint
}

// entrypoint is the image's program; it is no shell.
type entrypoint struct {
	child   *process.Child
	command *Command
	wg      sync.WaitGroup
}

// NewManager keeps logs below dir, which it empties: sessions do not outlive
// the toolbox.
func NewManager(r *process.Runner, dir string) (*Manager, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("empty the directory of sessions: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the directory of sessions: %w", err)
	}
	return &Manager{runner: r, dir: dir, sessions: map[string]*Session{}}, nil
}

// Create starts a session.
func (m *Manager) Create(id, call string) error {
	switch {
	case id == "":
		return wire.BadRequest("sessionId: it is empty; choose a name")
	case id == Entrypoint:
		return wire.BadRequest("sessionId: %q is reserved; choose another name", id)
	case len(id) > 256 || strings.ContainsAny(id, "/\x00"):
		return wire.BadRequest("sessionId: use at most 256 characters, without / and NUL")
	}
	dir, err := m.reserve(id)
	if err != nil {
		return err
	}
	s, err := start(m.runner, id, dir, call)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.forgetLocked(id)
		return startFailure(err)
	}
	m.sessions[id] = s
	return nil
}

func (m *Manager) reserve(id string) (dir string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sessions[id]; ok {
		return "", wire.Errorf(http.StatusConflict, wire.CodeConflict, "session %q exists already", id)
	}
	if len(m.sessions) >= maxSessions {
		return "", wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "there are %d sessions already; delete some first", maxSessions)
	}
	m.sessions[id] = nil
	m.order = append(m.order, id)
	m.next++
	return filepath.Join(m.dir, strconv.Itoa(m.next)), nil
}

func (m *Manager) forgetLocked(id string) {
	delete(m.sessions, id)
	m.order = slices.DeleteFunc(m.order, func(o string) bool { return o == id })
}

func (m *Manager) session(id string) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[id]; s != nil {
		return s, nil
	}
	return nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "session %q not found", id)
}

// Session describes one session, the entrypoint's included.
func (m *Manager) Session(id string) (wire.Session, error) {
	if id == Entrypoint {
		e, err := m.entry()
		if err != nil {
			return wire.Session{}, err
		}
		return wire.Session{SessionID: Entrypoint, Commands: []wire.Command{e.command.Wire()}}, nil
	}
	s, err := m.session(id)
	if err != nil {
		return wire.Session{}, err
	}
	return s.Wire(), nil
}

// List describes all sessions but the entrypoint's, oldest first.
func (m *Manager) List() []wire.Session {
	m.mu.Lock()
	var all []*Session
	for _, id := range m.order {
		if s := m.sessions[id]; s != nil {
			all = append(all, s)
		}
	}
	m.mu.Unlock()
	list := make([]wire.Session, 0, len(all))
	for _, s := range all {
		list = append(list, s.Wire())
	}
	return list
}

// Execute queues a command for a call of the server's ledger; it runs when those before it have ended.
func (m *Manager) Execute(id, command string, async, echo bool, call string) (*Command, error) {
	switch {
	case strings.TrimSpace(command) == "":
		return nil, wire.BadRequest("command: it is empty; give a shell command line")
	case len(command) > process.MaxCommand:
		return nil, wire.BadRequest("command: it is %d bytes long and the limit is 1 MiB; upload it as a file and run that", len(command))
	case strings.IndexByte(command, 0) >= 0:
		return nil, wire.BadRequest("command: it holds a NUL byte at offset %d; remove it", strings.IndexByte(command, 0))
	}
	s, err := m.session(id)
	if err != nil {
		return nil, err
	}
	return s.submit(command, async, echo, call)
}

// Command finds a command of a session.
func (m *Manager) Command(id, command string) (*Command, error) {
	if id == Entrypoint {
		e, err := m.entry()
		if err != nil {
			return nil, err
		}
		if command != "" && command != e.command.ID {
			return nil, wire.Errorf(http.StatusNotFound, wire.CodeProcessNotFound, "command %q not found in the entrypoint session", command)
		}
		return e.command, nil
	}
	s, err := m.session(id)
	if err != nil {
		return nil, err
	}
	return s.command(command)
}

// Delete ends a session: SIGTERM, five seconds, SIGKILL.
func (m *Manager) Delete(ctx context.Context, id string) error {
	if id == Entrypoint {
		return wire.BadRequest("the entrypoint session ends with the sandbox; it cannot be deleted")
	}
	s, err := m.session(id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	gone := m.sessions[id] != s
	if !gone {
		m.forgetLocked(id)
	}
	m.mu.Unlock()
	if gone {
		return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "session %q not found", id)
	}
	s.close(ctx)
	return nil
}

// Close ends all sessions.
func (m *Manager) Close(ctx context.Context) {
	m.mu.Lock()
	all := m.sessions
	m.sessions, m.order = map[string]*Session{}, nil
	e := m.entrypoint
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range all {
		if s != nil {
			wg.Go(func() { s.close(ctx) })
		}
	}
	if e != nil {
		e.child.Terminate(ctx, 5*time.Second)
		e.wg.Wait()
	}
	wg.Wait()
}

func (m *Manager) entry() (*entrypoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entrypoint == nil {
		return nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "this sandbox has no entrypoint")
	}
	return m.entrypoint, nil
}

// StartEntrypoint runs the image's program. It does so once; later calls are
// ignored, so that a repeated identity does no harm. A program that cannot be
// started leaves its reason in the log.
func (m *Manager) StartEntrypoint(argv []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entrypoint != nil {
		return nil
	}
	m.next++
	log, err := newLog(filepath.Join(m.dir, strconv.Itoa(m.next)+".log"))
	if err != nil {
		return fmt.Errorf("make the log of the entrypoint: %w", err)
	}
	c := &Command{ID: Entrypoint, Text: strings.Join(argv, " "), Log: log, done: make(chan struct{})}
	p, err := m.runner.Start(process.Command{Argv: argv}, false, true)
	var failed *process.StartError
	if errors.As(err, &failed) {
		log.Write(Stderr, []byte(failed.Reason+"\n"))
		c.finish(failed.Code)
		m.entrypoint = &entrypoint{command: c, child: process.Ended(failed.Code)}
		return nil
	}
	if err != nil {
		log.close()
		os.Remove(log.f.Name())
		return err
	}
	e := &entrypoint{command: c, child: p.Child()}
	m.entrypoint = e
	e.wg.Go(func() { e.watch(p) })
	return nil
}

// watch records the program's output until it has ended.
func (e *entrypoint) watch(p *process.Process) {
	var streams sync.WaitGroup
	streams.Go(func() { record(p.Stdout, e.child.Done(), e.command.Log, Stdout) })
	streams.Go(func() { record(p.Stderr, e.child.Done(), e.command.Log, Stderr) })
	code := e.child.Exit().Code
	streams.Wait()
	e.command.finish(code)
}
