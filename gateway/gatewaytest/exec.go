package gatewaytest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/coder/websocket"
	"github.com/creack/pty"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// exec serves the streaming exec with a plain process.
func (t *fakeToolbox) exec(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &execStream{ws: ws, ctx: ctx, cancel: cancel}
	start, err := s.start()
	if err != nil {
		return
	}
	cmd := command(start)
	if cmd.Dir = t.dir(r); start.Cwd != "" {
		cmd.Dir = start.Cwd
	}
	for k, v := range start.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if start.TTY {
		s.terminal(cmd, start)
	} else {
		s.pipes(cmd)
	}
	_ = ws.Close(websocket.StatusNormalClosure, "")
}

func command(start toolbox.ExecStart) *exec.Cmd {
	argv := start.Argv
	switch {
	case start.Command != "":
		argv = []string{"sh", "-c", start.Command}
	case len(argv) == 0:
		argv = []string{"sh", "-i"}
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // that is its purpose
	cmd.Env = append(os.Environ(), "PS1=$ ")
	return cmd
}

type execStream struct {
	ws     *websocket.Conn
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
}

func (s *execStream) start() (toolbox.ExecStart, error) {
	var start toolbox.ExecStart
	_, b, err := s.ws.Read(s.ctx)
	if err != nil {
		return start, err
	}
	return start, json.Unmarshal(b, &start)
}

func (s *execStream) send(channel byte, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws.Write(s.ctx, websocket.MessageBinary, append([]byte{channel}, b...))
}

func (s *execStream) control(c toolbox.ExecControl) {
	b, _ := json.Marshal(c)
	_ = s.send(toolbox.ChannelControl, b)
}

func (s *execStream) pipes(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = channelWriter{s, toolbox.ChannelStdout}, channelWriter{s, toolbox.ChannelStderr}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.control(toolbox.ExecControl{Type: "error", Status: http.StatusBadRequest, Message: err.Error()})
		return
	}
	go func() {
		s.read(stdin, func(toolbox.ExecControl) {}, func(sig syscall.Signal) { _ = syscall.Kill(-cmd.Process.Pid, sig) }, func() { _ = stdin.Close() })
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}()
	s.control(exited(cmd.Wait()))
}

func (s *execStream) terminal(cmd *exec.Cmd, start toolbox.ExecStart) {
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(start.Cols), Rows: uint16(start.Rows)}) //nolint:gosec // small
	if err != nil {
		s.control(toolbox.ExecControl{Type: "error", Status: http.StatusBadRequest, Message: err.Error()})
		return
	}
	defer f.Close()
	go func() {
		s.read(f, func(c toolbox.ExecControl) {
			_ = pty.Setsize(f, &pty.Winsize{Cols: uint16(c.Cols), Rows: uint16(c.Rows)}) //nolint:gosec // small
		}, func(sig syscall.Signal) { _ = cmd.Process.Signal(sig) }, func() { _, _ = f.Write([]byte{4}) })
		_ = cmd.Process.Kill()
	}()
	_, _ = io.Copy(channelWriter{s, toolbox.ChannelStdout}, f)
	s.control(exited(cmd.Wait()))
}

// read hands on what the client sends until it is gone.
func (s *execStream) read(stdin io.Writer, resize func(toolbox.ExecControl), signal func(syscall.Signal), eof func()) {
	for {
		_, b, err := s.ws.Read(s.ctx)
		if err != nil {
			return
		}
		if len(b) == 0 {
			continue
		}
		if b[0] == toolbox.ChannelStdin {
			_, _ = stdin.Write(b[1:])
			continue
		}
		var c toolbox.ExecControl
		_ = json.Unmarshal(b[1:], &c)
		switch c.Type {
		case "eof":
			eof()
		case "resize":
			resize(c)
		case "signal":
			if c.Signal == "SIGTERM" {
				signal(syscall.SIGTERM)
			} else {
				signal(syscall.SIGINT)
			}
		}
	}
}

func exited(err error) toolbox.ExecControl {
	return toolbox.ExecControl{Type: "exit", ExitCode: exitCode(err)}
}

type channelWriter struct {
	s       *execStream
	channel byte
}

// Write sends one message.
func (w channelWriter) Write(b []byte) (int, error) {
	if err := w.s.send(w.channel, b); err != nil {
		return 0, err
	}
	return len(b), nil
}
