package toolbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/interpreter"
	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// interpreterRoutes lists the operations of stateful interpreters.
func (t *Toolbox) interpreterRoutes() []route {
	return []route{
		{"GET /process/interpreter/context", brief, t.listContexts},
		{"POST /process/interpreter/context", brief, t.createContext},
		{"DELETE /process/interpreter/context/{context}", brief, t.deleteContext},
		{"GET /process/interpreter/execute", work, t.interpret},
	}
}

func (t *Toolbox) listContexts(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, wire.InterpreterContexts{Contexts: t.contexts.List()})
}

func (t *Toolbox) createContext(w http.ResponseWriter, r *http.Request) error {
	var q wire.CreateContext
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	c, err := t.contexts.Create(q, process.CallOf(r.Context()))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}

func (t *Toolbox) deleteContext(w http.ResponseWriter, r *http.Request) error {
	if err := t.contexts.Delete(r.PathValue("context")); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"message": "interpreter context deleted"})
}

// maxProgram bounds the message that holds a program, whose text may be escaped.
const maxProgram = 32 << 20

// interpret runs one program. Leaving interrupts it.
func (t *Toolbox) interpret(w http.ResponseWriter, r *http.Request) error {
	conn, err := upgrade(w, r)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxProgram)
	q, err := program(r.Context(), conn)
	if err != nil {
		_ = conn.Close(websocket.StatusPolicyViolation, reason(err))
		return nil
	}
	ctx := conn.CloseRead(r.Context())
	err = t.contexts.Execute(ctx, q, func(c wire.InterpreterChunk) error {
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, b)
	})
	status, text := closing(err)
	_ = conn.Close(status, text)
	return nil
}

func program(ctx context.Context, conn *websocket.Conn) (wire.InterpreterExecute, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var q wire.InterpreterExecute
	_, b, err := conn.Read(ctx)
	if err != nil {
		return q, errors.New("no program came")
	}
	if err := json.Unmarshal(b, &q); err != nil {
		return q, fmt.Errorf("the message is not valid: %w", err)
	}
	return q, nil
}

// closing says how the connection ends.
func closing(err error) (websocket.StatusCode, string) {
	var bad *wire.Error
	var died *interpreter.DiedError
	switch {
	case err == nil:
		return websocket.StatusNormalClosure, ""
	case errors.Is(err, interpreter.ErrTimeout):
		return wire.CloseTimeout, reason(err)
	case errors.As(err, &died):
		return websocket.StatusGoingAway, reason(fmt.Errorf("%w (exit code %d)", err, died.Code))
	case errors.As(err, &bad) && bad.Status < 500:
		return websocket.StatusPolicyViolation, reason(err)
	}
	return websocket.StatusInternalError, reason(err)
}

// reason fits a text into a close frame.
func reason(err error) string {
	const most = 120
	s := err.Error()
	if len(s) > most {
		s = s[:most]
	}
	return s
}
