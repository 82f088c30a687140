package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// CreateContext makes an interpreter with a state of its own.
func (c *Client) CreateContext(ctx context.Context, q wire.CreateContext) (wire.InterpreterContext, error) {
	var out wire.InterpreterContext
	_, err := c.call(ctx, http.MethodPost, "/process/interpreter/context", nil, q, &out)
	return out, err
}

// Contexts lists interpreters, without the default one.
func (c *Client) Contexts(ctx context.Context) ([]wire.InterpreterContext, error) {
	var out wire.InterpreterContexts
	_, err := c.call(ctx, http.MethodGet, "/process/interpreter/context", nil, nil, &out)
	return out.Contexts, err
}

// DeleteContext ends an interpreter.
func (c *Client) DeleteContext(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodDelete, "/process/interpreter/context/"+url.PathEscape(id), nil, nil, nil)
	return err
}

// Interpret runs a program in an interpreter that keeps its state, and hands on
// what it says. It returns the text of the control chunk, completed or
// interrupted. After its timeout the error has the code wire.CodeExecTimeout.
// When ctx ends, the program is interrupted.
func (c *Client) Interpret(ctx context.Context, q wire.InterpreterExecute, each func(wire.InterpreterChunk) error) (string, error) {
	conn, err := c.dial(ctx, "/process/interpreter/execute", nil)
	if err != nil {
		return "", err
	}
	defer conn.CloseNow()
	b, err := json.Marshal(q)
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, b)
	}
	if err != nil {
		return "", fmt.Errorf("send a program: %w", err)
	}
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return "", interpretError(err)
		}
		var chunk wire.InterpreterChunk
		if err := json.Unmarshal(b, &chunk); err != nil {
			return "", fmt.Errorf("read a program's output: %w", err)
		}
		if chunk.Type == wire.ChunkControl {
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return chunk.Text, nil
		}
		if err := each(chunk); err != nil {
			return "", err
		}
	}
}

func interpretError(err error) error {
	var end websocket.CloseError
	if !errors.As(err, &end) {
		return fmt.Errorf("read a program's output: %w", err)
	}
	switch end.Code {
	case wire.CloseTimeout:
		return wire.Errorf(http.StatusRequestTimeout, wire.CodeExecTimeout, "%s", end.Reason)
	case websocket.StatusPolicyViolation:
		return wire.BadRequest("%s", end.Reason)
	case websocket.StatusGoingAway:
		return wire.Errorf(http.StatusGone, wire.CodeSessionEnded, "%s", end.Reason)
	}
	return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "the toolbox closed the connection: %s", end.Reason)
}
