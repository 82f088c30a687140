package toolbox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/pty"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (t *Toolbox) listPTYs(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, wire.PTYList{Sessions: t.ptys.List()})
}

func (t *Toolbox) createPTY(w http.ResponseWriter, r *http.Request) error {
	var q wire.PTYCreate
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	s, err := t.ptys.Create(q, process.CallOf(r.Context()))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.PTYCreated{SessionID: s.Info().ID})
}

func (t *Toolbox) getPTY(w http.ResponseWriter, r *http.Request) error {
	s, err := t.ptys.Session(r.PathValue("pty"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s.Info())
}

func (t *Toolbox) deletePTY(w http.ResponseWriter, r *http.Request) error {
	if err := t.ptys.Delete(r.PathValue("pty")); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"message": "PTY session deleted"})
}

func (t *Toolbox) resizePTY(w http.ResponseWriter, r *http.Request) error {
	var q wire.PTYResize
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	s, err := t.ptys.Session(r.PathValue("pty"))
	var e *wire.Error
	if errors.As(err, &e) { // the contract says gone, since a terminal vanishes with its shell
		return wire.Errorf(http.StatusGone, wire.CodeGone, "%s", e.Message)
	}
	info, err := s.Resize(q.Cols, q.Rows)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}

// createConnectPTY makes a terminal and attaches in one upgrade. What is wrong
// is answered before it, as plain HTTP.
func (t *Toolbox) createConnectPTY(w http.ResponseWriter, r *http.Request) error {
	q := wire.PTYCreate{ID: r.URL.Query().Get("id"), Cwd: r.URL.Query().Get("cwd")}
	for name, to := range map[string]*int{"cols": &q.Cols, "rows": &q.Rows} {
		n, err := integer(r, name, 0)
		if err != nil {
			return err
		}
		if n < 0 || n > 1<<16 || (n == 0 && r.URL.Query().Get(name) != "") {
			return wire.BadRequest("%s: %d is not possible; use 1 to 1000", name, n)
		}
		*to = int(n)
	}
	env, err := ptyEnv(offered(r))
	if err != nil {
		return err
	}
	q.Envs = env
	if !isUpgrade(r) {
		return wire.BadRequest("this call needs a WebSocket")
	}
	s, err := t.ptys.Create(q, process.CallOf(r.Context()))
	if err != nil {
		return err
	}
	return t.attach(w, r, s)
}

// ptyEnv reads the environment that is carried as a sub-protocol, because
// browsers cannot send headers or a body with an upgrade.
func ptyEnv(protocols []string) (map[string]string, error) {
	for _, p := range protocols {
		enc, ok := cutPrefixFold(p, wire.PTYEnvsProtocol)
		if !ok {
			continue
		}
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(enc, "="))
		env := map[string]string{}
		if err == nil {
			err = json.Unmarshal(b, &env)
		}
		if err != nil {
			return nil, wire.BadRequest("sub-protocol %s: it must hold a JSON object of strings as base64url", strings.TrimSuffix(wire.PTYEnvsProtocol, "~"))
		}
		return env, nil
	}
	return nil, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

func (t *Toolbox) connectPTY(w http.ResponseWriter, r *http.Request) error {
	s, err := t.ptys.Session(r.PathValue("pty"))
	if err != nil {
		return err
	}
	return t.attach(w, r, s)
}

// attach serves one client of a terminal until either ends.
func (t *Toolbox) attach(w http.ResponseWriter, r *http.Request, s *pty.Session) error {
	conn, err := upgrade(w, r)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	term, client, err := s.Attach()
	if err != nil {
		_ = sendControl(ctx, conn, wire.PTYControl{Status: "error", Error: err.Error()})
		_ = conn.Close(websocket.StatusInternalError, "the shell cannot be started")
		return nil
	}
	defer client.Leave()
	if err := sendControl(ctx, conn, wire.PTYControl{Status: "connected"}); err != nil {
		return nil //nolint:nilerr // the client went away
	}
	input := make(chan struct{})
	go func() {
		defer close(input)
		defer cancel()
		typed(ctx, conn, term)
	}()
	exit := slices.ContainsFunc(offered(r), func(p string) bool { return strings.EqualFold(p, wire.PTYExitProtocol) })
	show(ctx, conn, term, client, exit)
	conn.CloseNow()
	<-input
	return nil
}

// typed passes input on until the client leaves.
func typed(ctx context.Context, conn *websocket.Conn, term *pty.Terminal) {
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if _, err := term.Write(b); err != nil {
			<-ctx.Done() // the output side tells of the end
			return
		}
	}
}

// show passes output on, and at the end tells how the shell ended.
func show(ctx context.Context, conn *websocket.Conn, term *pty.Terminal, client *pty.Client, exit bool) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-client.Gone():
			_ = conn.Close(websocket.StatusPolicyViolation, "the client reads too slowly")
			return
		case b, ok := <-client.Output():
			if !ok {
				tellExit(ctx, conn, term.Exit(), exit)
				return
			}
			if err := conn.Write(ctx, websocket.MessageBinary, b); err != nil {
				return
			}
		}
	}
}

func tellExit(ctx context.Context, conn *websocket.Conn, e process.Exit, control bool) {
	m := wire.PTYControl{ExitCode: &e.Code, ExitReason: pty.ExitReason(e)}
	reason, _ := json.Marshal(m)
	if control {
		m.Status = "exited"
		if err := sendControl(ctx, conn, m); err != nil {
			return
		}
	}
	status := websocket.StatusNormalClosure
	if e.Code != 0 {
		status = websocket.StatusInternalError
	}
	_ = conn.Close(status, string(reason))
}

func sendControl(ctx context.Context, conn *websocket.Conn, m wire.PTYControl) error {
	m.Type = "control"
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, b)
}
