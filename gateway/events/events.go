// Package events tells Socket.IO clients what changes: the part of the
// contract that lets a client wait for a state without asking again and again.
// It speaks Engine.IO protocol 4 over WebSocket and Socket.IO protocol 5, and
// of these only what a listener needs: one namespace, no binary packets, no
// acknowledgements, no long polling. What a client emits is ignored.
package events

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Config is what the server needs. Events, Authenticate and ToolboxURL are
// required.
type Config struct {
	Events engine.Events
	// Authenticate returns whom a token belongs to. remote is the address of
	// the peer.
	Authenticate func(ctx context.Context, remote, token string) (engine.Principal, error)
	// Lasting returns a context that ends when the token no longer is good.
	// nil: that is noticed at the next ping.
	Lasting func(ctx context.Context, p engine.Principal, token string) (context.Context, context.CancelFunc)
	// ToolboxURL returns the base URL of toolboxes for the caller.
	ToolboxURL func(*http.Request) string
	Region     string       // told in snapshots; may be empty
	Log        *slog.Logger // nil: nowhere
	Limits     Limits       // zero fields: the defaults
}

// Limits bound what a client can cost.
type Limits struct {
	Connections  int           // at the same time
	PingInterval time.Duration // between two pings
	PingTimeout  time.Duration // for a pong
	Connect      time.Duration // from the handshake to a token
	Write        time.Duration // for a client to take one frame
}

// maxPayload bounds a frame of a client: the largest is its token.
const maxPayload = 16 << 10

func (l Limits) withDefaults() Limits {
	if l.Connections == 0 {
		l.Connections = 4096
	}
	if l.PingInterval == 0 {
		l.PingInterval = 25 * time.Second
	}
	if l.PingTimeout == 0 {
		l.PingTimeout = 20 * time.Second
	}
	if l.Connect == 0 {
		l.Connect = 10 * time.Second
	}
	if l.Write == 0 {
		l.Write = 10 * time.Second
	}
	return l
}

// Server serves the connections. Close ends them.
type Server struct {
	config Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	served sync.WaitGroup

	mu     sync.Mutex
	open   int
	closed bool
}

// New returns a server.
func New(c Config) *Server {
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends all connections and waits until they are gone or ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	gone := make(chan struct{})
	go func() { // ends with the last connection, which cancel has ended
		s.served.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ServeHTTP upgrades to a WebSocket and serves it until one side leaves.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if refused := refusal(r); refused != nil {
		wire.WriteJSON(w, http.StatusBadRequest, refused)
		return
	}
	if !s.enter() {
		wire.WriteError(w, r, engine.Errorf(engine.KindUnavailable, "too many event streams are open").
			WithHint("close some, or ask for states instead"))
		return
	}
	defer s.leave()
	// A page of any origin may listen: it must know a token, and no cookie is
	// ever one.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxPayload)
	c := &conn{
		ws: ws, limits: s.config.Limits, config: s.config,
		remote: auth.RemoteIP(r), toolboxURL: s.config.ToolboxURL(r),
	}
	code, reason := c.serve(s.ctx)
	s.config.Log.Debug("event stream ended", "remote", c.remote, "code", int(code), "reason", reason)
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.open >= s.config.Limits.Connections {
		return false
	}
	s.open++
	s.served.Add(1)
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	s.served.Done()
}

// engineError is the body by which Engine.IO refuses a handshake.
type engineError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func refusal(r *http.Request) *engineError {
	q := r.URL.Query()
	switch {
	case q.Get("transport") != "websocket":
		return &engineError{0, "Transport unknown"}
	case q.Has("sid"): // would upgrade a polling session, of which there are none
		return &engineError{1, "Session ID unknown"}
	case r.Method != http.MethodGet:
		return &engineError{2, "Bad handshake method"}
	case q.Get("EIO") != "4":
		return &engineError{5, "Unsupported protocol version"}
	}
	return nil
}
