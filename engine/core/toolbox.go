package core

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

type toolboxes struct{ *Core }

// Toolbox returns the way into one started sandbox. It may be kept for many
// calls; each checks that the sandbox still runs. Calls and open streams
// count as activity.
func (t toolboxes) Toolbox(ctx context.Context, ref engine.SandboxRef) (http.RoundTripper, error) {
	tb, err := t.reach(ctx, ref)
	if err != nil {
		return nil, err
	}
	return tb, nil
}

func (t toolboxes) reach(ctx context.Context, ref engine.SandboxRef) (*toolbox, error) {
	if t.Dialer == nil {
		return nil, engine.Errorf(engine.KindUnsupported, "this server does not reach toolboxes")
	}
	sb, err := t.route(ctx, ref)
	if err != nil {
		return nil, public(err)
	}
	if !running(&sb) {
		return nil, notStarted(&sb)
	}
	return &toolbox{core: t.Core, id: sb.ID, name: sb.Name, pool: t.pools.of(sb.ID, sb.Incarnation)}, nil
}

type toolbox struct {
	core     *Core
	id, name string
	pool     *pool
}

// RoundTrip sends a request to the toolbox. The paths by which the runner
// steers the toolbox are refused.
func (t *toolbox) RoundTrip(req *http.Request) (*http.Response, error) {
	if internal(req.URL.Path) {
		return nil, closeBody(req, engine.Errorf(engine.KindDenied, "path %s is not for callers", quote(req.URL.Path)))
	}
	return t.counted(req)
}

// counted sends a request, which is activity unless it is quiet.
func (t *toolbox) counted(req *http.Request) (*http.Response, error) {
	end := func() {}
	if !engine.Quiet(req.Context()) {
		end = t.core.activity.begin(t.id, t.core.Now)
	}
	return t.send(t.recorded(req), end)
}

// send forwards a request and calls end when the answer is over.
func (t *toolbox) send(req *http.Request, end func()) (*http.Response, error) {
	inner, to := req.WithContext(req.Context()), *req.URL
	to.Scheme, to.Host = "http", "toolbox"
	inner.URL, inner.RequestURI = &to, ""
	send := t.pool.transport.RoundTrip
	if short(req) {
		send = t.pool.exchange
	}
	resp, err := send(inner)
	if err != nil {
		end()
		return nil, t.failed(req.Context(), err)
	}
	resp.Request = req
	resp.Body = watched(req.Context(), resp.Body, end)
	return resp, nil
}

// The internal paths that callers may use: a command with live streams, as any
// exec, and a connection to a port.
const (
	streamExec = "/internal/exec"
	tunnelPath = "/internal/tunnel"
)

// internal tells whether a path leads to the toolbox's own business, also
// when it is written in a roundabout way.
func internal(p string) bool {
	p = path.Clean("/" + p)
	return p == "/internal" || strings.HasPrefix(p, "/internal/") && p != streamExec && p != tunnelPath
}

// closeBody keeps the promise of a RoundTripper that fails.
func closeBody(req *http.Request, err error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return err
}

func (t *toolbox) failed(ctx context.Context, err error) error {
	var known *engine.Error
	switch {
	case ctx.Err() != nil:
		return engine.AsError(ctx.Err())
	case errors.As(err, &known):
		return known
	case t.pool.ctx.Err() != nil:
		return engine.Errorf(engine.KindConflict, "sandbox %s was stopped", t.name).WithHint("is the sandbox started? Start it first").Wrap(err)
	}
	t.core.suspect()
	return engine.Errorf(engine.KindUnavailable, "the toolbox of sandbox %s does not answer", t.name).
		WithHint("try again; if it stays so, stop and start the sandbox").Wrap(err)
}

// suspect asks for a look at what really runs.
func (c *Core) suspect() {
	select {
	case c.suspects <- struct{}{}:
	default:
	}
}

// Suspects is where core tells that something may be wrong on a runner.
func (c *Core) Suspects() <-chan struct{} { return c.suspects }

// watched ends the activity when the body is closed or the request's context
// ends. The body of an upgraded connection stays writable.
func watched(ctx context.Context, body io.ReadCloser, end func()) io.ReadCloser {
	stop := context.AfterFunc(ctx, end)
	done := func() { stop(); end() }
	if rw, ok := body.(io.ReadWriteCloser); ok {
		return &watchedStream{rw, done}
	}
	return &watchedBody{body, done}
}

type watchedBody struct {
	io.ReadCloser
	done func()
}

func (b *watchedBody) Close() error { defer b.done(); return b.ReadCloser.Close() }

func (b *watchedBody) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, b.ReadCloser) }

type watchedStream struct {
	io.ReadWriteCloser
	done func()
}

func (b *watchedStream) Close() error { defer b.done(); return b.ReadWriteCloser.Close() }

func (b *watchedStream) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, b.ReadWriteCloser) }

func (b *watchedStream) ReadFrom(r io.Reader) (int64, error) { return io.Copy(b.ReadWriteCloser, r) }

// pools holds the open connections to toolboxes.
type pools struct {
	core *Core

	mu sync.Mutex
	m  map[string]*pool
}

// pool is the connections to one incarnation of one sandbox. A connection to
// an older one must never be used, since another process answers there.
type pool struct {
	incarnation uint64
	connect     func(ctx context.Context) (net.Conn, error)
	transport   *http.Transport // for what does not fit a lane
	lanes       lanes
	ctx         context.Context // ends when the incarnation does
	cancel      context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newPools(c *Core) *pools { return &pools{core: c, m: map[string]*pool{}} }

func (p *pools) of(id string, incarnation uint64) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	cur, ok := p.m[id]
	if ok && cur.incarnation == incarnation {
		return cur
	}
	if ok {
		cur.close()
	}
	fresh := newPool(p.core.Dialer, id, incarnation)
	p.m[id] = fresh
	return fresh
}

func newPool(d ToolboxDialer, id string, incarnation uint64) *pool {
	p := &pool{incarnation: incarnation, conns: map[net.Conn]struct{}{}}
	p.connect = func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, id) }
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
		// No limit of time for headers: a command may run for hours
		// before it answers.
		MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: idleTime, DisableCompression: true,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
		MaxResponseHeaderBytes: maxHead,
	}
	return p
}

func (p *pool) dial(ctx context.Context) (net.Conn, error) {
	if p.ctx.Err() != nil {
		return nil, p.ctx.Err()
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{conn, p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		_ = conn.Close()
		return nil, p.ctx.Err()
	}
	p.conns[tracked] = struct{}{}
	return tracked, nil
}

// An upload is large once it has this many bytes. From then on it has larger
// buffers, and more may be on its way: each time that a buffer is full or empty
// costs a switch between two processes.
const large = 1 << 20

// widen raises a connection's send buffer, where that is allowed.
func widen(c net.Conn) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*large)
		})
	}
}

type trackedConn struct {
	net.Conn
	pool *pool
}

// copyBuffers lends the buffers of uploads, largeBuffers those of large ones.
var (
	copyBuffers  = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, large); return &b }}
)

// ReadFrom is what the HTTP transport copies a request's body with.
func (c *trackedConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := copyWith(&copyBuffers, c.Conn, io.LimitReader(r, large))
	if err != nil || n < large {
		return n, err
	}
	widen(c.Conn)
	m, err := copyWith(&largeBuffers, c.Conn, r)
	return n + m, err
}

func copyWith(buffers *sync.Pool, w io.Writer, r io.Reader) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
}

func (c *trackedConn) Close() error {
	c.pool.mu.Lock()
	delete(c.pool.conns, c)
	c.pool.mu.Unlock()
	return c.Conn.Close()
}

// close ends all connections, those that stream too.
func (p *pool) close() {
	p.cancel()
	p.mu.Lock()
	conns := p.conns
	p.conns = map[net.Conn]struct{}{}
	p.mu.Unlock()
	for c := range conns {
		_ = c.(*trackedConn).Conn.Close()
	}
	p.transport.CloseIdleConnections()
	p.closeLanes()
}

func (p *pools) drop(id string) {
	p.mu.Lock()
	cur, ok := p.m[id]
	delete(p.m, id)
	p.mu.Unlock()
	if ok {
		cur.close()
	}
}

func (p *pools) closeAll() {
	p.mu.Lock()
	all := p.m
	p.m = map[string]*pool{}
	p.mu.Unlock()
	for _, cur := range all {
		cur.close()
	}
}
