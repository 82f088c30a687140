package toolbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/desktop"
	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// workerIdle is how long a worker without a desktop waits for another call.
	workerIdle = 10 * time.Second
	// workerGrace is how long a worker has to end the desktop.
	workerGrace = 8 * time.Second
	// maxSession bounds what a worker says of its environment.
	maxSession = 16 << 10
)

// desktopHost is the toolbox's part of the desktop. All else is done by a
// worker: this program again, in another process and as the sandbox's user. It
// is started with the desktop and ends with it; a call about recordings alone
// starts one for a moment.
type desktopHost struct {
	runner *process.Runner
	log    *slog.Logger

	mu     sync.Mutex
	worker *worker // nil: none
	closed bool
}

// worker is a running worker.
type worker struct {
	child *process.Child
	dir   string // of its socket
	proxy *httputil.ReverseProxy
	users int         // calls under way
	up    bool        // it has a desktop
	idle  *time.Timer // ends it; runs while it has neither calls nor a desktop
}

func newDesktopHost(r *process.Runner, log *slog.Logger) *desktopHost {
	return &desktopHost{runner: r, log: log}
}

// acquire returns the worker, starting one if that is wanted; without one it
// returns nil. The caller releases it.
func (h *desktopHost) acquire(spawn bool) (*worker, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.worker; w != nil && ended(w.child) {
		h.log.Warn("the desktop's worker ended", "exit", w.child.Exit().Code)
		h.dropLocked(w)
	}
	if h.worker == nil && spawn {
		if h.closed {
			return nil, desktop.NotStarted()
		}
		w, err := h.spawn()
		if err != nil {
			return nil, wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "start the desktop's worker: %v", err)
		}
		w.idle = time.AfterFunc(time.Hour, func() { h.expire(w) })
		h.worker = w
	}
	if w := h.worker; w != nil {
		w.users++
		w.idle.Stop()
	}
	return h.worker, nil
}

func ended(c *process.Child) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

func (h *desktopHost) release(w *worker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.users--; w.users == 0 && !w.up && h.worker == w {
		w.idle.Reset(workerIdle)
	}
}

// expire ends a worker that nobody needs.
func (h *desktopHost) expire(w *worker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.worker == w && w.users == 0 && !w.up {
		h.dropLocked(w)
	}
}

// setUp notes whether the worker has a desktop.
func (h *desktopHost) setUp(w *worker, session map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.worker == w {
		w.up = session != nil
		h.runner.SetDesktop(session)
	}
}

// dropLocked ends the worker with all it started.
func (h *desktopHost) dropLocked(w *worker) {
	h.worker = nil
	h.runner.SetDesktop(nil)
	w.idle.Stop()
	w.child.Terminate(context.Background(), workerGrace)
	w.proxy.Transport.(*http.Transport).CloseIdleConnections()
	os.RemoveAll(w.dir)
}

// close ends the desktop for good.
func (h *desktopHost) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.worker != nil {
		h.dropLocked(h.worker)
	}
}

// spawn starts a worker. It inherits the socket that it serves, whose path only
// the toolbox can reach.
func (h *desktopHost) spawn() (*worker, error) {
	dir, err := os.MkdirTemp("", "atoll-worker-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "s")
	child, err := h.launch(path)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &worker{child: child, dir: dir, proxy: &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", "desktop" },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
			DisableCompression: true,
			IdleConnTimeout:    30 * time.Second,
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			err = wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "the desktop broke off: %v; start it again", err)
			fail(h.log, &writer{ResponseWriter: w}, r, err)
		},
	}}, nil
}

func (h *desktopHost) launch(socket string) (*process.Child, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path stays, for us
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	u := h.runner.User()
	env := h.runner.Environ(u, nil)
	env["PWD"] = "/"
	return h.runner.Table.Start(process.Spec{
		// Not by its path, which the user need not be able to reach.
		Path: "/proc/self/exe", Argv: []string{DesktopWorker}, Env: process.List(env), Dir: "/", Cred: u.Credential(),
		Files: []int{int(null.Fd()), int(null.Fd()), 2, int(file.Fd())},
	})
}

// session asks the worker for the environment of its desktop. The answer comes
// from the sandbox's user, who may run what they like anyway.
func (w *worker) session(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://desktop"+sessionPath, nil)
	if err != nil {
		return nil, err
	}
	res, err := w.proxy.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var env map[string]string
	if err := json.NewDecoder(io.LimitReader(res.Body, maxSession)).Decode(&env); err != nil {
		return nil, err
	}
	return env, process.CheckEnv("session", env)
}

// serve answers a call about the desktop.
func (h *desktopHost) serve(rw http.ResponseWriter, r *http.Request, need need) error {
	if need == needImage {
		if err := desktop.Missing(h.runner.Environ(h.runner.User(), nil)["PATH"]); err != nil {
			return err
		}
	}
	w, err := h.acquire(need == needImage || need == needWorker)
	if err != nil {
		return err
	}
	if w == nil {
		return h.without(rw, r, need)
	}
	defer h.release(w)
	switch {
	case need == needDesktop && !w.up:
		return h.without(rw, r, need)
	case r.URL.Path == startPath:
		return h.start(w, rw, r)
	}
	w.proxy.ServeHTTP(rw, r)
	if r.URL.Path == stopPath {
		h.setUp(w, nil)
	}
	return nil
}

// start has the worker start the desktop, and later commands appear on it.
func (h *desktopHost) start(w *worker, rw http.ResponseWriter, r *http.Request) error {
	held := &heldAnswer{header: http.Header{}}
	w.proxy.ServeHTTP(held, r)
	if held.status < 300 {
		env, err := w.session(r.Context())
		if err != nil {
			return fmt.Errorf("learn of the desktop: %w", err)
		}
		h.setUp(w, env)
	}
	return held.send(rw)
}

// heldAnswer keeps a small answer until it may be sent.
type heldAnswer struct {
	header http.Header
	status int
	body   []byte
}

// Header returns the headers.
func (a *heldAnswer) Header() http.Header { return a.header }

// WriteHeader notes the status.
func (a *heldAnswer) WriteHeader(status int) { a.status = status }

// Write keeps a part of the body.
func (a *heldAnswer) Write(p []byte) (int, error) {
	if len(a.body)+len(p) > maxSession {
		return 0, errors.New("the answer is too long")
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

func (a *heldAnswer) send(w http.ResponseWriter) error {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.status)
	_, err := w.Write(a.body)
	return err
}

// without answers a call while there is no desktop.
func (h *desktopHost) without(w http.ResponseWriter, r *http.Request, need need) error {
	switch need {
	case needStatus:
		return writeJSON(w, http.StatusOK, wire.DesktopStatus{Status: wire.DesktopInactive})
	case needProcess:
		name := r.PathValue("process")
		if err := desktop.CheckName(name); err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, wire.DesktopProcessStatus{ProcessName: name})
	case needStop:
		return writeJSON(w, http.StatusOK, wire.DesktopChange{Message: "the desktop is not started", Status: desktop.Stopped()})
	}
	if err := desktop.Missing(h.runner.Environ(h.runner.User(), nil)["PATH"]); err != nil {
		return err
	}
	return desktop.NotStarted()
}
