// Package api serves the control API: the compatible operations of the
// contract and our extensions, code first. One table (operations.go) says what
// exists and who may call it; a route without a row, or a row that promises a
// route that is not there, stops the construction.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Config is what the API needs.
type Config struct {
	Sandboxes  engine.Sandboxes
	Snapshots  engine.Snapshots
	Toolboxes  engine.Toolboxes
	Events     engine.Events
	Inspector  engine.Inspector
	Services   engine.Services
	Accounts   engine.Accounts
	Previews   engine.Previews
	SSH        engine.SSHDoor // nil: no access by SSH
	SSHGateway *SSHGateway    // nil: none listens
	Guard      *auth.Guard
	// PreviewURLs knows where previews are served.
	PreviewURLs PreviewURLs
	// BaseURL returns the URL under which the caller reaches this server,
	// without a trailing slash.
	BaseURL         func(*http.Request) string
	Ready           func() error
	Shutdown        func() // asks the process to end; nil: not offered
	Version         string
	DefaultSnapshot string
	Region          string // name of the one region
	Issuer          string // of access tokens; empty: keys only
	Log             *slog.Logger
	// Created is told of every sandbox made, for metrics. May be nil.
	Created func(s engine.Sandbox, took time.Duration)
	// KeepAlive is how often silent streams say that they live; 0: 20 s.
	KeepAlive time.Duration
	// Closing ends streams when the server goes down.
	Closing <-chan struct{}
}

// API is the handler of everything below /api.
type API struct {
	Config
	router chi.Router
	huma   huma.API
	table  map[string]Operation
	routed map[string]bool
}

// maxBody bounds the bodies of the control API.
const maxBody = 4 << 20

// New builds the API. It panics when the table and the routes disagree, which
// any test that builds one finds.
func New(c Config) *API {
	a := &API{Config: c, router: chi.NewRouter(), table: map[string]Operation{}, routed: map[string]bool{}}
	for _, o := range append(Operations(), Extensions()...) {
		a.table[o.Key()] = o
	}
	a.huma = huma.NewAPI(a.humaConfig(), adapter{a})
	a.router.Use(a.prepare)
	a.router.NotFound(unknownRoute)
	a.router.MethodNotAllowed(unknownMethod)
	a.register()
	a.complete()
	return a
}

func (a *API) register() {
	a.registerServer()
	a.registerAccount()
	a.registerOrganizations()
	a.registerMembers()
	a.registerQuotas()
	a.registerAudit()
	a.registerSandboxes()
	a.registerLists()
	a.registerSettings()
	a.registerSnapshots()
	a.registerSSH()
	a.registerVolumes()
	a.registerPreviews()
	a.registerServices()
	a.registerExtensions()
}

// complete gives every missing operation its answer.
func (a *API) complete() {
	for key, o := range a.table {
		switch {
		case o.Status == Missing:
			a.route(o.Method, o.Path, missing(o))
		case !a.routed[key]:
			panic("gateway/api: the table promises " + key + " but no handler is registered")
		}
	}
	a.describeRest()
}

func missing(o Operation) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire.WriteError(w, r, wire.NotBuilt(o.Method+" "+o.Path).
			WithHint("docs/compatibility.md lists what is there"))
	})
}

// ServeHTTP serves paths relative to /api.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.router.ServeHTTP(w, r) }

// Routes returns the keys of all operations that have a route.
func (a *API) Routes() map[string]bool { return a.routed }

// OpenAPI returns the document that describes what is built.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// route adds a handler behind the access check of its row.
func (a *API) route(method, path string, h http.Handler) {
	o, ok := a.table[method+" "+path]
	if !ok {
		panic("gateway/api: no row in the table for " + method + " " + path)
	}
	a.routed[o.Key()] = true
	a.router.Method(method, path, a.access(o, a.offered(o, h)))
}

func (a *API) access(o Operation, next http.Handler) http.Handler {
	if o.Access == Public {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if a.Guard.Allow(w, r, auth.LimitAnonymous) {
				next.ServeHTTP(w, r)
			}
		})
	}
	limit, tool := limitOf(o), ToolRequest(o)
	return a.Guard.Require(a.audited(o, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := auth.Permit(caller(r.Context()), o.Access)
		if err == nil {
			err = engine.AuthorizeTool(caller(r.Context()), tool)
		}
		if err != nil {
			wire.WriteError(w, r, err)
			return
		}
		if limit == "" || a.Guard.Allow(w, r, limit) {
			next.ServeHTTP(w, r)
		}
	})))
}

// limitOf names the rate limit that an operation counts towards beside that
// for all requests.
func limitOf(o Operation) string {
	switch o.Key() {
	case "POST /sandbox", "POST /sandbox/{sandboxIdOrName}/fork":
		return auth.LimitCreate
	case "DELETE /sandbox/{sandboxIdOrName}":
		return auth.LimitLifecycle
	}
	name, ok := strings.CutPrefix(o.Key(), "POST /sandbox/{sandboxIdOrName}/")
	switch name {
	case "start", "stop", "pause", "archive", "recover", "resize", "snapshot", "backup":
		if ok {
			return auth.LimitLifecycle
		}
	}
	return ""
}

type baseKey struct{}

// prepare bounds the body and takes every body for JSON: clients send
// body-less POSTs as forms, and some send JSON without saying so.
func (a *API) prepare(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		r.Header.Set("Content-Type", "application/json")
		w.Header().Set("X-Daytona-Api-Version", contractVersion)
		w.Header().Set("Cache-Control", "no-store")
		ctx := context.WithValue(r.Context(), baseKey{}, a.BaseURL(r))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// contractVersion is higher than that of any client, so that none warns.
const contractVersion = "0.999.0"

func baseURL(ctx context.Context) string {
	s, _ := ctx.Value(baseKey{}).(string)
	return s
}

func toolboxURL(ctx context.Context) string { return baseURL(ctx) + "/toolbox" }

func unknownRoute(w http.ResponseWriter, r *http.Request) {
	wire.WriteError(w, r, engine.Errorf(engine.KindNotFound, "Cannot %s %s", r.Method, r.URL.Path))
}

func unknownMethod(w http.ResponseWriter, r *http.Request) {
	p := wire.NewProblem(engine.Errorf(engine.KindInvalid, "Cannot %s %s", r.Method, r.URL.Path))
	p.StatusCode, p.Reason = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
	wire.WriteProblem(w, r, p)
}

// adapter lets huma add its routes through API.route.
type adapter struct{ api *API }

// Handle adds one operation.
func (ad adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	ad.api.route(op.Method, op.Path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(&humaContext{inner: humachi.NewContext(op, r, w)})
	}))
}

// ServeHTTP serves the whole API.
func (ad adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { ad.api.ServeHTTP(w, r) }

func tagOf(path string) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return tag
}
