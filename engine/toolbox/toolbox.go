// Package toolbox is the daemon inside every sandbox. It is PID 1, reaps
// orphans and serves commands, sessions, terminals and files over HTTP on a
// unix socket that only the runner can reach. It trusts its caller entirely and
// protects the host from nothing: the boundary is the sandbox around it.
package toolbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/code"
	"github.com/atoll-sh/atoll/engine/toolbox/files"
	"github.com/atoll-sh/atoll/engine/toolbox/git"
	"github.com/atoll-sh/atoll/engine/toolbox/interpreter"
	"github.com/atoll-sh/atoll/engine/toolbox/lsp"
	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/pty"
	"github.com/atoll-sh/atoll/engine/toolbox/session"
	"github.com/atoll-sh/atoll/engine/toolbox/sudo"
)

// Config is what the toolbox is told at start.
type Config struct {
	Version  string
	Socket   string            // path of the unix socket
	User     string            // default user of commands: name or uid[:gid]; empty is root
	WorkDir  string            // empty: the user's home
	StateDir string            // for logs; empty: the first of the usual places that can be written
	EtcDir   string            // where accounts, hostname and hosts are; usually /etc
	Sudo     string            // path of sudo's socket; empty: no sudo
	Env      map[string]string // of commands
	Init     bool              // this process is PID 1
	Trim     bool              // give memory back when idle
	Log      *slog.Logger
}

// FromEnv reads a Config from environment variables. The variables meant for
// the toolbox, and those that describe its own process, are not handed on to
// commands.
func FromEnv(version string, environ []string, log *slog.Logger) Config {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	take := func(key, fallback string) string {
		v, ok := env[key]
		delete(env, key)
		if !ok || v == "" {
			return fallback
		}
		return v
	}
	c := Config{
		Version: version, Env: env, EtcDir: "/etc", Log: log, Init: os.Getpid() == 1, Trim: true,
		Socket:   take("ATOLL_TOOLBOX_SOCKET", "/run/atoll/toolbox.sock"),
		User:     take("ATOLL_USER", ""),
		WorkDir:  take("ATOLL_WORKDIR", ""),
		StateDir: take("ATOLL_STATE", ""),
	}
	if take("ATOLL_SUDO", "") == "1" {
		c.Sudo = sudo.DefaultSocket
	}
	for _, k := range []string{"HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "HOSTNAME", "TERM", "GODEBUG", "GOMEMLIMIT", "GOGC", "GOMAXPROCS"} {
		delete(env, k)
	}
	return c
}

// Toolbox is the running daemon.
type Toolbox struct {
	config   Config
	started  time.Time
	log      *slog.Logger
	activity *activity
	table    *process.Table
	runner   *process.Runner
	sessions *session.Manager
	ptys     *pty.Manager
	files    *files.FS
	git      *git.Git
	code     *code.Runner
	contexts *interpreter.Manager
	lsp      *lsp.Manager
	desktop  *desktopHost
	sudo     *sudo.Server // nil: off
	trimmer  *trimmer     // nil: off
	cpu      *cpuMeter
	proxy    http.Handler
	tunnels  atomic.Int32 // open now
	server   *http.Server
	served   sync.WaitGroup
	closing  context.Context //nolint:containedctx // ends with Close
	close    context.CancelFunc

	mu       sync.Mutex
	hostname string
}

// New makes a Toolbox that serves no socket yet; its Handler works.
func New(c Config) (*Toolbox, error) {
	t := &Toolbox{config: c, started: time.Now().UTC(), log: c.Log, activity: newActivity(), cpu: newCPUMeter()}
	t.closing, t.close = context.WithCancel(context.Background())
	t.table = process.NewTable(c.Init)
	t.table.Calls = process.NewCalls(c.Socket)
	users := process.NewUsers(c.EtcDir)
	t.runner = process.NewRunner(process.NewSpace(t.table, users, c.User, c.WorkDir, c.Env))
	t.ptys = pty.NewManager(t.runner)
	t.files = files.New(t.runner.Space)
	t.git = git.New(t.runner)
	t.code = code.New(t.runner)
	t.contexts = interpreter.NewManager(t.runner)
	t.lsp = lsp.NewManager(t.runner, t.files)
	t.desktop = newDesktopHost(t.runner, c.Log)
	t.proxy = newProxy()
	state, err := stateDir(c.StateDir)
	if err == nil {
		t.sessions, err = session.NewManager(t.runner, filepath.Join(state, "sessions"))
	}
	if err != nil {
		t.close()
		t.table.Close()
		return nil, err
	}
	if c.WorkDir != "" {
		t.makeWorkDir()
	}
	return t, nil
}

// stateDir returns the first directory that can be written.
func stateDir(wanted string) (string, error) {
	dirs := []string{wanted}
	if wanted == "" {
		dirs = []string{"/var/lib/atoll", "/tmp/.atoll"}
	}
	var errs []error
	for _, d := range dirs {
		err := os.MkdirAll(d, 0o711)
		if err == nil {
			err = unix.Access(d, unix.W_OK)
		}
		if err == nil {
			return d, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("find a directory for state: %w", errors.Join(errs...))
}

// makeWorkDir creates a missing work directory for the user, as image builders
// do. Commands fall back to the home when that is not possible.
func (t *Toolbox) makeWorkDir() {
	if err := t.files.Mkdir(t.runner.WorkDir(), "0755"); err != nil {
		t.log.Warn("make the work directory", "err", err)
	}
}

// Open listens and serves in the background.
func (t *Toolbox) Open() error {
	l, err := listen(t.config.Socket)
	if err != nil {
		return err
	}
	if t.config.Sudo != "" {
		if t.sudo, err = sudo.Open(t.config.Sudo, t.runner, t.log); err != nil {
			t.log.Warn("sudo is not available", "err", err)
		} else if t.config.Init {
			t.linkSudo("/usr/local/bin/sudo")
		}
	}
	t.server = &http.Server{
		Handler:           t.Handler(),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(t.log.Handler(), slog.LevelDebug),
	}
	t.served.Go(func() { _ = t.server.Serve(listener{l}) })
	if t.config.Trim {
		t.trimmer = &trimmer{}
	}
	return nil
}

// linkSudo makes this program answer to the name sudo, ahead of an image's own
// one, which no_new_privs keeps from working. Another program of that name is
// left alone.
func (t *Toolbox) linkSudo(path string) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	if old, err := os.Readlink(path); err == nil && filepath.Base(old) == filepath.Base(exe) {
		os.Remove(path)
	}
	if _, err := os.Lstat(path); err == nil {
		return
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
		err = os.Symlink(exe, path)
	}
	if err != nil {
		t.log.Warn("link sudo", "err", err)
	}
}

// listen makes the socket so that at no moment anybody else can connect.
func listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close the socket's directory to others: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("close the socket to others: %w", err)
	}
	return l, nil
}

// Close ends all processes, first kindly and after grace not, and stops
// serving.
func (t *Toolbox) Close(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	t.close()
	if t.sudo != nil {
		t.sudo.Close()
	}
	t.endAll(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { t.sessions.Close(ctx) })
	wg.Go(func() { t.ptys.Close(ctx) })
	wg.Go(t.contexts.Close)
	wg.Go(t.lsp.Close)
	wg.Go(t.desktop.close)
	wg.Wait()
	if t.server != nil {
		_ = t.server.Close()
		t.served.Wait()
	}
	if t.trimmer != nil {
		t.trimmer.close()
	}
	t.table.Close()
}

// endAll signals everything at once: as PID 1 every process of the sandbox,
// else what this toolbox started.
func (t *Toolbox) endAll(ctx context.Context) {
	if !t.config.Init {
		var wg sync.WaitGroup
		for _, c := range t.table.Children() {
			wg.Go(func() { c.Terminate(ctx, time.Hour) })
		}
		wg.Wait()
		return
	}
	for _, c := range t.table.Children() {
		if c.TTY() {
			_ = c.Signal(unix.SIGHUP) // interactive shells ignore SIGTERM
		}
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	_ = unix.Kill(-1, unix.SIGCONT)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for process.CountProcesses() > 0 {
		select {
		case <-ctx.Done():
			_ = unix.Kill(-1, unix.SIGKILL)
			return
		case <-tick.C:
		}
	}
}
