package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// dial opens a WebSocket. A refusal before the upgrade is a *wire.Error.
func (c *Client) dial(ctx context.Context, path string, query url.Values, protocols ...string) (*websocket.Conn, error) {
	u := base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	conn, res, err := websocket.Dial(ctx, u, &websocket.DialOptions{HTTPClient: c.http, Subprotocols: protocols})
	if err == nil {
		conn.SetReadLimit(1 << 20)
		return conn, nil
	}
	if res != nil && res.StatusCode >= 300 && res.Body != nil {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		return nil, wire.ParseError(res.StatusCode, b)
	}
	return nil, fmt.Errorf("connect to the toolbox: %w", err)
}

// Stream is a command that runs while its streams are open.
type Stream struct {
	conn *websocket.Conn

	mu sync.Mutex // one message at a time
}

// Stream starts a command whose input and output are streamed. Close ends it.
func (c *Client) Stream(ctx context.Context, q wire.ExecStart) (*Stream, error) {
	conn, err := c.dial(ctx, q.Path(), nil)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(q)
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, b)
	}
	if err != nil {
		conn.CloseNow()
		return nil, fmt.Errorf("start a command: %w", err)
	}
	return &Stream{conn: conn}, nil
}

func (s *Stream) send(ctx context.Context, channel byte, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn.Write(ctx, websocket.MessageBinary, append([]byte{channel}, b...))
}

// Write sends input.
func (s *Stream) Write(ctx context.Context, p []byte) error {
	const most = 256 << 10 // the toolbox refuses messages over 1 MiB
	for len(p) > 0 {
		n := min(len(p), most)
		if err := s.send(ctx, wire.ChannelStdin, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Control sends a resize, a signal or the end of input.
func (s *Stream) Control(ctx context.Context, m wire.ExecControl) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.send(ctx, wire.ChannelControl, b)
}

// CloseInput ends the command's stdin.
func (s *Stream) CloseInput(ctx context.Context) error {
	return s.Control(ctx, wire.ExecControl{Type: "eof"})
}

// Wait copies output until the command ends and returns how it did.
func (s *Stream) Wait(ctx context.Context, stdout, stderr io.Writer) (wire.ExecControl, error) {
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return wire.ExecControl{}, fmt.Errorf("read a command's output: %w", err)
		}
		if len(b) == 0 {
			continue
		}
		switch b[0] {
		case wire.ChannelStdout:
			_, err = stdout.Write(b[1:])
		case wire.ChannelStderr:
			_, err = stderr.Write(b[1:])
		case wire.ChannelControl:
			var m wire.ExecControl
			if err := json.Unmarshal(b[1:], &m); err != nil {
				return m, fmt.Errorf("read a command's end: %w", err)
			}
			if m.Type == "error" {
				return m, &wire.Error{Status: m.Status, Code: m.Code, Message: m.Message}
			}
			if m.Type == "exit" {
				return m, nil
			}
		}
		if err != nil {
			return wire.ExecControl{}, err
		}
	}
}

// Close ends the command if it still runs.
func (s *Stream) Close() error { return s.conn.CloseNow() }

// PTY is a connection to a named terminal.
type PTY struct {
	conn *websocket.Conn
}

// CreatePTY makes a named terminal and connects to it.
func (c *Client) CreatePTY(ctx context.Context, q wire.PTYCreate) (*PTY, error) {
	v := url.Values{"id": {q.ID}}
	if q.Cwd != "" {
		v.Set("cwd", q.Cwd)
	}
	if q.Cols > 0 {
		v.Set("cols", strconv.Itoa(q.Cols))
	}
	if q.Rows > 0 {
		v.Set("rows", strconv.Itoa(q.Rows))
	}
	protocols := []string{wire.PTYExitProtocol}
	if len(q.Envs) > 0 {
		b, err := json.Marshal(q.Envs)
		if err != nil {
			return nil, err
		}
		protocols = append(protocols, wire.PTYEnvsProtocol+base64.RawURLEncoding.EncodeToString(b))
	}
	return c.pty(ctx, "/process/pty/create-connect", v, protocols...)
}

// ConnectPTY connects to a terminal.
func (c *Client) ConnectPTY(ctx context.Context, id string) (*PTY, error) {
	return c.pty(ctx, "/process/pty/"+url.PathEscape(id)+"/connect", nil, wire.PTYExitProtocol)
}

func (c *Client) pty(ctx context.Context, path string, q url.Values, protocols ...string) (*PTY, error) {
	conn, err := c.dial(ctx, path, q, protocols...)
	if err != nil {
		return nil, err
	}
	p := &PTY{conn: conn}
	_, m, err := p.read(ctx)
	if err == nil && (m == nil || m.Status != "connected") {
		err = errors.New("the terminal did not start")
		if m != nil && m.Error != "" {
			err = errors.New(m.Error)
		}
	}
	if err != nil {
		conn.CloseNow()
		return nil, fmt.Errorf("connect to a terminal: %w", err)
	}
	return p, nil
}

func (p *PTY) read(ctx context.Context) ([]byte, *wire.PTYControl, error) {
	kind, b, err := p.conn.Read(ctx)
	if err != nil || kind == websocket.MessageBinary {
		return b, nil, err
	}
	var m wire.PTYControl
	if json.Unmarshal(b, &m) == nil && m.Type == "control" {
		return nil, &m, nil
	}
	return b, nil, nil
}

// Write sends input.
func (p *PTY) Write(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), 32<<10)
		if err := p.conn.Write(ctx, websocket.MessageBinary, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Copy copies output until the shell ends and returns its exit code.
func (p *PTY) Copy(ctx context.Context, out io.Writer) (int, error) {
	for {
		b, m, err := p.read(ctx)
		if err != nil {
			return 0, fmt.Errorf("read a terminal: %w", err)
		}
		if m != nil && m.Status == "exited" && m.ExitCode != nil {
			_, _, _ = p.conn.Read(ctx) // answers the close frame, which follows
			return *m.ExitCode, nil
		}
		if _, err := out.Write(b); err != nil {
			return 0, err
		}
	}
}

// Close leaves the terminal, which goes on.
func (p *PTY) Close() error { return p.conn.Close(websocket.StatusNormalClosure, "") }

// PTYs lists terminals.
func (c *Client) PTYs(ctx context.Context) ([]wire.PTYInfo, error) {
	var out wire.PTYList
	_, err := c.call(ctx, http.MethodGet, "/process/pty", nil, nil, &out)
	return out.Sessions, err
}

// ResizePTY changes a terminal's size.
func (c *Client) ResizePTY(ctx context.Context, id string, cols, rows int) error {
	_, err := c.call(ctx, http.MethodPost, "/process/pty/"+url.PathEscape(id)+"/resize", nil, wire.PTYResize{Cols: cols, Rows: rows}, nil)
	return err
}

// DeletePTY kills a terminal.
func (c *Client) DeletePTY(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodDelete, "/process/pty/"+url.PathEscape(id), nil, nil, nil)
	return err
}

// Follow copies a command's output, with channel markers, until it ends. An
// empty command follows the entrypoint session.
func (c *Client) Follow(ctx context.Context, session, command string, out io.Writer) error {
	p := commandPath(session, command)
	if command == "" {
		p = sessionPath(session)
	}
	conn, err := c.dial(ctx, p+"/logs", url.Values{"follow": {"true"}})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for {
		_, b, err := conn.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow a log: %w", err)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
}
