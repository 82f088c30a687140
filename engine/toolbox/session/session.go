// Package session runs long-lived shells whose commands run one after another
// and share directory and environment. Each command has its own log.
package session

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	maxFinished = 500      // finished commands that a session remembers
	maxQueued   = 100      // commands that wait in a session
	maxEarly    = 32 << 10 // bytes of input kept for a command that waits, half a FIFO
	// linger is how long the output of background processes is waited for.
	linger = 20 * time.Millisecond
)

// Session is one shell.
type Session struct {
	id    string
	dir   string // holds logs and the commands' FIFOs
	uid   int
	gid   int
	shell string
	child *process.Child
	calls *process.Calls
	stdin *os.File // the shell reads its lines from it
	codes *os.File // the shell writes "sequence code" lines to it
	queue chan *Command
	wg    sync.WaitGroup

	mu       sync.Mutex
	commands []*Command
	ended    bool
	seq      int
}

// Command is one command of a session.
type Command struct {
	ID    string
	Text  string
	Log   *Log
	async bool
	echo  bool
	call  string // of the server's ledger
	seq   int
	done  chan struct{}

	mu    sync.Mutex
	stdin *os.File // nil unless asynchronous and running
	early string   // input that came before the command ran
	code  *int
}

// Wire returns the command for an answer.
func (c *Command) Wire() wire.Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Command{ID: c.ID, Command: c.Text, ExitCode: c.code}
}

// Done is closed when the command has ended.
func (c *Command) Done() <-chan struct{} { return c.done }

// Input writes a line to the command's stdin. What comes before the command
// runs, because another one runs or it has only just been asked for, is kept
// for its start.
func (c *Command) Input(data string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.code != nil:
		return wire.Errorf(http.StatusGone, wire.CodeCommandCompleted, "command %s has ended and takes no more input", c.ID)
	case !c.async:
		return wire.BadRequest("command %s runs synchronously and has no stdin; start it with runAsync to send input", c.ID)
	case c.stdin != nil:
		return c.write(data + "\n")
	case len(c.early)+len(data) >= maxEarly:
		return wire.Errorf(http.StatusConflict, wire.CodeConflict, "command %s has not started and holds %d bytes of input; send more once it runs", c.ID, len(c.early))
	}
	c.early += data + "\n"
	return nil
}

// started gives the command its stdin, and what came before it.
func (c *Command) started(stdin *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stdin = stdin
	if c.early != "" {
		_ = c.write(c.early) // fits the FIFO
		c.early = ""
	}
}

func (c *Command) write(data string) error {
	_ = c.stdin.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.stdin.WriteString(data); err != nil {
		return wire.Errorf(http.StatusConflict, wire.CodeConflict, "command %s does not read its input; the line may have been written in part", c.ID)
	}
	if c.echo {
		c.Log.Write(Stdout, []byte(data))
	}
	return nil
}

func (c *Command) finish(code int) {
	c.mu.Lock()
	c.code = &code
	if c.stdin != nil {
		c.stdin.Close()
		c.stdin = nil
	}
	c.mu.Unlock()
	c.Log.end()
	close(c.done)
}

// start launches the shell of a new session.
func start(r *process.Runner, id, dir, call string) (*Session, error) {
	spec, _, err := r.Prepare(process.Command{Login: true, Call: call})
	if err != nil {
		return nil, err
	}
	spec.Argv = spec.Argv[:1] // neither interactive nor login: it reads lines from stdin
	s := &Session{id: id, dir: dir, uid: -1, gid: -1, shell: spec.Argv[0], calls: r.Table.Calls, queue: make(chan *Command, maxQueued)}
	if spec.Cred != nil {
		s.uid, s.gid = int(spec.Cred.Uid), int(spec.Cred.Gid)
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the directory of session %s: %w", id, err)
	}
	if err := s.launch(r.Table, spec); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s.wg.Go(s.run)
	return s, nil
}

// launch starts the shell with stdin and file 9 as pipes to us.
func (s *Session) launch(t *process.Table, spec process.Spec) error {
	var in, out [2]int
	if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(in[0])
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		unix.Close(in[1])
		return err
	}
	defer unix.Close(out[1])
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(in[1])
		unix.Close(out[0])
		return err
	}
	defer unix.Close(null)
	_ = unix.SetNonblock(in[1], true)
	_ = unix.SetNonblock(out[0], true)
	s.stdin, s.codes = os.NewFile(uintptr(in[1]), "stdin"), os.NewFile(uintptr(out[0]), "codes")
	const closed = -1 // in the child
	c := closed
	spec.Files = []int{in[0], null, null, c, c, c, c, c, c, out[1]}
	if s.child, err = t.Start(spec); err != nil {
		s.stdin.Close()
		s.codes.Close()
	}
	return err
}

// submit queues a command.
func (s *Session) submit(text string, async, echo bool, call string) (*Command, error) {
	id := newID()
	log, err := newLog(filepath.Join(s.dir, id+".log"))
	if err != nil {
		return nil, fmt.Errorf("make the log of a command: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		log.close()
		os.Remove(log.f.Name())
		return nil, wire.Errorf(http.StatusGone, wire.CodeSessionEnded, "the shell of session %s has exited; delete the session and create a new one", s.id)
	}
	s.seq++
	c := &Command{ID: id, Text: text, Log: log, async: async, echo: echo, call: call, seq: s.seq, done: make(chan struct{})}
	select {
	case s.queue <- c:
	default:
		log.close()
		os.Remove(log.f.Name())
		return nil, wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "session %s has %d commands waiting; wait for some to end or use another session", s.id, maxQueued)
	}
	s.commands = append(s.commands, c)
	s.forgetLocked()
	return c, nil
}

// forgetLocked drops the oldest finished commands with their logs.
func (s *Session) forgetLocked() {
	for len(s.commands) > maxFinished {
		c := s.commands[0]
		select {
		case <-c.done:
		default:
			return
		}
		s.commands = s.commands[1:]
		c.Log.close()
		os.Remove(c.Log.f.Name())
	}
}

// run executes queued commands until the shell has exited.
func (s *Session) run() {
	codes := make(chan [2]int)
	s.wg.Go(func() {
		defer close(codes)
		for sc := bufio.NewScanner(s.codes); sc.Scan(); {
			var seq, code int
			if n, _ := fmt.Sscan(sc.Text(), &seq, &code); n == 2 {
				codes <- [2]int{seq, code}
			}
		}
	})
	defer func() {
		s.codes.Close()
		for range codes { //nolint:revive // until the reader has seen the end
		}
	}()
	for {
		select {
		case c := <-s.queue:
			s.execute(c, codes)
		case <-s.child.Done():
			s.finish()
			return
		}
	}
}

// finish fails the commands that will never run.
func (s *Session) finish() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	for {
		select {
		case c := <-s.queue:
			c.Log.Write(Stderr, []byte("not run: the session's shell has exited\n"))
			c.finish(s.child.Exit().Code)
		default:
			return
		}
	}
}

// execute runs one command in the shell and waits for its end.
func (s *Session) execute(c *Command, codes <-chan [2]int) {
	t, err := s.openStreams(c)
	if err != nil {
		c.Log.Write(Stderr, []byte("cannot run the command: "+err.Error()+"\n"))
		c.finish(-1)
		return
	}
	exited := make(chan struct{})
	var streams sync.WaitGroup
	for i, ch := range []Channel{Stdout, Stderr} {
		streams.Go(func() { record(t.read[i], exited, c.Log, ch) })
	}
	code := s.feed(c, t, codes)
	t.closeWriters()
	close(exited)
	streams.Wait()
	t.remove()
	c.finish(code)
}

// feed gives the shell the command and waits for the code.
func (s *Session) feed(c *Command, t *streams, codes <-chan [2]int) int {
	s.calls.Tell(s.child.PID, c.call, 0)
	defer s.calls.Tell(s.child.PID, "", 0)
	line := s.frame(c, t)
	write := make(chan struct{})
	s.wg.Go(func() { defer close(write); _, _ = s.stdin.WriteString(line) })
	defer func() { <-write }()
	for {
		select {
		case got, ok := <-codes:
			if ok && got[0] == c.seq {
				return got[1]
			}
			if ok {
				continue
			}
			codes = nil // the shell closed file 9, as exec does: wait for its end
		case <-s.child.Done():
			_ = s.stdin.SetWriteDeadline(time.Now())
			return s.child.Exit().Code
		}
	}
}

// frame wraps a command so that it runs in the shell itself with streams of
// its own, and its code is reported. "command" keeps a syntax error from
// ending a POSIX shell; zsh does not need it and reads it otherwise.
func (s *Session) frame(c *Command, t *streams) string {
	eval := "command eval"
	if s.shell == "zsh" {
		eval = "eval"
	}
	return fmt.Sprintf("{ %s %s\n} <%s >%s 2>%s 9>&-\necho %d $? >&9\n",
		eval, quote(c.Text), quote(t.path[0]), quote(t.path[1]), quote(t.path[2]), c.seq)
}

// record copies one stream to the log. What background processes print later
// still goes to the log, as long as it is open.
func record(f *os.File, exited <-chan struct{}, log *Log, ch Channel) {
	if !process.Drain(f, exited, linger, func(b []byte) { log.Write(ch, b) }) {
		f.Close()
		return
	}
	go func() { // owned by the stream: it ends with the last process that holds it
		process.Drain(f, nil, 0, func(b []byte) { log.Write(ch, b) })
		f.Close()
	}()
}

// close ends the session and deletes its files.
func (s *Session) close(ctx context.Context) {
	s.child.Terminate(ctx, 5*time.Second)
	s.wg.Wait()
	s.stdin.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		c.Log.close()
	}
	os.RemoveAll(s.dir)
}

func (s *Session) command(id string) (*Command, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		if c.ID == id {
			return c, nil
		}
	}
	return nil, wire.Errorf(http.StatusNotFound, wire.CodeProcessNotFound, "command %q not found in session %s", id, s.id)
}

// Wire returns the session for an answer.
func (s *Session) Wire() wire.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := wire.Session{SessionID: s.id, Commands: make([]wire.Command, 0, len(s.commands))}
	for _, c := range s.commands {
		w.Commands = append(w.Commands, c.Wire())
	}
	return w
}

// streams are the FIFOs of one command: stdin, stdout, stderr.
type streams struct {
	path    [3]string
	read    [2]*os.File // stdout, stderr
	writers []*os.File  // keep the readers from seeing an early end
}

// openStreams makes the FIFOs. The directory is ours alone, so that the user
// can open them but not put anything else in their place.
func (s *Session) openStreams(c *Command) (*streams, error) {
	t := &streams{path: [3]string{"/dev/null"}}
	ok := false
	defer func() {
		if !ok {
			t.closeAll()
		}
	}()
	for i, name := range []string{"in", "out", "err"} {
		if i == 0 && !c.async {
			continue
		}
		t.path[i] = filepath.Join(s.dir, strconv.Itoa(c.seq)+"."+name)
		if err := s.fifo(t.path[i]); err != nil {
			return nil, err
		}
		flag := os.O_RDWR
		if i > 0 {
			flag = os.O_RDONLY
		}
		f, err := os.OpenFile(t.path[i], flag|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			c.started(f)
			continue
		}
		t.read[i-1] = f
		w, err := os.OpenFile(t.path[i], os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		t.writers = append(t.writers, w)
	}
	ok = true
	return t, nil
}

func (s *Session) fifo(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("make a stream: %w", err)
	}
	if s.uid < 0 {
		return nil
	}
	return os.Chown(path, s.uid, s.gid)
}

func (t *streams) closeWriters() {
	for _, w := range t.writers {
		w.Close()
	}
	t.writers = nil
}

func (t *streams) remove() {
	for _, p := range t.path {
		if p != "/dev/null" && p != "" {
			os.Remove(p)
		}
	}
}

func (t *streams) closeAll() {
	t.closeWriters()
	for _, f := range t.read {
		if f != nil {
			f.Close()
		}
	}
	t.remove()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// startFailure turns a command that cannot start into an answer.
func startFailure(err error) error {
	var f *process.StartError
	if errors.As(err, &f) {
		return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "cannot start: %s", f.Reason)
	}
	return err
}
