package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/mcp/reqstream"
)

// maxLine is the longest message on stdio.
const maxLine = 64 << 20

// stdioCalls is how many requests of one stdio client run at once. More wait,
// while notifications are always read, so a cancellation gets through.
const stdioCalls = 64

// ServeStdio answers the client on in and out until in ends or ctx is done.
// Requests that came before the end are answered before it returns. Nothing
// but messages is written to out.
func (s *Server) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(withPrincipal(ctx, s.opt.Local))
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()

	c := &stdio{server: s, lines: reqstream.NewLines(out), slots: make(chan struct{}, stdioCalls)}
	c.session = server.NewInProcessSession(server.GenerateInProcessSessionID(), nil)
	if err := s.inner.RegisterSession(ctx, c.session); err != nil {
		return fmt.Errorf("register stdio session: %w", err)
	}
	defer s.inner.UnregisterSession(context.WithoutCancel(ctx), c.session.SessionID())
	ctx = c.lines.Context(s.inner.WithContext(ctx, c.session))
	c.questions = newQuestions(c.session, c.lines.WriteMessage)
	ctx = context.WithValue(ctx, questionsKey{}, c.questions)

	listen, unlisten := context.WithCancel(ctx)
	var forward sync.WaitGroup
	forward.Go(func() { c.forward(listen) })
	err := c.read(ctx, listen, in)
	unlisten()
	if err != nil {
		cancel()
	}
	c.requests.Wait()
	forward.Wait()
	return err
}

// stdio is one connection.
type stdio struct {
	server    *Server
	session   *server.InProcessSession
	lines     *reqstream.Lines
	questions *questions
	slots     chan struct{}
	requests  sync.WaitGroup
}

// forward writes what mcp-go sends outside of requests, until ctx is done.
func (c *stdio) forward(ctx context.Context) {
	for {
		select {
		case n := <-c.session.ClientNotifications():
			if err := c.lines.WriteMessage(n); err != nil {
				c.server.log.Error("write notification", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// read takes messages until in ends. Long listening requests run on listen,
// which ends with the input; all others are answered first.
func (c *stdio) read(ctx, listen context.Context, in io.Reader) error {
	lines := make(chan []byte)
	failed := make(chan error, 1)
	// This goroutine may stay in Read until the process ends or its owner
	// closes in: a pipe cannot be read with a context.
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(in)
		scan.Buffer(make([]byte, 64<<10), maxLine)
		for scan.Scan() {
			line := append([]byte(nil), scan.Bytes()...)
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
		failed <- scan.Err()
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return readError(ctx, failed)
			}
			c.message(ctx, listen, line)
		case <-ctx.Done():
			return nil
		}
	}
}

func readError(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		if errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("read message: longer than %d bytes", maxLine)
		}
		if err != nil {
			return fmt.Errorf("read message: %w", err)
		}
		return nil
	case <-ctx.Done():
		return nil
	}
}

// message answers a request on its own goroutine and handles anything else at
// once, so that a cancellation never waits behind the call it cancels.
func (c *stdio) message(ctx, listen context.Context, line []byte) {
	if len(line) == 0 {
		return
	}
	var m struct {
		ID     any    `json:"id"`
		Method string `json:"method"`
	}
	if json.Unmarshal(line, &m) != nil || m.ID == nil || m.Method == "" {
		if m.Method == "" && c.questions.answered(m.ID, line) {
			return
		}
		c.answer(ctx, m.ID, m.Method, line)
		return
	}
	if m.Method == string(mcpgo.MethodSubscriptionsListen) {
		c.requests.Go(func() { c.answer(listen, m.ID, m.Method, line) })
		return
	}
	c.requests.Go(func() {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		c.answer(ctx, m.ID, m.Method, line)
	})
}

func (c *stdio) answer(ctx context.Context, id any, method string, line []byte) {
	response := c.handle(ctx, id, method, line)
	if response == nil {
		return
	}
	if err := c.lines.WriteMessage(response); err != nil {
		c.server.log.Error("write response", "error", err)
	}
}

func (c *stdio) handle(ctx context.Context, id any, method string, line []byte) (response mcpgo.JSONRPCMessage) {
	defer func() {
		if p := recover(); p != nil {
			c.server.log.Error("message handler panicked", "panic", fmt.Sprint(p))
			if id != nil {
				response = mcpgo.NewJSONRPCError(mcpgo.NewRequestId(id), mcpgo.INTERNAL_ERROR, "internal error", nil)
			}
		}
	}()
	if answer := c.server.extension(method, line); answer != nil {
		return answer
	}
	return c.server.inner.HandleMessage(ctx, line)
}
