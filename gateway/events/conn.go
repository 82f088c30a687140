package events

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/coder/websocket"
	"github.com/oklog/ulid/v2"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/policies"
)

// conn is one client. serve's goroutine writes all frames; a second one, which
// serve waits for, reads.
type conn struct {
	ws         *websocket.Conn
	limits     Limits
	config     Config
	remote     string
	toolboxURL string

	token     string
	principal engine.Principal
}

// ended is why a connection is over, in the words of the close frame.
type ended struct {
	code   websocket.StatusCode
	reason string
}

// Error returns the reason.
func (e *ended) Error() string { return e.reason }

func end(code websocket.StatusCode, reason string) error { return &ended{code, reason} }

// farewell is how long a peer has to answer a close frame.
const farewell = time.Second

// serve speaks with the client until one side has enough or ctx ends, and
// closes the connection.
func (c *conn) serve(ctx context.Context) (websocket.StatusCode, string) {
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	packets := make(chan string)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.read(reading, packets)
	}()
	e := c.outcome(ctx, c.talk(ctx, packets))
	// The end of the reader's context cuts a peer that does not say goodbye.
	cut := time.AfterFunc(farewell, stop)
	_ = c.ws.Close(e.code, e.reason)
	cut.Stop()
	stop()
	<-gone
	return e.code, e.reason
}

// outcome names the end of a conversation.
func (c *conn) outcome(ctx context.Context, err error) *ended {
	var e *ended
	switch {
	case ctx.Err() != nil:
		return &ended{websocket.StatusGoingAway, "the server is going down"}
	case errors.As(err, &e):
		return e
	}
	c.config.Log.ErrorContext(ctx, "event stream", "error", err)
	return &ended{websocket.StatusInternalError, "internal error"}
}

// read hands the client's packets on, and closes the channel when there are no
// more.
func (c *conn) read(ctx context.Context, packets chan<- string) {
	defer close(packets)
	for {
		kind, b, err := c.ws.Read(ctx)
		if err != nil || kind != websocket.MessageText {
			return
		}
		select {
		case packets <- string(b):
		case <-ctx.Done():
			return
		}
	}
}

// talk is the whole conversation.
func (c *conn) talk(ctx context.Context, packets <-chan string) error {
	if err := c.sendJSON(ctx, "0", handshake{
		SID: ulid.Make().String(), Upgrades: []string{}, PingInterval: c.limits.PingInterval.Milliseconds(),
		PingTimeout: c.limits.PingTimeout.Milliseconds(), MaxPayload: maxPayload,
	}); err != nil {
		return err
	}
	// Watch begins before the client hears that it is connected, so that it
	// misses nothing from then on.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.admit(ctx, packets); err != nil {
		return err
	}
	revoked := ctx
	if c.config.Lasting != nil {
		var stop context.CancelFunc
		revoked, stop = c.config.Lasting(ctx, c.principal, c.token)
		defer stop()
	}
	changes, err := c.config.Events.Watch(auth.With(ctx, c.principal), c.principal.OrganizationID)
	if err != nil {
		return c.refuse(ctx, err)
	}
	if err := c.sendJSON(ctx, "40", connected{ulid.Make().String()}); err != nil {
		return err
	}
	return c.stream(ctx, revoked.Done(), packets, changes)
}

type handshake struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int64    `json:"pingInterval"`
	PingTimeout  int64    `json:"pingTimeout"`
	MaxPayload   int      `json:"maxPayload"`
}

type connected struct {
	SID string `json:"sid"`
}

// refused is the body of a connect error.
type refused struct {
	Message string `json:"message"`
}

// admit waits for the connect packet and learns whom its token belongs to.
func (c *conn) admit(ctx context.Context, packets <-chan string) error {
	late := time.NewTimer(c.limits.Connect)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return end(websocket.StatusPolicyViolation, "no connect packet")
		case p, ok := <-packets:
			if !ok {
				return end(websocket.StatusNormalClosure, "")
			}
			if p == "6" { // noop
				continue
			}
			return c.connect(ctx, p)
		}
	}
}

func (c *conn) connect(ctx context.Context, packet string) error {
	namespace, body, err := parseConnect(packet)
	if err != nil {
		return err
	}
	if namespace != "/" {
		return c.reject(ctx, "44"+namespace+",", "Invalid namespace")
	}
	p, err := c.config.Authenticate(ctx, c.remote, body.Token)
	if err == nil {
		err = engine.AuthorizeTool(p, policies.ToolRequest{Tool: "GET /events"})
	}
	if err != nil {
		return c.refuse(ctx, err)
	}
	c.token, c.principal = body.Token, p
	return nil
}

func (c *conn) refuse(ctx context.Context, err error) error {
	e := engine.AsError(err)
	if e.Kind == engine.KindInternal {
		c.config.Log.ErrorContext(ctx, "event stream refused", "error", err)
	}
	return c.reject(ctx, "44", e.Message)
}

// reject sends a connect error and ends the connection, which has no use then.
func (c *conn) reject(ctx context.Context, prefix, message string) error {
	if err := c.sendJSON(ctx, prefix, refused{message}); err != nil {
		return err
	}
	return end(websocket.StatusNormalClosure, "")
}

// stream passes changes on and keeps the connection alive. A token that has
// become invalid ends it, at the next ping at the latest.
func (c *conn) stream(ctx context.Context, revoked <-chan struct{}, packets <-chan string, changes <-chan engine.Event) error {
	ping := time.NewTicker(c.limits.PingInterval)
	defer ping.Stop()
	pong := time.NewTimer(c.limits.PingInterval + c.limits.PingTimeout)
	defer pong.Stop()
	for {
		var err error
		select {
		case <-ctx.Done(): // without a disconnect packet, so that clients wait before they try again
			return ctx.Err()
		case <-revoked:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			err = c.expel(ctx)
		case <-pong.C:
			return end(websocket.StatusPolicyViolation, "ping timeout")
		case <-ping.C:
			err = c.ping(ctx)
		case p, ok := <-packets:
			if !ok {
				return end(websocket.StatusNormalClosure, "")
			}
			pong.Reset(c.limits.PingInterval + c.limits.PingTimeout)
			err = hear(p)
		case e, ok := <-changes:
			if !ok {
				return end(websocket.StatusTryAgainLater, "too slow")
			}
			err = c.tell(ctx, e)
		}
		if err != nil {
			return err
		}
	}
}

func (c *conn) ping(ctx context.Context) error {
	_, err := c.config.Authenticate(ctx, c.remote, c.token)
	if engine.KindOf(err) == engine.KindUnauthenticated {
		return c.expel(ctx)
	}
	return c.send(ctx, "2")
}

// expel ends the connection of a token that is no longer good.
func (c *conn) expel(ctx context.Context) error {
	_ = c.send(ctx, "41")
	return end(websocket.StatusPolicyViolation, "the token is no longer valid")
}

func (c *conn) tell(ctx context.Context, e engine.Event) error {
	name, payload := translate(e, c.toolboxURL, c.config.Region)
	if name == "" {
		return nil
	}
	return c.sendJSON(ctx, "42", []any{name, payload})
}

func (c *conn) sendJSON(ctx context.Context, prefix string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.send(ctx, prefix+string(b))
}

// send writes one frame. A client that does not take it in time is cut, sooner
// when the server goes down. The frame itself is never cut short by that: the
// goodbye comes after it.
func (c *conn) send(ctx context.Context, frame string) error {
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.limits.Write)
	defer cancel()
	defer context.AfterFunc(ctx, func() { // ends with write at the latest
		select {
		case <-time.After(farewell):
			cancel()
		case <-write.Done():
		}
	})()
	err := c.ws.Write(write, websocket.MessageText, []byte(frame))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case write.Err() != nil:
		return end(websocket.StatusTryAgainLater, "too slow")
	}
	return end(websocket.StatusAbnormalClosure, "the client went away")
}
