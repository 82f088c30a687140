package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/reqstream"
	"github.com/atoll-sh/atoll/mcp/tasks"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// Instructions tell a model how to work with sandboxes. Four of five agents
// show them, so they stay under 80 words.
const Instructions = "Isolated Linux computers. Create one with sandbox_create, keep its id and reuse it: files and processes persist between calls. " +
	"Do most work with sandbox_exec; a command that runs longer than 45 s goes on in the background, follow it with sandbox_process. " +
	"Sandboxes stop when idle and start again with sandbox_control; files survive. Delete those you no longer need. " +
	"Errors say which argument is wrong and what to call next."

// cacheMillis is how long clients may keep what does not change.
const cacheMillis = 300_000

// Backend is what the tools work on.
type Backend = tools.Backend

// Options says how to serve. The zero value serves all core tools over stdio
// and refuses HTTP, because nobody can be authenticated.
type Options struct {
	Version string // shown to clients
	Log     *slog.Logger

	// Principal tells who sends an HTTP request. False is answered with 401.
	Principal func(r *http.Request) (engine.Principal, bool)
	// Local is who speaks on stdio. Empty: an administrator of the default
	// organization, whom the backend may still refuse.
	Local engine.Principal
	// LocalScope is what the key is limited to that calls on stdio go out with,
	// where the backend is a client of a server. nil: Local's scope. It is asked
	// for every tool of a list and for every call, so it should not take long.
	LocalScope func(ctx context.Context) engine.Scope
	// Limit counts a call towards the rate limit of the name, sandbox-create or
	// sandbox-lifecycle, and fails when there were too many. nil: none is kept.
	Limit func(ctx context.Context, name string) error
	// Audit is told of every call of a tool. nil: nobody is.
	Audit func(ctx context.Context, e engine.AuditEntry)

	// Approve has the user asked, where the client can, whether to allow what a
	// command was denied. nil: nobody is asked.
	Approve Approve

	Sets []string // toolsets to offer; empty: core
	// LocalDirs are the directories of this computer that the toolset local may
	// copy from and to. Empty: the toolset is empty. Only for stdio.
	LocalDirs []string
	ReadOnly  bool // offer only tools that change nothing

	// AllowedHosts are names, without port, that requests over a loopback
	// connection may carry besides loopback names: those of a reverse proxy.
	AllowedHosts []string
	// AllowedOrigins are web origins, as https://example.com, that may call
	// besides pages served from loopback addresses.
	AllowedOrigins []string
	MaxBody        int64         // of one HTTP request; 0: 16 MiB
	KeepAlive      time.Duration // between comments on silent streams; 0: 15 s
	SessionKey     []byte        // signs session ids; empty: random, so a restart ends sessions
	// Foreground is how long a foreground command may run before it becomes a
	// background process. 0: 45 s.
	Foreground time.Duration
	// TaskGrace is how long a call may take before it becomes a task, for
	// clients that know tasks. 0: 10 s.
	TaskGrace time.Duration
	// NeedsTask tells of tools for such clients only. nil: there are none.
	NeedsTask func(tool string) bool
}

// Server answers agents. It is safe for concurrent use.
type Server struct {
	opt Options
	// byDefault tells that nobody chose the sets in opt.
	byDefault bool
	log       *slog.Logger
	kit       *tools.Kit // nil: tools that keep nothing
	tools     []tools.Tool
	skills    []skillEntry
	inner     *server.MCPServer
	http      *server.StreamableHTTPServer
	sessions  *sessions
	tasks     *tasks.Tasks

	life context.Context // ends with Close, and with it all calls
	stop context.CancelCauseFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

// New returns a server for b. Close it when done.
func New(b Backend, opt Options) (*Server, error) {
	if b.Sandboxes == nil || b.Snapshots == nil || b.Toolboxes == nil {
		return nil, errors.New("mcp: the backend needs sandboxes, snapshots and toolboxes")
	}
	var s *Server
	o := tools.Options{Foreground: opt.Foreground, LocalDirs: opt.LocalDirs}
	if opt.Approve != nil {
		o.Ask = func(ctx context.Context, r engine.AccessRequest) engine.AccessState { return s.ask(ctx, r) }
	}
	kit := tools.New(b, o)
	s, err := newServer(kit.Tools(), opt)
	if err != nil {
		return nil, err
	}
	s.kit = kit
	s.addResources(kit)
	s.addPrompts(kit)
	return s, nil
}

// newServer serves any list of tools.
func newServer(list []tools.Tool, opt Options) (*Server, error) {
	byDefault := len(opt.Sets) == 0
	opt = opt.withDefaults()
	if err := checkSets(opt.Sets); err != nil {
		return nil, err
	}
	s := &Server{opt: opt, byDefault: byDefault, log: opt.Log, tools: list, sessions: newSessions(opt.SessionKey)}
	s.life, s.stop = context.WithCancelCause(context.Background())
	s.inner = server.NewMCPServer("atoll", opt.Version,
		server.WithTitle("Atoll"),
		server.WithDescription("Isolated computers for agents"),
		server.WithInstructions(Instructions),
		// Advertised although the list never changes: a listener that has
		// nothing to listen to loses its acknowledgement in mcp-go.
		server.WithToolCapabilities(true),
		server.WithExtensions(map[string]any{
			skillsExtension: map[string]any{"directoryRead": true},
			tasks.Extension: map[string]any{},
		}),
		server.WithCacheHints(cacheMillis, mcpgo.CacheScopePrivate),
		server.WithToolFilter(s.filter),
		server.WithLogger(opt.Log),
	)
	for _, t := range s.tools {
		s.inner.AddTool(definition(t), s.handler(t))
	}
	if err := s.addSkills(); err != nil {
		return nil, fmt.Errorf("mcp: %w", err)
	}
	s.serve()
	return s, nil
}

// Wrap returns a server that answers with what inner holds, through the same
// guards, sessions and streams as the product. Toolsets mean nothing to it.
func Wrap(inner *server.MCPServer, opt Options) *Server {
	opt = opt.withDefaults()
	s := &Server{opt: opt, log: opt.Log, inner: inner, sessions: newSessions(opt.SessionKey)}
	s.life, s.stop = context.WithCancelCause(context.Background())
	s.serve()
	return s
}

// serve puts the transport over HTTP in front of inner.
func (s *Server) serve() {
	s.tasks = tasks.New(tasks.Config{
		Grace: s.opt.TaskGrace, Required: s.opt.NeedsTask,
		Owner: func(ctx context.Context) string {
			p := principalOf(ctx)
			return p.OrganizationID + " " + p.KeyID
		},
	})
	s.http = server.NewStreamableHTTPServer(s.inner,
		server.WithSessionIdManagerResolver(s.sessions),
		server.WithSessionIdleTTL(2*time.Hour),
		server.WithDisableLocalhostProtection(true), // the guard checks hosts
		server.WithStreamableHTTPLogger(s.log),
	)
}

func (o Options) withDefaults() Options {
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if len(o.Sets) == 0 {
		o.Sets = []string{tools.SetCore}
	}
	if o.Local.OrganizationID == "" {
		o.Local = engine.Principal{OrganizationID: engine.DefaultOrganization, Admin: true}
	}
	if o.MaxBody == 0 {
		o.MaxBody = 16 << 20
	}
	if o.TaskGrace == 0 {
		o.TaskGrace = 10 * time.Second
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 15 * time.Second
	}
	return o
}

// Close ends calls that are under way and open streams, and waits for them.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop(tools.ErrShutdown)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	s.calls.Wait() // these know why they end; what is left waits for its client
	s.tasks.Close()
	if s.kit != nil {
		s.kit.Close(ctx)
	}
	return err
}

// begin notes a call that Close has to wait for. It reports false after Close.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.calls.Add(1)
	return true
}

// definition is t in mcp-go's words. All four annotations are set, because
// clients take a missing one for the worst case.
func definition(t tools.Tool) mcpgo.Tool {
	d := mcpgo.NewToolWithRawSchema(t.Name, t.Description, []byte(t.Schema))
	d.Title = t.Title
	h := t.Hints
	d.Annotations = mcpgo.ToolAnnotation{
		ReadOnlyHint:    &h.ReadOnly,
		DestructiveHint: &h.Destructive,
		IdempotentHint:  &h.Idempotent,
		OpenWorldHint:   &h.OpenWorld,
	}
	return d
}

// handler binds a tool to mcp-go. Whatever goes wrong becomes a tool error: a
// protocol error is not something a model can act on.
func (s *Server) handler(t tools.Tool) server.ToolHandlerFunc {
	return func(ctx context.Context, req mcpgo.CallToolRequest) (*mcpgo.CallToolResult, error) {
		if !s.begin() {
			return mcpgo.NewToolResultError("The server is shutting down. Try again in a moment."), nil
		}
		defer s.calls.Done()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(s.life, func() { cancel(tools.ErrShutdown) })()

		p := newProgress(ctx, req)
		defer p.close()
		began := time.Now()
		res := s.run(ctx, t, tools.Args{
			Organization: principalOf(ctx).OrganizationID,
			Principal:    principalOf(ctx),
			Progress:     p.say,
			Values:       req.Params.Arguments,
		})
		took := time.Since(began)
		s.audit(ctx, t, req.Params.Arguments, res, took)
		s.log.LogAttrs(ctx, slog.LevelInfo, "tool call",
			slog.String("tool", t.Name), slog.String("sandbox", res.Sandbox),
			slog.String("key", principalOf(ctx).KeyID),
			slog.Bool("error", res.IsError), slog.Duration("took", took))
		return result(res), nil
	}
}

// run checks the arguments, runs the tool and survives its panics.
func (s *Server) run(ctx context.Context, t tools.Tool, a tools.Args) (res tools.Result) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("tool panicked", "tool", t.Name, "panic", fmt.Sprint(p))
			res = tools.Fail("Internal error in %s; the call may not have been completed. Check with sandbox_list before repeating it.", t.Name)
		}
	}()
	if err := engine.Authorize(principalOf(ctx), t.Needs(), ""); err != nil {
		e := engine.AsError(err)
		return tools.Fail("%s: %s. Ask your user for one.", e.Message, e.Hint)
	}
	if err := engine.AuthorizeTool(principalOf(ctx), toolRequest(t)); err != nil {
		e := engine.AsError(err)
		return tools.Fail("%s. To go on, %s.", e.Message, e.Hint)
	}
	if name := limitOf(t, a.Values); name != "" && s.opt.Limit != nil {
		if err := s.opt.Limit(ctx, name); err != nil {
			e := engine.AsError(err)
			return tools.Fail("%s: %s.", e.Message, e.Hint)
		}
	}
	return t.Call(ctx, a)
}

func result(r tools.Result) *mcpgo.CallToolResult {
	res := &mcpgo.CallToolResult{IsError: r.IsError, Content: []mcpgo.Content{}}
	if r.Text != "" {
		res.Content = append(res.Content, mcpgo.NewTextContent(r.Text))
	}
	for _, img := range r.Images {
		res.Content = append(res.Content, mcpgo.NewImageContent(img.Base64, img.MIME))
	}
	if len(r.Meta) > 0 {
		res.Meta = mcpgo.NewMetaFromMap(r.Meta)
	}
	return res
}

// progressEvery keeps clients that count silence as death awake.
const progressEvery = 10 * time.Second

// progress sends a call's progress frames, and one on its own when the tool
// has been silent for a while.
type progress struct {
	ctx   context.Context
	token any

	mu     sync.Mutex
	n      int
	closed bool
	began  time.Time
	beat   *time.Timer
}

func newProgress(ctx context.Context, req mcpgo.CallToolRequest) *progress {
	p := &progress{ctx: ctx, began: time.Now()}
	if req.Params.Meta != nil {
		p.token = req.Params.Meta.ProgressToken
	}
	if p.token != nil {
		p.beat = time.AfterFunc(progressEvery, p.silence)
	}
	return p
}

// say sends one message. It is on the wire when say returns.
func (p *progress) say(message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.token == nil || p.closed {
		return
	}
	p.n++
	_, _ = reqstream.Notify(p.ctx, "notifications/progress",
		map[string]any{"progressToken": p.token, "progress": p.n, "message": message})
	p.beat.Reset(progressEvery)
}

func (p *progress) silence() {
	p.say(fmt.Sprintf("working, %d s", int(time.Since(p.began).Seconds())))
}

func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.beat != nil {
		p.beat.Stop()
	}
}

// filter keeps the tools that the request's scope offers. mcp-go applies it to
// the list and to each call. What a policy denies is missing from the list, and
// is answered with the rule's name when it is called all the same.
func (s *Server) filter(ctx context.Context, all []mcpgo.Tool) []mcpgo.Tool {
	var kept []mcpgo.Tool
	for _, d := range all {
		i := slices.IndexFunc(s.tools, func(t tools.Tool) bool { return t.Name == d.Name })
		if i >= 0 && s.offered(ctx, s.tools[i]) && (!listing(ctx) || engine.AuthorizeTool(principalOf(ctx), toolRequest(s.tools[i])) == nil) {
			kept = append(kept, d)
		}
	}
	return kept
}
