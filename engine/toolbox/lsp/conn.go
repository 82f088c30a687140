package lsp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
)

// message is any message of JSON-RPC.
type message struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *RemoteError    `json:"error,omitempty"`
}

// RemoteError is a refusal of the language server.
type RemoteError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error says what it said.
func (e *RemoteError) Error() string { return fmt.Sprintf("%.400s (%d)", e.Message, e.Code) }

// methodNotFound is JSON-RPC's code for it.
const methodNotFound = -32601

// errEnded tells that the server's output has ended.
var errEnded = errors.New("the language server ended")

// conn calls a language server and answers its questions.
type conn struct {
	out  chan []byte // framed messages; one goroutine writes them
	done chan struct{}
	err  error // why it ended; valid once done is closed

	mu      sync.Mutex
	next    int
	waiting map[string]chan message
}

// newConn speaks over the two streams until the server's ends. Run reads and
// write writes; both end when the streams are closed.
func newConn() *conn {
	return &conn{out: make(chan []byte, 64), done: make(chan struct{}), waiting: map[string]chan message{}}
}

// write sends messages until the connection has ended.
func (c *conn) write(w io.Writer) {
	for {
		select {
		case b := <-c.out:
			if _, err := w.Write(b); err != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}

// read serves what the server says until it ends or talks nonsense.
func (c *conn) read(r io.Reader) {
	in := bufio.NewReaderSize(r, maxHeader)
	for {
		b, err := readFrame(in)
		if err == nil {
			err = c.handle(b)
		}
		if err != nil {
			if err == io.EOF {
				err = errEnded
			}
			c.err = err
			close(c.done)
			return
		}
	}
}

// handle takes one message of the server.
func (c *conn) handle(b []byte) error {
	var m struct {
		message
		Params json.RawMessage `json:"params"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	switch {
	case m.Method != "" && len(m.ID) > 0:
		c.answer(m.ID, m.Method, m.Params)
	case m.Method == "" && len(m.ID) > 0:
		c.mu.Lock()
		waiter := c.waiting[string(m.ID)]
		delete(c.waiting, string(m.ID))
		c.mu.Unlock()
		if waiter != nil {
			waiter <- m.message // has room for one
		}
	}
	return nil // notifications, as of diagnostics, are nobody's
}

// answer answers a question of the server: there are no settings, and nobody
// edits files for it.
func (c *conn) answer(id json.RawMessage, method string, params json.RawMessage) {
	m := message{Version: "2.0", ID: id, Result: json.RawMessage("null")}
	switch method {
	case "workspace/configuration":
		var q struct{ Items []json.RawMessage }
		_ = json.Unmarshal(params, &q)
		m.Result, _ = json.Marshal(make([]any, min(len(q.Items), 1000)))
	case "workspace/applyEdit":
		m.Result = json.RawMessage(`{"applied":false}`)
	case "client/registerCapability", "client/unregisterCapability", "window/workDoneProgress/create", "window/showMessageRequest", "workspace/workspaceFolders":
	default:
		m.Result, m.Error = nil, &RemoteError{Code: methodNotFound, Message: "this client does not know " + method}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return
	}
	select {
	case c.out <- frame(b):
	default: // a server that asks and does not read gets no answer
	}
}

// send queues a message.
func (c *conn) send(ctx context.Context, m message) error {
	m.Version = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	select {
	case c.out <- frame(b):
		return nil
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notify tells the server something.
func (c *conn) notify(ctx context.Context, method string, params any) error {
	return c.send(ctx, message{Method: method, Params: params})
}

// call asks the server and decodes its answer into result, unless that is nil.
// When ctx ends the server is told that nobody waits any more.
func (c *conn) call(ctx context.Context, method string, params, result any) error {
	waiter := make(chan message, 1)
	c.mu.Lock()
	c.next++
	id := strconv.Itoa(c.next)
	c.waiting[id] = waiter
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err := c.send(ctx, message{ID: json.RawMessage(id), Method: method, Params: params}); err != nil {
		return err
	}
	select {
	case m := <-waiter:
		if m.Error != nil {
			return m.Error
		}
		if result == nil || len(m.Result) == 0 {
			return nil
		}
		if err := json.Unmarshal(m.Result, result); err != nil {
			return fmt.Errorf("read the answer to %s: %w", method, err)
		}
		return nil
	case <-c.done:
		return c.err
	case <-ctx.Done():
		b, _ := json.Marshal(message{Version: "2.0", Method: "$/cancelRequest", Params: map[string]json.RawMessage{"id": json.RawMessage(id)}})
		select {
		case c.out <- frame(b):
		default:
		}
		return ctx.Err()
	}
}
