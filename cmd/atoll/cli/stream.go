package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// stream runs one command over the toolbox's streaming exec.
type stream struct {
	in       io.Reader // nil: no input
	out, err io.Writer
	sizes    <-chan size // of our terminal; may be nil

	ws *websocket.Conn
	mu sync.Mutex // of writes
}

type size struct{ cols, rows int }

// chunk is how much input goes into one message.
const chunk = 128 << 10

// exec returns the command's exit code. When ctx ends the command is
// interrupted and may still end by itself.
func (s *stream) exec(ctx context.Context, rt http.RoundTripper, start toolbox.ExecStart) (int, error) {
	ws, res, err := websocket.Dial(ctx, "ws://toolbox"+start.Path(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: rt}})
	if err != nil {
		return 0, dialError(ctx, res, err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1) // the toolbox bounds its messages
	s.ws = ws
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.send(live, websocket.MessageText, start); err != nil {
		return 0, err
	}
	go s.feed(live, start.TTY)
	go s.resize(live)
	stop := context.AfterFunc(ctx, func() {
		_ = s.control(live, toolbox.ExecControl{Type: "signal", Signal: "SIGINT"})
	})
	defer stop()
	return s.receive(live)
}

func dialError(ctx context.Context, res *http.Response, err error) error {
	var known *engine.Error
	switch {
	case ctx.Err() != nil:
		return engine.AsError(ctx.Err())
	case errors.As(err, &known):
		return known
	case res != nil && res.StatusCode >= 300:
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // Dial keeps the first part of it
		return wire.ParseProblem(res.StatusCode, body)
	}
	return engine.Errorf(engine.KindUnavailable, "cannot open a stream to the sandbox").Wrap(err)
}

// feed sends our input. It may outlive exec in a read of a terminal, which
// nothing can interrupt; the process ends then.
func (s *stream) feed(ctx context.Context, tty bool) {
	if s.in == nil {
		_ = s.control(ctx, toolbox.ExecControl{Type: "eof"})
		return
	}
	buf := make([]byte, 1+chunk)
	buf[0] = toolbox.ChannelStdin
	for {
		n, err := s.in.Read(buf[1:])
		if n > 0 && s.write(ctx, websocket.MessageBinary, buf[:1+n]) != nil {
			return
		}
		if err != nil {
			if !tty || errors.Is(err, io.EOF) {
				_ = s.control(ctx, toolbox.ExecControl{Type: "eof"})
			}
			return
		}
	}
}

func (s *stream) resize(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case z, ok := <-s.sizes:
			if !ok || s.control(ctx, toolbox.ExecControl{Type: "resize", Cols: z.cols, Rows: z.rows}) != nil {
				return
			}
		}
	}
}

// receive copies output until the command ends.
func (s *stream) receive(ctx context.Context) (int, error) {
	buf := make([]byte, 64<<10)
	for {
		_, r, err := s.ws.Reader(ctx)
		if err != nil {
			return 0, engine.Errorf(engine.KindUnavailable, "the connection to the sandbox broke before the command ended").
				WithHint("the sandbox may have been stopped").Wrap(err)
		}
		var channel [1]byte
		if _, err := io.ReadFull(r, channel[:]); err != nil {
			return 0, fmt.Errorf("read the command's output: %w", err)
		}
		switch channel[0] {
		case toolbox.ChannelStdout:
			_, err = io.CopyBuffer(s.out, r, buf)
		case toolbox.ChannelStderr:
			_, err = io.CopyBuffer(s.err, r, buf)
		default:
			c, over, cerr := ended(r)
			if c.OOMKilled {
				fmt.Fprintln(s.err, "atoll: killed because the sandbox ran out of memory; atoll resize --memory gives it more")
			}
			if over || cerr != nil {
				return c.ExitCode, cerr
			}
		}
		if err != nil {
			return 0, fmt.Errorf("write the command's output: %w", err)
		}
	}
}

// ended reads a control message; over tells that it was the last one.
func ended(r io.Reader) (c toolbox.ExecControl, over bool, err error) {
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return c, true, fmt.Errorf("read a control message: %w", err)
	}
	if c.Type == "error" {
		p := wire.Problem{StatusCode: c.Status, Message: c.Message, Code: string(c.Code)}
		return c, true, p.Err()
	}
	return c, c.Type == "exit", nil
}

func (s *stream) control(ctx context.Context, c toolbox.ExecControl) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.write(ctx, websocket.MessageBinary, append([]byte{toolbox.ChannelControl}, b...))
}

func (s *stream) send(ctx context.Context, typ websocket.MessageType, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(ctx, typ, b)
}

func (s *stream) write(ctx context.Context, typ websocket.MessageType, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws.Write(ctx, typ, b)
}
