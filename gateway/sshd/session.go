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

// session is one channel that runs one program. Its fields belong to the
// goroutine that serves its requests.
type session struct {
	conn     *conn
	channel  ssh.Channel
	start    wire.ExecStart
	begun    bool
	controls chan wire.ExecControl // on their way to the program
}

// maxControls bounds what waits for a program that is busy with its input.
const maxControls = 16

// session serves a channel whose requests say what shall run in it.
func (c *conn) session(ctx context.Context, ch ssh.NewChannel) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	s := &session{conn: c, channel: channel, start: wire.ExecStart{Env: map[string]string{}}, controls: make(chan wire.ExecControl, maxControls)}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for r := range requests {
		ok := s.request(r, func() { running.Go(func() { s.run(ctx, &running) }) })
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
	cancel() // the channel is closed; so the program ends
	running.Wait()
}

// request handles one request and tells whether it was granted. run starts
// the program.
func (s *session) request(r *ssh.Request, run func()) bool {
	switch r.Type {
	case "window-change", "signal":
		return s.begun && s.control(r)
	case "env", "pty-req", "shell", "exec", "subsystem":
	default: // no agent and no X11 is forwarded
		return false
	}
	if s.begun || !s.prepare(r) {
		return false
	}
	if r.Type != "env" && r.Type != "pty-req" {
		s.begun = true
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
	running.Go(func() { s.feed(ctx, stream) }) // these end with the channel
	running.Go(func() { s.steer(ctx, stream) })
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

// steer passes new sizes and signals on.
func (s *session) steer(ctx context.Context, stream *client.Stream) {
	for {
		select {
		case m := <-s.controls:
			if stream.Control(ctx, m) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// control queues a new size or a signal. It must not wait, or the whole
// connection would; so what is oldest is dropped.
func (s *session) control(r *ssh.Request) bool {
	m, ok := parseControl(r)
	if !ok {
		return false
	}
	for {
		select {
		case s.controls <- m:
			return true
		default:
		}
		select {
		case <-s.controls:
		default:
		}
	}
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
