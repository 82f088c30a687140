package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// box is the toolbox of one sandbox.
type box struct {
	*client.Client
	id string // as the caller named the sandbox
}

func (k *kit) box(ctx context.Context, a Args) (*box, error) {
	rt, err := k.Toolboxes.Toolbox(ctx, a.ref())
	if err != nil {
		return nil, err
	}
	return &box{client.New(rt), a.Str("id")}, nil
}

// boxError turns what the toolbox's client returns into an engine error. Other
// errors pass, and so do those of the engine, which the client's transport
// returns for sandboxes that do not run.
func boxError(err error, id string) error {
	var (
		known   *engine.Error
		refused *wire.Error
		garbled *client.AnswerError
		lost    *url.Error
	)
	switch {
	case errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.As(err, &lost), errors.Is(err, io.ErrUnexpectedEOF):
		return engine.Errorf(engine.KindUnavailable, "sandbox %s does not answer", id).
			WithHint(`Look with sandbox_list {"id":%q}; a stop and start with sandbox_control mends most things`, id).Wrap(err)
	case errors.As(err, &garbled):
		return engine.Errorf(engine.KindInternal, "sandbox %s sent an answer that cannot be read", id).Wrap(err)
	}
	return err
}

// refusal is a failed answer with the same words. Only one of the toolbox
// itself gets a code; one of the server in between, as about a sandbox that
// does not run, is like the engine's own.
func refusal(w *wire.Error) *engine.Error {
	e := &engine.Error{Kind: engine.Kind(w.Kind), Message: strings.TrimSuffix(w.Message, ": "+w.Hint), Hint: w.Hint, Err: w}
	if e.Kind == "" {
		e.Kind = kindOf(w.Status)
	}
	if w.Source == wire.Source {
		if e.Code = string(w.Code); e.Code == "" {
			e.Code = strconv.Itoa(w.Status)
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

// codeOf returns the code of an error that the toolbox itself answered with,
// or "".
func codeOf(err error) wire.Code {
	var e *wire.Error
	if errors.As(err, &e) && e.Source == wire.Source {
		return e.Code
	}
	return ""
}

// absent tells that what was asked for is not in the sandbox.
func absent(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && e.Source == wire.Source && e.Status == http.StatusNotFound
}

// execute runs a short helper command.
func (b *box) execute(ctx context.Context, command string, timeout int) (wire.ExecuteResponse, error) {
	return b.Execute(ctx, wire.ExecuteRequest{Command: command, Timeout: timeout})
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
	home, err := b.HomeDir(ctx)
	return home + path[1:], err
}

// download returns at most max bytes of a file.
func (b *box) download(ctx context.Context, path string, max int64) ([]byte, error) {
	r, _, err := b.Download(ctx, path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(io.LimitReader(r, max))
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", path, err)
	}
	return content, nil
}

func (b *box) upload(ctx context.Context, path string, content []byte) error {
	return b.Upload(ctx, path, bytes.NewReader(content))
}

func (b *box) chmod(ctx context.Context, path, mode string) error {
	return b.Permissions(ctx, path, "", "", mode)
}

// spawn starts a command in a session of its own.
func (b *box) spawn(ctx context.Context, session, command string) error {
	if err := b.StartSession(ctx, session); err != nil {
		return err
	}
	_, err := b.Exec(ctx, session, wire.SessionExecute{Command: command, RunAsync: true, SuppressInputEcho: true})
	return err
}

// logs returns a command's output from a byte offset on, and the offset after
// it. Channel markers are still in it, and count. A negative offset counts from
// the end.
func (b *box) logs(ctx context.Context, session, command string, offset, limit int) ([]byte, int, error) {
	logs, next, err := b.Logs(ctx, session, command, int64(offset), int64(limit))
	return []byte(logs.Output), int(next), err
}

// input sends a line. A command that was spawned this moment may not run yet,
// which is a conflict that passes; one that comes late is a full pipe.
func (b *box) input(ctx context.Context, session, command, data string) error {
	for began := time.Now(); ; {
		asked := time.Now()
		err := b.Input(ctx, session, command, data)
		if codeOf(err) != wire.CodeConflict || time.Since(asked) > time.Second || time.Since(began) > 3*time.Second {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
