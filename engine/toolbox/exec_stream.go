package toolbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/pty"
	"github.com/atoll-sh/atoll/engine/toolbox/sftp"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// execStream is one run of /internal/exec. What leaves the client's side ends
// the command, as closing a terminal would.
type execStream struct {
	conn *websocket.Conn
	ctx  context.Context //nolint:containedctx // lives as long as the call

	oom process.OOMMark // from before the command

	mu sync.Mutex // one message at a time
}

func (t *Toolbox) streamExec(w http.ResponseWriter, r *http.Request) error {
	conn, err := upgrade(w, r)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(2 * process.MaxCommand) // for the first message
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x := &execStream{conn: conn, ctx: ctx, oom: process.MarkOOM()}
	q, err := x.start()
	if err != nil {
		x.fail(err)
		return nil
	}
	conn.SetReadLimit(1 << 20)
	if err := subsystem(&q); err != nil {
		x.fail(err)
		return nil
	}
	c := process.Command{Script: q.Command, Argv: q.Argv, Cwd: q.Cwd, Env: withCall(r, q.Env), User: q.User, Login: q.Login, Call: process.CallOf(r.Context())}
	if q.TTY {
		x.terminal(t.runner, c, q.Cols, q.Rows, cancel)
	} else {
		x.pipes(t.runner, c, cancel)
	}
	return nil
}

// start reads the first message.
func (x *execStream) start() (wire.ExecStart, error) {
	ctx, cancel := context.WithTimeout(x.ctx, 30*time.Second)
	defer cancel()
	var q wire.ExecStart
	_, b, err := x.conn.Read(ctx)
	if err != nil {
		return q, err
	}
	if err := json.Unmarshal(b, &q); err != nil {
		return q, wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the first message is not valid JSON: %v", err)
	}
	if q.Cols < 0 || q.Cols > 1000 || q.Rows < 0 || q.Rows > 1000 {
		return q, wire.BadRequest("cols, rows: use 1 to 1000")
	}
	if q.Cols == 0 {
		q.Cols = 80
	}
	if q.Rows == 0 {
		q.Rows = 24
	}
	return q, nil
}

// subsystem puts the command in place that a subsystem stands for.
func subsystem(q *wire.ExecStart) error {
	switch {
	case q.Subsystem == "":
		return nil
	case q.Subsystem != "sftp":
		return wire.BadRequest("subsystem: %.40q is not offered; use sftp", q.Subsystem)
	case q.Command != "" || len(q.Argv) > 0 || q.TTY:
		return wire.BadRequest("subsystem: leave out command, argv and tty")
	}
	self, err := os.Readlink("/proc/self/exe")
	q.Argv = []string{self, sftp.Command}
	return err
}

func (x *execStream) send(channel byte, b []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.conn.Write(x.ctx, websocket.MessageBinary, append([]byte{channel}, b...))
}

func (x *execStream) control(m wire.ExecControl) {
	b, err := json.Marshal(m)
	if err == nil && x.send(wire.ChannelControl, b) == nil {
		_ = x.conn.Close(websocket.StatusNormalClosure, "")
	}
}

// fail tells why there is no command. One that cannot start has an exit code,
// as in a shell.
func (x *execStream) fail(err error) {
	var failed *process.StartError
	if errors.As(err, &failed) {
		code := failed.Code
		if code < 0 {
			code = 126
		}
		_ = x.send(wire.ChannelStderr, []byte(failed.Reason+"\n"))
		x.control(wire.ExecControl{Type: "exit", ExitCode: code})
		return
	}
	m := wire.ExecControl{Type: "error", Status: http.StatusInternalServerError, Message: err.Error()}
	var e *wire.Error
	if errors.As(err, &e) {
		m.Status, m.Code = e.Status, e.Code
	}
	x.control(m)
}

func (x *execStream) exit(e process.Exit) {
	m := wire.ExecControl{Type: "exit", ExitCode: e.Code, OOMKilled: x.oom.Killed(e.Code)}
	if e.Signal != 0 {
		m.Signal = unix.SignalName(e.Signal)
	}
	x.control(m)
}

// pipes runs a command without a terminal.
func (x *execStream) pipes(r *process.Runner, c process.Command, cancel func()) {
	p, err := r.Start(c, true, true)
	if err != nil {
		x.fail(err)
		return
	}
	child := p.Child()
	var in sync.WaitGroup
	in.Go(func() {
		defer cancel()
		x.read(reader{
			stdin:  p.Stdin,
			eof:    func() { p.Stdin.Close() },
			signal: func(s syscall.Signal) { _ = child.Signal(s) },
		})
	})
	stop := context.AfterFunc(x.ctx, func() { child.Terminate(context.Background(), time.Second) })
	var out sync.WaitGroup
	for ch, f := range map[byte]*os.File{wire.ChannelStdout: p.Stdout, wire.ChannelStderr: p.Stderr} {
		out.Go(func() {
			process.Drain(f, child.Done(), 20*time.Millisecond, func(b []byte) { _ = x.send(ch, b) })
		})
	}
	exit := child.Exit()
	out.Wait()
	stop()
	p.Release()
	x.exit(exit)
	x.conn.CloseNow()
	in.Wait()
}

// terminal runs a command on a terminal of its own.
func (x *execStream) terminal(r *process.Runner, c process.Command, cols, rows int, cancel func()) {
	term, err := pty.Start(r, c, cols, rows)
	if err != nil {
		x.fail(err)
		return
	}
	client := term.Attach()
	var in sync.WaitGroup
	in.Go(func() {
		defer cancel()
		x.read(reader{
			stdin:  term,
			eof:    func() { _, _ = term.Write([]byte{4}) },
			signal: func(s syscall.Signal) { _ = term.Signal(s) },
			resize: func(cols, rows int) { _ = term.Resize(cols, rows) },
		})
	})
	x.show(term, client)
	x.conn.CloseNow()
	in.Wait()
}

func (x *execStream) show(term *pty.Terminal, client *pty.Client) {
	defer client.Leave()
	for {
		select {
		case b, ok := <-client.Output():
			if !ok {
				x.exit(term.Exit())
				return
			}
			if x.send(wire.ChannelStdout, b) == nil {
				continue
			}
		case <-x.ctx.Done():
		case <-client.Gone():
		}
		client.Leave()
		term.Terminate(context.Background(), time.Second)
		return
	}
}

// reader is where a client's messages go.
type reader struct {
	stdin  io.Writer
	eof    func()
	signal func(syscall.Signal)
	resize func(cols, rows int) // nil: no terminal
}

// read serves the client's messages until it leaves.
func (x *execStream) read(to reader) {
	for {
		_, b, err := x.conn.Read(x.ctx)
		if err != nil {
			return
		}
		if len(b) == 0 {
			continue
		}
		switch b[0] {
		case wire.ChannelStdin:
			_, _ = to.stdin.Write(b[1:]) // a command need not read its input
		case wire.ChannelControl:
			var m wire.ExecControl
			if json.Unmarshal(b[1:], &m) == nil {
				to.control(m)
			}
		}
	}
}

func (to reader) control(m wire.ExecControl) {
	switch m.Type {
	case "eof":
		to.eof()
	case "signal":
		if s := unix.SignalNum(m.Signal); s != 0 {
			to.signal(s)
		}
	case "resize":
		if to.resize != nil && m.Cols > 0 && m.Cols <= 1000 && m.Rows > 0 && m.Rows <= 1000 {
			to.resize(m.Cols, m.Rows)
		}
	}
}
