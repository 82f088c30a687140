// Package proxy forwards requests to the toolboxes inside sandboxes: it
// streams both ways, lets WebSocket upgrades pass, keeps credentials out of
// the sandbox and keeps callers out of the toolbox's internal paths.
package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Proxy forwards to toolboxes.
type Proxy struct {
	toolboxes engine.Toolboxes
	log       *slog.Logger
	buffers   buffers
	closing   context.Context
	close     context.CancelFunc
	open      sync.WaitGroup
}

// New returns a Proxy. Close ends it.
func New(t engine.Toolboxes, log *slog.Logger) *Proxy {
	ctx, cancel := context.WithCancel(context.Background())
	return &Proxy{toolboxes: t, log: log, closing: ctx, close: cancel}
}

// Close cuts open streams that were upgraded, which an HTTP server does not
// know of, and waits until all requests are over or ctx ends.
func (p *Proxy) Close(ctx context.Context) error {
	p.close()
	done := make(chan struct{})
	go func() { p.open.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Handler serves prefix + {idOrName} + infix + a toolbox path, for requests
// whose principal is known. The infix is "" or, for the older form, "/toolbox".
func (p *Proxy) Handler(prefix, infix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, err := parse(r.URL.EscapedPath(), prefix, infix)
		if err != nil {
			fail(w, r, err)
			return
		}
		p.forward(w, r, t)
	})
}

// target is where a request goes.
type target struct {
	sandbox string
	path    string // decoded
	raw     string // as the caller encoded it
}

// parse takes a request's path apart. The toolbox must see the very path that
// was judged here, so everything that a cleaning or decoding step could read
// in another way is refused.
func parse(escaped, prefix, infix string) (target, error) {
	rest, ok := strings.CutPrefix(escaped, prefix)
	if !ok {
		return target{}, engine.Errorf(engine.KindNotFound, "Cannot reach %s", escaped)
	}
	id, rest, _ := strings.Cut(rest, "/")
	name, err := url.PathUnescape(id)
	if err != nil || name == "" || strings.ContainsAny(name, "/\\\x00") {
		return target{}, engine.Errorf(engine.KindInvalid, "the path names no sandbox")
	}
	raw, ok := strings.CutPrefix("/"+rest, infix)
	if !ok {
		return target{}, engine.Errorf(engine.KindNotFound, "Cannot reach %s", escaped)
	}
	if raw == "" {
		raw = "/"
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil || !clean(decoded) {
		return target{}, engine.Errorf(engine.KindInvalid, "the path holds empty, . or .. parts").
			WithHint("file paths go into the query")
	}
	return target{sandbox: name, path: decoded, raw: raw}, allowed(decoded, raw)
}

func clean(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "\\\x00;") {
		return false
	}
	trimmed := p
	if len(p) > 1 {
		trimmed = strings.TrimSuffix(p, "/")
	}
	return path.Clean(p) == trimmed
}

// The internal paths that callers may use: the streaming exec of the command
// line, and connections to ports.
const (
	execPath   = "/internal/exec"
	tunnelPath = "/internal/tunnel"
)

func allowed(decoded, raw string) error {
	first, _, _ := strings.Cut(decoded[1:], "/")
	if !strings.EqualFold(first, "internal") || raw == decoded && (decoded == execPath || decoded == tunnelPath) {
		return nil
	}
	return engine.Errorf(engine.KindDenied, "this path is for the server alone")
}

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, t target) {
	p.open.Add(1)
	defer p.open.Done()
	ctx, cancel := p.lifetime(r)
	defer cancel()
	transport, err := p.toolboxes.Toolbox(ctx, engine.SandboxRef{
		OrganizationID: auth.Organization(ctx), IDOrName: t.sandbox,
	})
	if err != nil {
		fail(w, r, err)
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // answers may begin before the body ends
	body := &watchedBody{ReadCloser: r.Body}
	r.Body = body
	rp := httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { rewrite(pr.Out, t) },
		Transport:      transport,
		FlushInterval:  -1,
		BufferPool:     &p.buffers,
		ModifyResponse: distrust,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if broken := body.failure(); broken != nil && r.Context().Err() == nil {
				err = broken
			}
			p.failed(w, r, err)
		},
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	rp.ServeHTTP(final{w}, r.WithContext(ctx))
}

// final drops informational answers. The reverse proxy passes them on before
// distrust sees anything, and a hostile toolbox could send them without end.
type final struct{ http.ResponseWriter }

// WriteHeader passes on the status that ends the answer's head.
func (f final) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols {
		f.ResponseWriter.WriteHeader(code)
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (f final) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// watchedBody remembers that the caller's body could not be read, so that the
// toolbox is not blamed for it.
type watchedBody struct {
	io.ReadCloser
	broken atomic.Pointer[engine.Error]
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.broken.Store(engine.Errorf(engine.KindInvalid, "the request's body broke off or is malformed").Wrap(err))
	}
	return n, err
}

func (b *watchedBody) failure() error {
	if e := b.broken.Load(); e != nil {
		return e
	}
	return nil
}

// lifetime ends upgraded streams together with the proxy; other requests are
// the HTTP server's to end.
func (p *Proxy) lifetime(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	if !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		return ctx, cancel
	}
	stop := context.AfterFunc(p.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// secrets are the headers that must not reach a sandbox.
func secrets() []string {
	return []string{"Authorization", "Cookie", "Proxy-Authorization", "X-Daytona-Preview-Token", "X-Api-Key", "X-Daytona-Organization-Id"}
}

func rewrite(out *http.Request, t target) {
	out.URL.Scheme, out.URL.Host = "http", "toolbox"
	out.URL.Path, out.URL.RawPath = t.path, t.raw
	out.Host = "toolbox"
	for _, h := range secrets() {
		out.Header.Del(h)
	}
	if strings.Contains(out.URL.RawQuery, "DAYTONA_SANDBOX_AUTH_KEY") {
		q := out.URL.Query()
		q.Del("DAYTONA_SANDBOX_AUTH_KEY")
		out.URL.RawQuery = q.Encode()
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // do not invent one
	}
}

// distrust takes from an answer what a hostile sandbox could use against its
// caller: redirects that would carry the key elsewhere, and headers that speak
// for the gateway's whole origin.
func distrust(res *http.Response) error {
	if res.StatusCode >= 300 && res.StatusCode < 400 && res.StatusCode != http.StatusNotModified {
		return errRedirect
	}
	for _, h := range foreign() {
		res.Header.Del(h)
	}
	for h := range res.Header {
		if strings.HasPrefix(h, "Access-Control-") {
			delete(res.Header, h)
		}
	}
	res.Header.Set("X-Content-Type-Options", "nosniff")
	res.Header.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	return nil
}

// foreign are the headers by which an answer would act on the gateway's origin
// or send a browser elsewhere.
func foreign() []string {
	return []string{
		"Set-Cookie", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Service-Worker-Allowed", "Www-Authenticate",
		"Refresh", "Link", "Nel", "Report-To", "Reporting-Endpoints",
	}
}

var errRedirect = errors.New("the toolbox answered with a redirect")

func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	var known *engine.Error
	if r.Context().Err() == nil && !errors.As(err, &known) {
		p.log.WarnContext(r.Context(), "toolbox request failed", "error", err)
		problem := wire.NewProblem(engine.Errorf(engine.KindUnavailable, "the sandbox did not answer").
			WithHint("its toolbox may be starting or gone; look at the sandbox's state"))
		problem.StatusCode, problem.Reason = http.StatusBadGateway, http.StatusText(http.StatusBadGateway)
		problem.Source = wire.SourceProxy
		wire.WriteProblem(w, r, problem)
		return
	}
	if ctxErr := r.Context().Err(); ctxErr != nil {
		err = ctxErr
	}
	fail(w, r, err)
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	problem := wire.NewProblem(err)
	problem.Source = wire.SourceProxy
	wire.WriteProblem(w, r, problem)
}

// buffers lends the copy buffers of streams.
type buffers struct{ pool sync.Pool }

const bufferSize = 256 << 10

// Get returns a buffer.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, bufferSize)
}

// Put takes a buffer back.
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
