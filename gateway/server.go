// Package gateway is the door of a server: it authenticates, routes and
// forwards, and holds no state of its own. Everything behind it is reached
// through the interfaces of package engine.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/events"
	"github.com/atoll-sh/atoll/gateway/preview"
	"github.com/atoll-sh/atoll/gateway/proxy"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Config is what a gateway needs. Listen and the services are required.
type Config struct {
	Listen    string // host:port; port 0 takes a free one
	Sandboxes engine.Sandboxes
	Snapshots engine.Snapshots
	Toolboxes engine.Toolboxes
	Events    engine.Events
	Keys      engine.Keys
	Inspector engine.Inspector
	Services  engine.Services
	Accounts  engine.Accounts
	Previews  engine.Previews
	SSH       engine.SSHDoor // access to sandboxes by SSH; nil: not offered
	// SSHGateway is where the SSH gateway is; nil: nowhere.
	SSHGateway *api.SSHGateway
	MCP        http.Handler         // serves /mcp and /mcp/x/{set}; nil: not offered
	Ready      func() error         // nil: always ready
	Metrics    *prometheus.Registry // nil: an own one
	// Census counts the sandboxes of all organizations by state, for the
	// metrics; nil: not counted.
	Census    func(ctx context.Context) (map[engine.State]int, error)
	Log       *slog.Logger       // nil: nowhere
	Shutdown  func()             // asked for by an administrator; nil: not offered
	Limits    []engine.RateLimit // beside the one for failed authentication
	Issuer    string             // of access tokens that Keys takes; empty: keys only
	PublicURL string             // how clients reach us; empty: as they did
	Hosts     []string           // further host names that browsers may use
	KeepAlive time.Duration      // of silent event streams; 0: 20 s
	Version   string
	TLS       *tls.Config // nil: plain HTTP
	// PreviewDomain is the name below which previews live; empty: that of
	// PublicURL, or localhost with the port that is listened on.
	PreviewDomain string
	// PreviewPaths serves previews below /preview/, for servers below whose
	// name there are no others.
	PreviewPaths bool
	// DefaultSnapshot and Region are told to clients; empty: atoll-small, local.
	DefaultSnapshot, Region string
}

// Server is a listening gateway.
type Server struct {
	config   Config
	listener net.Listener
	http     *http.Server
	proxy    *proxy.Proxy
	previews *preview.Previews
	metrics  *metrics
	api      *api.API
	events   *events.Server
	closing  chan struct{}
	served   chan error // one value, when serving is over
	once     sync.Once
	closeErr error
}

// Open listens and begins to serve. When it returns, requests are answered.
func Open(ctx context.Context, c Config) (*Server, error) {
	c = withDefaults(c)
	m, err := newMetrics(c.Metrics, c.Census)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, (&engine.Error{
			Kind: engine.KindUnavailable, Message: "cannot listen on " + c.Listen, Err: err,
		}).WithHint("choose another address with --listen")
	}
	s := &Server{config: c, listener: l, metrics: m, closing: make(chan struct{}), served: make(chan error, 1)}
	s.proxy = proxy.New(c.Toolboxes, c.Log)
	guard := auth.New(c.Keys, time.Now, c.Limits...)
	if c.Issuer != "" {
		guard.WithIssuer(s.issuer())
	}
	s.previews = preview.New(s.previewConfig(guard))
	s.http = &http.Server{
		Handler:           s.handler(guard),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    256 << 10,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		TLSConfig:         c.TLS,
	}
	go func() { s.served <- s.serve() }()
	return s, nil
}

func (s *Server) serve() error {
	if s.config.TLS != nil {
		return s.http.ServeTLS(s.listener, "", "")
	}
	return s.http.Serve(s.listener)
}

func (s *Server) previewConfig(g *auth.Guard) preview.Config {
	c := s.config
	domain := preview.Domain(c.PreviewDomain)
	if domain == "" {
		domain = preview.DefaultDomain(s.URL())
	}
	return preview.Config{
		Links: c.Previews, Toolboxes: c.Toolboxes, Guard: g, Proxy: s.proxy, Domain: domain,
		Secure: strings.HasPrefix(s.URL(), "https://"), Paths: c.PreviewPaths, Now: time.Now, Log: c.Log,
	}
}

func withDefaults(c Config) Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.DefaultSnapshot == "" {
		c.DefaultSnapshot = "atoll-small"
	}
	if c.Region == "" {
		c.Region = "local"
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	return c
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// URL is the server's own URL, without a trailing slash.
func (s *Server) URL() string {
	if s.config.PublicURL != "" {
		return s.config.PublicURL
	}
	if s.config.TLS != nil {
		return "https://" + reachable(s.listener.Addr())
	}
	return "http://" + reachable(s.listener.Addr())
}

// PreviewURL is where a port is seen, for callers that came another way than
// through HTTP. label is a sandbox's id or a link's token.
func (s *Server) PreviewURL(port int, label string) string {
	return s.previews.URL(s.URL(), port, label)
}

// reachable replaces the unspecified address, which nobody can connect to.
func reachable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
}

// Close stops to listen, lets requests end until ctx does, then cuts them. It
// may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	s.once.Do(func() { s.closeErr = s.shut(ctx) })
	return s.closeErr
}

func (s *Server) shut(ctx context.Context) error {
	close(s.closing)
	streams := errors.Join(s.previews.Close(ctx), s.proxy.Close(ctx), s.events.Close(ctx))
	graceful := s.http.Shutdown(ctx)
	cut := s.http.Close()
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	}
	return errors.Join(streams, graceful, cut)
}

// Routes returns the keys of the control API's operations that are routed.
func (s *Server) Routes() map[string]bool { return s.api.Routes() }

func (s *Server) handler(guard *auth.Guard) http.Handler {
	browsers := auth.NewBrowsers(s.hosts()...).Without(s.previews.Below)
	s.api = api.New(s.apiConfig(guard))
	s.events = events.New(events.Config{
		Events: s.config.Events, Authenticate: guard.AuthenticateToken, Lasting: guard.Lasting, Region: s.config.Region, Log: s.config.Log,
		ToolboxURL: func(r *http.Request) string { return s.baseURL(r) + "/toolbox" },
	})

	// A command or terminal lasts as long as its caller wants, a key may not.
	toolbox := func(next http.Handler) http.Handler { return auth.Toolbox(guard.Stream(next)) }
	r := chi.NewRouter()
	r.Use(s.observe, s.recoverPanics, s.previews.Hosts, browsers.CheckHost, auth.CORS)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, r, engine.Errorf(engine.KindNotFound, "Cannot %s %s", r.Method, r.URL.Path))
	})
	r.Get("/healthz", s.healthz)
	r.Get("/readyz", s.readyz)
	r.Get("/metrics", s.guardMetrics(guard))
	r.Handle("/toolbox/*", s.previews.Files(guard.Require(toolbox(s.proxy.Handler("/toolbox/", "")))))
	r.Handle("/api/toolbox/*", guard.Require(toolbox(s.proxy.Handler("/api/toolbox/", "/toolbox"))))
	r.Handle("/preview/*", s.previews.Paths())
	mcp := browsers.CheckOrigin(guard.Require(guard.Stream(s.mcp())))
	r.Handle("/mcp", mcp)
	r.Handle("/mcp/*", mcp)
	if s.config.Issuer != "" {
		r.Get(auth.MetadataPath, guard.Metadata())
		r.Get(auth.MetadataPath+"/mcp", guard.Metadata())
		r.Get(auth.MetadataPath+"/mcp/*", guard.Metadata())
	}
	r.Handle("/api/socket.io", s.events)
	r.Handle("/api/socket.io/", s.events)
	r.Mount("/api", s.api)
	return r
}

func (s *Server) apiConfig(g *auth.Guard) api.Config {
	c := s.config
	return api.Config{
		Sandboxes: c.Sandboxes, Snapshots: c.Snapshots, Toolboxes: c.Toolboxes, Events: c.Events, Inspector: c.Inspector, Services: c.Services,
		Accounts: c.Accounts, Previews: c.Previews, PreviewURLs: s.previews, SSH: c.SSH, SSHGateway: c.SSHGateway,
		Guard: g, BaseURL: s.baseURL, Ready: c.Ready, Shutdown: c.Shutdown, Version: c.Version,
		DefaultSnapshot: c.DefaultSnapshot, Region: c.Region, Log: c.Log,
		Issuer: c.Issuer, Created: s.metrics.created, Closing: s.closing, KeepAlive: c.KeepAlive,
	}
}

func (s *Server) hosts() []string {
	_, public, _ := strings.Cut(s.config.PublicURL, "://")
	public, _, _ = strings.Cut(public, "/")
	return append([]string{public, s.config.Listen}, s.config.Hosts...)
}

// baseURL is how this caller reached us, unless we know better.
func (s *Server) baseURL(r *http.Request) string {
	switch {
	case s.config.PublicURL != "":
		return s.config.PublicURL
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// issuer describes two resources to clients that look for tokens: agents' tools
// at /mcp, and all of the server.
func (s *Server) issuer() *auth.Issuer {
	resource := func(path string) string {
		path = strings.TrimPrefix(path, auth.MetadataPath)
		if path == "/mcp" || strings.HasPrefix(path, "/mcp/") {
			return "/mcp"
		}
		return ""
	}
	return &auth.Issuer{
		URL:      s.config.Issuer,
		Resource: func(r *http.Request) string { return s.baseURL(r) + resource(r.URL.Path) },
		Metadata: func(r *http.Request) string { return s.baseURL(r) + auth.MetadataPath + resource(r.URL.Path) },
	}
}

// maxMCP bounds the bodies of MCP requests; files travel in them.
const maxMCP = 64 << 20

func (s *Server) mcp() http.Handler {
	if s.config.MCP == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			writeError(w, r, wire.NotBuilt("MCP over HTTP on this server"))
		})
	}
	return http.MaxBytesHandler(s.config.MCP, maxMCP)
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	wire.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok", "version": s.config.Version})
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.config.Ready(); err != nil {
		e := engine.AsError(err)
		writeError(w, r, engine.Errorf(engine.KindUnavailable, "not ready: %s", e.Message).WithHint("%s", e.Hint))
		return
	}
	wire.WriteJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

// writeError is the gateway's one way to answer with an error; wire.StatusOf
// holds the mapping of kinds to statuses.
func writeError(w http.ResponseWriter, r *http.Request, err error) { wire.WriteError(w, r, err) }
