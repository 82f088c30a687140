package toolbox

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/session"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (t *Toolbox) listSessions(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, t.sessions.List())
}

func (t *Toolbox) createSession(w http.ResponseWriter, r *http.Request) error {
	var q wire.CreateSession
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if err := t.sessions.Create(q.SessionID, process.CallOf(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (t *Toolbox) getSession(w http.ResponseWriter, r *http.Request) error {
	s, err := t.sessions.Session(r.PathValue("session"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s)
}

func (t *Toolbox) deleteSession(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
	defer cancel()
	if err := t.sessions.Delete(ctx, r.PathValue("session")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (t *Toolbox) sessionExecute(w http.ResponseWriter, r *http.Request) error {
	var q wire.SessionExecute
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	async := q.RunAsync || q.Async
	c, err := t.sessions.Execute(r.PathValue("session"), q.Command, async, !q.SuppressInputEcho, process.CallOf(r.Context()))
	if err != nil {
		return err
	}
	if async {
		return writeJSON(w, http.StatusAccepted, wire.SessionExecuted{CmdID: c.ID})
	}
	select {
	case <-c.Done():
	case <-r.Context().Done(): // the command goes on; its logs can be read later
		return r.Context().Err()
	}
	page, err := c.Log.Read(-session.MaxRead, 0)
	if err != nil {
		return err
	}
	logs := logsOf(page)
	return writeJSON(w, http.StatusOK, wire.SessionExecuted{
		CmdID: c.ID, ExitCode: c.Wire().ExitCode, Output: &logs.Output, Stdout: &logs.Stdout, Stderr: &logs.Stderr,
	})
}

func logsOf(p session.Page) wire.CommandLogs {
	stdout, stderr := session.Split(p.Stream, p.First)
	return wire.CommandLogs{Output: string(p.Stream), Stdout: string(stdout), Stderr: string(stderr)}
}

func (t *Toolbox) getCommand(w http.ResponseWriter, r *http.Request) error {
	c, err := t.sessions.Command(r.PathValue("session"), r.PathValue("command"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c.Wire())
}

func (t *Toolbox) commandInput(w http.ResponseWriter, r *http.Request) error {
	var q wire.SessionInput
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	c, err := t.sessions.Command(r.PathValue("session"), r.PathValue("command"))
	if err != nil {
		return err
	}
	if err := c.Input(q.Data); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// entrypointLogs serves /process/session/entrypoint/logs; no other session has
// logs of its own.
func (t *Toolbox) entrypointLogs(w http.ResponseWriter, r *http.Request) error {
	if r.PathValue("session") != session.Entrypoint {
		return unknown(w, r)
	}
	c, err := t.sessions.Command(session.Entrypoint, "")
	if err != nil {
		return err
	}
	return t.logs(w, r, c)
}

func (t *Toolbox) commandLogs(w http.ResponseWriter, r *http.Request) error {
	c, err := t.sessions.Command(r.PathValue("session"), r.PathValue("command"))
	if err != nil {
		return err
	}
	return t.logs(w, r, c)
}

// logs answers as the client can take it: a WebSocket that follows, a text
// stream that follows, JSON, or plain text.
func (t *Toolbox) logs(w http.ResponseWriter, r *http.Request, c *session.Command) error {
	follow, err := boolean(r, "follow")
	if err != nil {
		return err
	}
	switch {
	case isUpgrade(r):
		return t.followLogs(w, r, c)
	case follow:
		return streamLogs(w, r, c)
	}
	offset, err := integer(r, "offset", -session.MaxRead)
	if err != nil {
		return err
	}
	limit, err := integer(r, "limit", 0)
	if err != nil {
		return err
	}
	if limit < 0 {
		return wire.BadRequest("limit: %d is not possible; give a number of bytes, or 0 for as much as there is", limit)
	}
	page, err := c.Log.Read(offset, limit)
	if err != nil {
		return err
	}
	w.Header().Set(wire.OffsetHeader, strconv.FormatInt(page.Next, 10))
	if r.URL.Query().Has("offset") || wantsSplit(r) {
		return writeJSON(w, http.StatusOK, logsOf(page))
	}
	body := page.Stream
	if sdkVersion(r) == "" {
		body = session.Merge(body) // older clients of ours separate the channels themselves
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = w.Write(body)
	return err
}

// followLogs sends the history and what is added, until the command ends.
func (t *Toolbox) followLogs(w http.ResponseWriter, r *http.Request, c *session.Command) error {
	conn, err := upgrade(w, r)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(r.Context())
	err = c.Log.Follow(ctx, func(b []byte) error { return conn.Write(ctx, websocket.MessageBinary, b) })
	if err != nil {
		return nil //nolint:nilerr // the client went away
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	return nil
}

func streamLogs(w http.ResponseWriter, r *http.Request, c *session.Command) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	return c.Log.Follow(r.Context(), func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	})
}

// wantsSplit tells whether the client reads logs as JSON: it says so, or its
// version is 0.167.0 or newer.
func wantsSplit(r *http.Request) bool {
	if strings.EqualFold(r.Header.Get("X-Daytona-Split-Output"), "true") {
		return true
	}
	return splitVersion(sdkVersion(r))
}

func sdkVersion(r *http.Request) string {
	const name = "X-Daytona-SDK-Version"
	if v := r.Header.Get(name); v != "" {
		return v
	}
	for _, p := range offered(r) {
		if v, ok := strings.CutPrefix(p, name+"~"); ok {
			return v
		}
	}
	return ""
}

func splitVersion(v string) bool {
	v = strings.TrimPrefix(v, "v")
	if v == "0.0.0-dev" {
		return true
	}
	v, _, _ = strings.Cut(v, "+")
	v, pre, _ := strings.Cut(v, "-")
	parts := strings.Split(v, ".")
	if len(parts) != 3 {
		return false
	}
	var n [3]int
	for i, p := range parts {
		var err error
		if n[i], err = strconv.Atoi(p); err != nil || n[i] < 0 {
			return false
		}
	}
	if n == [3]int{0, 167, 0} {
		return pre == ""
	}
	return n[0] > 0 || n[1] >= 167
}

func boolean(r *http.Request, name string) (bool, error) {
	switch v := r.URL.Query().Get(name); v {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	default:
		return false, wire.BadRequest("%s: %.40q is neither true nor false", name, v)
	}
}

func integer(r *http.Request, name string, fallback int64) (int64, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, wire.BadRequest("%s: %.40q is not a whole number", name, v)
	}
	return n, nil
}
