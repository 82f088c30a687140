// Package client calls a toolbox. It is typed over the bodies in package wire
// and knows nothing of how the connection is made. Answers come from inside a
// sandbox, so they are bounded in size and nothing in them is believed.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxAnswer bounds an answer that is read into memory. An output of 16 MiB may
// be escaped sixfold.
const maxAnswer = 128 << 20

// maxInternal bounds answers on the paths that the server calls by itself, of
// all sandboxes at once: hostile ones together must not fill its memory.
const maxInternal = 64 << 10

// limit is how much of an answer on a path is read.
func limit(path string) int64 {
	if strings.HasPrefix(path, "/internal/") {
		return maxInternal
	}
	return maxAnswer
}

// base is a placeholder: the transport knows where the toolbox is.
const base = "http://toolbox"

// Client calls one toolbox. Failed calls return *wire.Error.
type Client struct {
	http *http.Client
}

// AnswerError is an answer that could not be read: it broke off, or is not what
// was asked for.
type AnswerError struct {
	Path string
	Err  error
}

// Error tells what was asked.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("read the toolbox's answer to %s: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *AnswerError) Unwrap() error { return e.Err }

// New returns a client whose connections rt makes.
func New(rt http.RoundTripper) *Client {
	return &Client{http: &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a toolbox never redirects
	}}
}

// do sends a request and returns the body of a successful answer, for the
// caller to close.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, kind string) (*http.Response, error) {
	u := base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, fmt.Errorf("make a request to the toolbox: %w", err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("X-Daytona-Split-Output", "true")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call the toolbox: %w", err)
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(res.Body, limit(path)))
		return nil, wire.ParseError(res.StatusCode, b)
	}
	return res, nil
}

// call sends in as JSON, if there is any, and decodes the answer into out, if
// that is wanted.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) (http.Header, error) {
	var body io.Reader
	kind := ""
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode a request to the toolbox: %w", err)
		}
		body, kind = bytes.NewReader(b), "application/json"
	}
	res, err := c.do(ctx, method, path, query, body, kind)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection is used again
		return res.Header, nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, limit(path))).Decode(out); err != nil {
		return nil, &AnswerError{Path: path, Err: err}
	}
	return res.Header, nil
}

// Execute runs a command line. After its timeout the error has the code
// wire.CodeExecTimeout and holds the partial output.
func (c *Client) Execute(ctx context.Context, q wire.ExecuteRequest) (wire.ExecuteResponse, error) {
	var out wire.ExecuteResponse
	_, err := c.call(ctx, http.MethodPost, "/process/execute", nil, q, &out)
	return out, err
}

// CodeRun runs a program in an interpreter.
func (c *Client) CodeRun(ctx context.Context, q wire.CodeRunRequest) (wire.CodeRunResponse, error) {
	var out wire.CodeRunResponse
	_, err := c.call(ctx, http.MethodPost, "/process/code-run", nil, q, &out)
	return out, err
}

// StartSession makes a session.
func (c *Client) StartSession(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodPost, "/process/session", nil, wire.CreateSession{SessionID: id}, nil)
	return err
}

// Sessions lists sessions.
func (c *Client) Sessions(ctx context.Context) ([]wire.Session, error) {
	var out []wire.Session
	_, err := c.call(ctx, http.MethodGet, "/process/session", nil, nil, &out)
	return out, err
}

// Session describes a session.
func (c *Client) Session(ctx context.Context, id string) (wire.Session, error) {
	var out wire.Session
	_, err := c.call(ctx, http.MethodGet, sessionPath(id), nil, nil, &out)
	return out, err
}

// EndSession ends a session with all it runs.
func (c *Client) EndSession(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodDelete, sessionPath(id), nil, nil, nil)
	return err
}

// Exec runs a command in a session. An asynchronous one returns its id only.
func (c *Client) Exec(ctx context.Context, session string, q wire.SessionExecute) (wire.SessionExecuted, error) {
	var out wire.SessionExecuted
	_, err := c.call(ctx, http.MethodPost, sessionPath(session)+"/exec", nil, q, &out)
	return out, err
}

// Command describes a command of a session.
func (c *Client) Command(ctx context.Context, session, command string) (wire.Command, error) {
	var out wire.Command
	_, err := c.call(ctx, http.MethodGet, commandPath(session, command), nil, nil, &out)
	return out, err
}

// Logs reads up to limit bytes of a command's output from offset, and returns
// the offset to go on from. A limit of 0 is as much as one answer can hold; a
// negative offset counts from the end.
func (c *Client) Logs(ctx context.Context, session, command string, offset, limit int64) (wire.CommandLogs, int64, error) {
	q := url.Values{"offset": {strconv.FormatInt(offset, 10)}}
	if limit > 0 {
		q.Set("limit", strconv.FormatInt(limit, 10))
	}
	path := commandPath(session, command) + "/logs"
	if command == "" { // the entrypoint session
		path = sessionPath(session) + "/logs"
	}
	var out wire.CommandLogs
	h, err := c.call(ctx, http.MethodGet, path, q, nil, &out)
	if err != nil {
		return out, offset, err
	}
	next, err := strconv.ParseInt(h.Get(wire.OffsetHeader), 10, 64)
	if err != nil {
		return out, offset, &AnswerError{Path: path, Err: err}
	}
	return out, next, nil
}

// Input sends a line to a running asynchronous command.
func (c *Client) Input(ctx context.Context, session, command, data string) error {
	_, err := c.call(ctx, http.MethodPost, commandPath(session, command)+"/input", nil, wire.SessionInput{Data: data}, nil)
	return err
}

func sessionPath(id string) string { return "/process/session/" + url.PathEscape(id) }

func commandPath(session, command string) string {
	return sessionPath(session) + "/command/" + url.PathEscape(command)
}

// SetEnv changes the environment of later processes.
func (c *Client) SetEnv(ctx context.Context, q wire.UpdateEnv) error {
	_, err := c.call(ctx, http.MethodPost, "/env", nil, q, nil)
	return err
}

// Metrics samples the sandbox.
func (c *Client) Metrics(ctx context.Context) (wire.SystemMetrics, error) {
	var out wire.SystemMetrics
	_, err := c.call(ctx, http.MethodGet, "/system/metrics", nil, nil, &out)
	return out, err
}

// Ports lists listening ports.
func (c *Client) Ports(ctx context.Context) ([]int, error) {
	var out wire.Ports
	_, err := c.call(ctx, http.MethodGet, "/port", nil, nil, &out)
	return out.Ports, err
}

// WorkDir returns the directory that relative paths start from.
func (c *Client) WorkDir(ctx context.Context) (string, error) {
	var out wire.Dir
	_, err := c.call(ctx, http.MethodGet, "/work-dir", nil, nil, &out)
	return out.Dir, err
}

// HomeDir returns the user's home directory.
func (c *Client) HomeDir(ctx context.Context) (string, error) {
	var out wire.Dir
	_, err := c.call(ctx, http.MethodGet, "/user-home-dir", nil, nil, &out)
	return out.Dir, err
}

// Listens tells whether something listens on a port.
func (c *Client) Listens(ctx context.Context, port int) (bool, error) {
	var out wire.PortInUse
	_, err := c.call(ctx, http.MethodGet, fmt.Sprintf("/port/%d/in-use", port), nil, nil, &out)
	return out.IsInUse, err
}

// Proxy asks what listens on a port for a page. An answer of 300 and above is a
// *wire.Error, no matter whose. Close the body.
func (c *Client) Proxy(ctx context.Context, port int, path string) (*http.Response, error) {
	return c.do(ctx, http.MethodGet, fmt.Sprintf("/proxy/%d/%s", port, strings.TrimPrefix(path, "/")), nil, nil, "")
}

// Touch counts as activity and does nothing else.
func (c *Client) Touch(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodGet, "/version", nil, nil, nil)
	return err
}

// Status tells whether the toolbox is up and what it is doing.
func (c *Client) Status(ctx context.Context) (wire.Status, error) {
	var out wire.Status
	_, err := c.call(ctx, http.MethodGet, "/internal/status", nil, nil, &out)
	return out, err
}

// Rehearse has a sandbox that is nobody's yet make ready for its first command.
func (c *Client) Rehearse(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/internal/rehearse", nil, nil, nil)
	return err
}

// SetTrust changes which certificate later processes trust beside the image's.
func (c *Client) SetTrust(ctx context.Context, q wire.Trust) error {
	_, err := c.call(ctx, http.MethodPost, "/internal/trust", nil, q, nil)
	return err
}

// SetIdentity makes the sandbox somebody's.
func (c *Client) SetIdentity(ctx context.Context, q wire.Identity) error {
	_, err := c.call(ctx, http.MethodPost, "/internal/identity", nil, q, nil)
	return err
}
