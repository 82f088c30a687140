package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxAnswer bounds what is read of one toolbox answer: a sandbox is not
// trusted to be brief.
const maxAnswer = 64 << 20

// box speaks to the toolbox of one sandbox.
type box struct {
	http *http.Client
	id   string // as the caller named the sandbox
}

func (k *kit) box(ctx context.Context, a Args) (*box, error) {
	rt, err := k.Toolboxes.Toolbox(ctx, a.ref())
	if err != nil {
		return nil, err
	}
	return &box{http: &http.Client{Transport: rt}, id: a.Str("id")}, nil
}

// do sends one request and returns the answer's body. Statuses of 300 and
// above become errors.
func (b *box) do(ctx context.Context, method, path string, q url.Values, contentType string, body io.Reader) ([]byte, http.Header, error) {
	u := url.URL{Scheme: "http", Host: "toolbox", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, nil, b.lost(ctx, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, b.lost(ctx, err)
	}
	if resp.StatusCode >= 300 {
		return nil, nil, refused(resp.StatusCode, got)
	}
	return got, resp.Header, nil
}

// lost explains a request that got no answer. Errors of the engine pass: the
// round tripper returns them for sandboxes that are not running.
func (b *box) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *engine.Error
	if errors.As(err, &e) {
		return e
	}
	return engine.Errorf(engine.KindUnavailable, "sandbox %s does not answer", b.id).
		WithHint(`Look with sandbox_list {"id":%q}; a stop and start with sandbox_control mends most things`, b.id).Wrap(err)
}

// refused maps an error answer to an engine error with the same words. Only an
// error of the toolbox itself gets a code; one of the server in between, as
// about a sandbox that does not run, is like the engine's own.
func refused(status int, body []byte) error {
	var answer struct {
		Message, Hint, Source string
		Code                  wire.Code
		Kind                  engine.Kind
	}
	if json.Unmarshal(body, &answer) != nil || answer.Message == "" {
		answer.Message = fmt.Sprintf("the sandbox answered with HTTP %d", status)
	}
	e := &engine.Error{Kind: answer.Kind, Message: strings.TrimSuffix(answer.Message, ": "+answer.Hint), Hint: answer.Hint}
	if e.Kind == "" {
		e.Kind = kindOf(status)
	}
	if answer.Source == wire.Source {
		if e.Code = string(answer.Code); e.Code == "" {
			e.Code = strconv.Itoa(status)
		}
	}
	return e
}

func kindOf(status int) engine.Kind {
	switch {
	case status == http.StatusUnauthorized:
		return engine.KindUnauthenticated
	case status == http.StatusNotFound:
		return engine.KindNotFound
	case status == http.StatusConflict, status == http.StatusGone:
		return engine.KindConflict
	case status == http.StatusForbidden:
		return engine.KindDenied
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return engine.KindTimeout
	case status == http.StatusInsufficientStorage, status == http.StatusTooManyRequests:
		return engine.KindExhausted
	case status == http.StatusNotImplemented:
		return engine.KindUnsupported
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable:
		return engine.KindUnavailable
	case status < 500:
		return engine.KindInvalid
	}
	return engine.KindInternal
}

// codeOf returns the machine code of an error, or "".
func codeOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func (b *box) json(ctx context.Context, method, path string, q url.Values, in, out any) error {
	var body io.Reader
	contentType := ""
	if in != nil {
		enc, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request to %s: %w", path, err)
		}
		body, contentType = bytes.NewReader(enc), "application/json"
	}
	got, _, err := b.do(ctx, method, path, q, contentType, body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(got, out); err != nil {
		return engine.Errorf(engine.KindInternal, "sandbox %s answered with something that is not JSON", b.id).Wrap(err)
	}
	return nil
}

// touch counts as activity and does nothing else.
func (b *box) touch(ctx context.Context) error {
	return b.json(ctx, http.MethodGet, "/version", nil, nil, nil)
}

// execute runs a short helper command.
func (b *box) execute(ctx context.Context, command string, timeout int) (wire.ExecuteResponse, error) {
	var out wire.ExecuteResponse
	err := b.json(ctx, http.MethodPost, "/process/execute", nil, wire.ExecuteRequest{Command: command, Timeout: timeout}, &out)
	return out, err
}

// path makes an argument into a path for the toolbox: ~ becomes the home
// directory, which shells do but the toolbox does not.
func (b *box) path(ctx context.Context, path string) (string, error) {
	if strings.ContainsRune(path, 0) {
		return "", invalid("Leave it out", "the path holds a NUL byte")
	}
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	var home wire.Dir
	if err := b.json(ctx, http.MethodGet, "/user-home-dir", nil, nil, &home); err != nil {
		return "", err
	}
	return home.Dir + path[1:], nil
}

func (b *box) info(ctx context.Context, path string) (wire.FileInfo, error) {
	var f wire.FileInfo
	err := b.json(ctx, http.MethodGet, "/files/info", url.Values{"path": {path}}, nil, &f)
	return f, err
}

func (b *box) download(ctx context.Context, path string) ([]byte, error) {
	got, _, err := b.do(ctx, http.MethodGet, "/files/download", url.Values{"path": {path}}, "", nil)
	return got, err
}

func (b *box) upload(ctx context.Context, path string, content []byte) error {
	_, _, err := b.do(ctx, http.MethodPost, "/files/upload-v2", url.Values{"path": {path}}, "application/octet-stream", bytes.NewReader(content))
	return err
}

func (b *box) chmod(ctx context.Context, path, mode string) error {
	return b.json(ctx, http.MethodPost, "/files/permissions", url.Values{"path": {path}, "mode": {mode}}, nil, nil)
}

func sessionPath(session string, more ...string) string {
	return "/process/session/" + strings.Join(append([]string{session}, more...), "/")
}

// spawn starts a command in a session of its own.
func (b *box) spawn(ctx context.Context, session, command string) error {
	if err := b.json(ctx, http.MethodPost, "/process/session", nil, wire.CreateSession{SessionID: session}, nil); err != nil {
		return err
	}
	req := wire.SessionExecute{Command: command, RunAsync: true, SuppressInputEcho: true}
	return b.json(ctx, http.MethodPost, sessionPath(session, "exec"), nil, req, nil)
}

func (b *box) sessions(ctx context.Context) ([]wire.Session, error) {
	var all []wire.Session
	err := b.json(ctx, http.MethodGet, "/process/session", nil, nil, &all)
	return all, err
}

func (b *box) session(ctx context.Context, id string) (wire.Session, error) {
	var s wire.Session
	err := b.json(ctx, http.MethodGet, sessionPath(id), nil, nil, &s)
	return s, err
}

func (b *box) command(ctx context.Context, session, command string) (wire.Command, error) {
	var c wire.Command
	err := b.json(ctx, http.MethodGet, sessionPath(session, "command", command), nil, nil, &c)
	return c, err
}

// logs returns a command's output from a byte offset on, and the offset after
// it. Channel markers are still in it, and count. A negative offset counts from
// the end.
func (b *box) logs(ctx context.Context, session, command string, offset, limit int) ([]byte, int, error) {
	q := url.Values{"offset": {strconv.Itoa(offset)}, "limit": {strconv.Itoa(limit)}}
	got, h, err := b.do(ctx, http.MethodGet, sessionPath(session, "command", command, "logs"), q, "", nil)
	if err != nil {
		return nil, 0, err
	}
	var logs wire.CommandLogs
	next, err := strconv.Atoi(h.Get(wire.OffsetHeader))
	if err == nil {
		err = json.Unmarshal(got, &logs)
	}
	if err != nil {
		return nil, 0, engine.Errorf(engine.KindInternal, "sandbox %s sent logs that cannot be read", b.id).Wrap(err)
	}
	return []byte(logs.Output), next, nil
}

// input sends a line. A command that was spawned this moment may not run yet,
// which is a conflict that passes; one that comes late is a full pipe.
func (b *box) input(ctx context.Context, session, command, data string) error {
	for began := time.Now(); ; {
		asked := time.Now()
		err := b.json(ctx, http.MethodPost, sessionPath(session, "command", command, "input"), nil, wire.SessionInput{Data: data}, nil)
		if codeOf(err) != string(wire.CodeConflict) || time.Since(asked) > time.Second || time.Since(began) > 3*time.Second {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end kills all that runs in a session and forgets it.
func (b *box) end(ctx context.Context, session string) error {
	return b.json(ctx, http.MethodDelete, sessionPath(session), nil, nil, nil)
}
