package sshd

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// session is one channel that runs one program.
type session struct {
	conn    *conn
	channel ssh.Channel
	start   wire.ExecStart

	mu     sync.Mutex
	stream *client.Stream    // nil until the program runs
	resize *wire.ExecControl // wanted before that
	begun  bool
}

// session serves a channel whose requests say what shall run in it.
func (c *conn) session(ctx context.Context, ch ssh.NewChannel) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	s := &session{conn: c, channel: channel, start: wire.ExecStart{Env: map[string]string{}}}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for r := range requests {
		ok := s.request(ctx, r, func() { running.Go(func() { s.run(ctx, &running) }) })
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
	cancel() // the channel is closed; so the program ends
	running.Wait()
}

// request handles one request and tells whether it was granted. run starts
// the program.
func (s *session) request(ctx context.Context, r *ssh.Request, run func()) bool {
	s.mu.Lock()
	begun := s.begun
	s.mu.Unlock()
	switch r.Type {
	case "window-change", "signal":
		return begun && s.control(ctx, r)
	case "env", "pty-req", "shell", "exec", "subsystem":
	default: // no agent and no X11 is forwarded
		return false
	}
	if begun || !s.prepare(r) {
		return false
	}
	if r.Type != "env" && r.Type != "pty-req" {
		s.mu.Lock()
		s.begun = true
		s.mu.Unlock()
		run()
	}
	return true
}

// prepare takes what a request says of the program.
func (s *session) prepare(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		var q struct{ Name, Value string }
		return ssh.Unmarshal(r.Payload, &q) == nil && s.setEnv(q.Name, q.Value)
	case "pty-req":
		q, ok := parsePTY(r.Payload)
		if !ok {
			return false
		}
		s.start.TTY, s.start.Cols, s.start.Rows = true, q.cols, q.rows
		return s.setEnv("TERM", q.term)
	case "shell":
		s.shell()
		return len(r.Payload) == 0
	case "exec":
		var q struct{ Command string }
		if ssh.Unmarshal(r.Payload, &q) != nil {
			return false
		}
		if strings.TrimSpace(q.Command) == "" {
			s.shell()
			return true
		}
		s.start.Command = q.Command
		return true
	default:
		var q struct{ Name string }
		if ssh.Unmarshal(r.Payload, &q) != nil || q.Name != "sftp" {
			return false
		}
		s.start.Subsystem, s.start.TTY = q.Name, false
		return true
	}
}

// shell asks for a login shell: an interactive one on a terminal, else one
// that reads commands from its input.
func (s *session) shell() {
	if s.start.TTY {
		s.start.Login = true
		return
	}
	s.start.Command = `exec "$SHELL" -l`
}

const (
	maxEnv      = 64
	maxEnvBytes = 32 << 10
)

// allowedEnv are the variables that clients may set; those that end in * are
// beginnings of names. What decides who the user is and which code runs is
// the sandbox's own.
var allowedEnv = []string{ // constant
	"LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "COLORTERM", "TERM_PROGRAM*", "NO_COLOR", "FORCE_COLOR", "CLICOLOR*",
	"EDITOR", "VISUAL", "PAGER", "GIT_AUTHOR_*", "GIT_COMMITTER_*", "GIT_PROTOCOL", "VSCODE_*",
}

func envAllowed(name string) bool {
	for _, a := range allowedEnv {
		if rest, prefix := strings.CutSuffix(a, "*"); name == a || prefix && strings.HasPrefix(name, rest) {
			return true
		}
	}
	return false
}

// setEnv takes a variable, if it is one that clients may set.
func (s *session) setEnv(name, value string) bool {
	size := len(name) + len(value)
	for k, v := range s.start.Env {
		size += len(k) + len(v)
	}
	if !envAllowed(name) || strings.IndexByte(value, 0) >= 0 || len(s.start.Env) >= maxEnv || size > maxEnvBytes {
		return false
	}
	for _, r := range name {
		if r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	s.start.Env[name] = value
	return true
}

// run runs the program to its end and tells the client how it ended.
func (s *session) run(ctx context.Context, running *sync.WaitGroup) {
	defer s.channel.Close()
	stream, err := s.conn.tools.Stream(ctx, s.start)
	if err != nil {
		s.fail(err)
		return
	}
	defer stream.Close()
	s.mu.Lock()
	s.stream = stream
	resize := s.resize
	s.mu.Unlock()
	if resize != nil {
		_ = stream.Control(ctx, *resize)
	}
	running.Go(func() { s.feed(ctx, stream) }) // ends with the channel
	end, err := stream.Wait(ctx, s.channel, s.channel.Stderr())
	if err != nil {
		if ctx.Err() == nil {
			s.fail(err)
		}
		return
	}
	_ = s.channel.CloseWrite()
	if end.Signal != "" {
		_, _ = s.channel.SendRequest("exit-signal", false, ssh.Marshal(exitSignal{Signal: strings.TrimPrefix(end.Signal, "SIG")}))
		return
	}
	s.exit(end.ExitCode)
}

// exitSignal is the body of the request by that name.
type exitSignal struct {
	Signal   string
	Dumped   bool
	Message  string
	Language string
}

func (s *session) exit(code int) {
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(code)})) //nolint:gosec // 0 to 255
}

// fail tells people why nothing runs.
func (s *session) fail(err error) {
	text := "the program did not start, or its connection broke"
	var refused *wire.Error
	if errors.As(err, &refused) {
		text = refused.Message
	}
	_, _ = io.WriteString(s.channel.Stderr(), "atoll: "+text+"\r\n")
	s.exit(255)
}

// feed passes the client's input on.
func (s *session) feed(ctx context.Context, stream *client.Stream) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.channel.Read(buf)
		if n > 0 && stream.Write(ctx, buf[:n]) != nil {
			return
		}
		if err != nil {
			if err == io.EOF {
				_ = stream.CloseInput(ctx)
			}
			return
		}
	}
}

// control passes a new size or a signal on to the program.
func (s *session) control(ctx context.Context, r *ssh.Request) bool {
	m, ok := parseControl(r)
	s.mu.Lock()
	stream := s.stream
	if stream == nil && m.Type == "resize" {
		s.resize = &m
	}
	s.mu.Unlock()
	return ok && stream != nil && stream.Control(ctx, m) == nil
}

func parseControl(r *ssh.Request) (wire.ExecControl, bool) {
	if r.Type == "signal" {
		var q struct{ Signal string }
		err := ssh.Unmarshal(r.Payload, &q)
		return wire.ExecControl{Type: "signal", Signal: "SIG" + q.Signal}, err == nil && len(q.Signal) < 20
	}
	var q struct{ Cols, Rows, Width, Height uint32 }
	err := ssh.Unmarshal(r.Payload, &q)
	cols, rows := size(q.Cols, q.Rows)
	return wire.ExecControl{Type: "resize", Cols: cols, Rows: rows}, err == nil
}
