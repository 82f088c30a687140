package process

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// MaxCommand bounds a command line.
	MaxCommand = 1 << 20
	// maxString is what Linux allows for one argument or variable.
	maxString = 128 << 10
	// maxInline is the longest command line that is given as an argument.
	maxInline = 100 << 10
	// outputLimit bounds what is kept of an output.
	outputLimit = 16 << 20
	// linger is how long the output of background processes is waited for
	// after the command itself has ended.
	linger = 20 * time.Millisecond
)

// Command is what to run. Exactly one of Script and Argv is set.
type Command struct {
	Script string // a shell command line
	Argv   []string
	Cwd    string
	Env    map[string]string
	User   string // empty: the default user
	TTY    bool   // only with Start
	Login  bool   // with neither Script nor Argv: an interactive login shell
	Call   string // of the server's ledger, for which it works; Run takes the context's
}

// StartError tells that a command could not be started; it is the fault of the
// command, not of the request. Code is what a shell would answer.
type StartError struct {
	Code   int
	Reason string
}

// Error returns the reason.
func (e *StartError) Error() string { return e.Reason }

// Runner runs commands in a Space.
type Runner struct {
	*Space
	rest leftovers
}

// NewRunner returns a Runner.
func NewRunner(s *Space) *Runner { return &Runner{Space: s} }

// Input is what Run feeds and how it is bounded.
type Input struct {
	Stdin   string
	Timeout time.Duration // 0: none
	Split   bool          // keep stdout and stderr apart as well
	Grace   time.Duration // between SIGTERM and SIGKILL; 0: SIGKILL at once
}

// Run runs c to its end. When ctx ends, because the caller went away, or the
// timeout passes, everything the command started is killed; the response then
// holds what it had printed. Background processes of a command that ended by
// itself live on.
func (r *Runner) Run(ctx context.Context, c Command, in Input) (wire.ExecuteResponse, error) {
	began := time.Now()
	mark := MarkOOM()
	if c.Call == "" {
		c.Call = CallOf(ctx)
	}
	p, err := r.Start(c, in.Stdin != "", in.Split)
	var failed *StartError
	if errors.As(err, &failed) {
		return wire.ExecuteResponse{ExitCode: failed.Code, Result: failed.Reason, DurationMs: time.Since(began).Milliseconds()}, nil
	}
	if err != nil {
		return wire.ExecuteResponse{}, err
	}
	release := p.guard(ctx, in)
	res := p.collect(in)
	res.ExitCode = p.child.Exit().Code
	res.TimedOut = release()
	res.OOMKilled = mark.Killed(res.ExitCode)
	res.DurationMs = time.Since(began).Milliseconds()
	return res, ctx.Err()
}

// Process is a started command with its streams. Stdout of one started without
// split carries stderr as well.
type Process struct {
	Stdin  *os.File // nil: none
	Stdout *os.File
	Stderr *os.File // nil unless split

	child *Child
	rest  *leftovers
}

// Child returns the process.
func (p *Process) Child() *Child { return p.child }

// Release gives up the streams. A background process may go on writing.
func (p *Process) Release() {
	if p.Stdin != nil {
		p.Stdin.Close()
	}
	for _, f := range []*os.File{p.Stdout, p.Stderr} {
		if f != nil {
			p.rest.adopt(f)
		}
	}
}

// guard kills at the timeout or the end of ctx. The returned function ends that
// once the process has ended, and tells whether it took too long.
func (p *Process) guard(ctx context.Context, in Input) (release func() (timedOut bool)) {
	var late atomic.Bool
	kill := sync.OnceFunc(func() {
		if in.Grace > 0 {
			p.child.Terminate(context.WithoutCancel(ctx), in.Grace)
		} else {
			p.child.Kill()
		}
	})
	cut := func(timeout bool) {
		if !p.child.ended() {
			if timeout {
				late.Store(true)
			}
			kill()
		}
	}
	var over sync.WaitGroup
	over.Add(1)
	stop := context.AfterFunc(ctx, func() { defer over.Done(); cut(false) })
	var timer *time.Timer
	if in.Timeout > 0 {
		over.Add(1)
		timer = time.AfterFunc(in.Timeout, func() { defer over.Done(); cut(true) })
	}
	return func() bool {
		if stop() {
			over.Done()
		}
		if timer != nil && timer.Stop() {
			over.Done()
		}
		over.Wait()
		return late.Load()
	}
}

// collect gathers the output until the process has ended.
func (p *Process) collect(in Input) wire.ExecuteResponse {
	limit := outputLimit
	if in.Split {
		limit /= 2
	}
	all, stdout, stderr := NewCapture(limit), NewCapture(limit), NewCapture(limit)
	gather := func(f *os.File, to *Capture) {
		open := p.child.drain(f, linger, func(b []byte) {
			_, _ = all.Write(b)
			if in.Split {
				_, _ = to.Write(b)
			}
		})
		if open {
			p.rest.adopt(f)
		} else {
			f.Close()
		}
	}
	var wg sync.WaitGroup
	if p.Stdin != nil {
		wg.Go(func() { feed(p, in.Stdin) })
	}
	if p.Stderr != nil {
		wg.Go(func() { gather(p.Stderr, stderr) })
	}
	gather(p.Stdout, stdout)
	p.child.wait()
	wg.Wait()
	return wire.ExecuteResponse{
		Result: all.String(), Stdout: stdout.String(), Stderr: stderr.String(),
		Truncated: all.Truncated() || stdout.Truncated() || stderr.Truncated(),
	}
}

// feed writes the input; a command need not read it all.
func feed(p *Process, input string) {
	p.child.atEnd(func() { _ = p.Stdin.SetWriteDeadline(time.Now()) })
	_, _ = io.WriteString(p.Stdin, input)
	p.Stdin.Close()
}

// Start starts c with pipes. Errors are *wire.Error for a bad request and
// *StartError for a command that cannot run.
func (r *Runner) Start(c Command, stdin, split bool) (*Process, error) {
	spec, script, err := r.Prepare(c)
	if err != nil {
		return nil, err
	}
	p := &Process{rest: &r.rest}
	var in, out, errs *pipe
	ok := false
	defer func() {
		for _, q := range []*pipe{in, out, errs} {
			if ok {
				q.closeChild()
			} else {
				q.close()
			}
		}
		if script >= 0 {
			unix.Close(script)
		}
	}()
	if spec.Files, err = openStreams(&in, &out, &errs, stdin, split); err != nil {
		return nil, err
	}
	if in != nil {
		p.Stdin = in.ours
	}
	if script >= 0 {
		spec.Files = append(spec.Files, script)
	}
	if p.child, err = r.Table.Start(spec); err != nil {
		return nil, startError(spec, err)
	}
	ok = true
	p.Stdout = out.ours
	if errs != nil {
		p.Stderr = errs.ours
	}
	return p, nil
}

func openStreams(in, out, errs **pipe, stdin, split bool) (files []int, err error) {
	if *out, err = newPipe(true); err != nil {
		return nil, err
	}
	stderr := (*out).child
	if split {
		if *errs, err = newPipe(true); err != nil {
			return nil, err
		}
		stderr = (*errs).child
	}
	if stdin {
		if *in, err = newPipe(false); err != nil {
			return nil, err
		}
		return []int{(*in).child, (*out).child, stderr}, nil
	}
	fd, err := nullFile()
	return []int{fd, (*out).child, stderr}, err
}

// null is /dev/null, kept open for all commands without input; 0: not yet.
var null atomic.Int32

func nullFile() (int, error) {
	if fd := null.Load(); fd != 0 {
		return int(fd), nil
	}
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil && !null.CompareAndSwap(0, int32(fd)) {
		unix.Close(fd)
		fd = int(null.Load())
	}
	return fd, err
}

// Prepare checks c and resolves it to a Spec without files. A command line too
// long for an argument comes back as an open file, script, that must be file 3
// of the process and that the caller closes; it is -1 otherwise.
func (r *Runner) Prepare(c Command) (spec Spec, script int, err error) {
	script = -1
	if err := check(c); err != nil {
		return spec, script, err
	}
	u := r.User()
	if c.User != "" {
		if u, err = r.Users.Lookup(c.User); err != nil {
			return spec, script, err
		}
	}
	env := r.Environ(u, c.Env)
	if spec.Dir, err = r.dir(c.Cwd); err != nil {
		return spec, script, &StartError{-1, "cannot use cwd " + c.Cwd + ": " + err.Error()}
	}
	env["PWD"] = spec.Dir
	spec.Cred, spec.Call = u.Credential(), c.Call
	if len(c.Argv) > 0 {
		spec.Argv = c.Argv
		if spec.Path, err = LookPath(c.Argv[0], spec.Dir, env); err != nil {
			return spec, script, notStarted(c.Argv[0], err)
		}
		spec.Env = List(env)
		return spec, script, nil
	}
	if spec.Path = r.Shell(env); spec.Path == "" {
		return spec, script, &StartError{127, "this image has no shell; run a program with its arguments instead"}
	}
	env["SHELL"] = spec.Path
	spec.Env = List(env)
	if path, argv, ok := plain(c.Script, spec.Dir, env); ok && !c.TTY {
		spec.Path, spec.Argv = path, argv
		return spec, script, nil
	}
	spec.Argv, script, err = shellArgs(spec.Path, c)
	return spec, script, err
}

func shellArgs(shell string, c Command) (argv []string, script int, err error) {
	name := filepath.Base(shell)
	switch {
	case c.Script == "":
		return []string{name, "-i", "-l"}, -1, nil
	case len(c.Script) <= maxInline:
		return []string{name, "-c", c.Script}, -1, nil
	}
	fd, err := unix.MemfdCreate("command", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, -1, err
	}
	// The shell has opened the file anew when it reads the first line, and
	// its children shall not inherit ours.
	text := []byte("exec 3<&-; " + c.Script)
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		if err != nil {
			unix.Close(fd)
			return nil, -1, err
		}
		text = text[n:]
	}
	return []string{name, "/proc/self/fd/3"}, fd, nil
}

func check(c Command) error {
	switch {
	case c.Script == "" && len(c.Argv) == 0 && !c.Login, len(c.Argv) > 0 && c.Argv[0] == "":
		return wire.BadRequest("command: it is empty; give a shell command line")
	case c.Script != "" && strings.TrimSpace(c.Script) == "":
		return wire.BadRequest("command: it is blank; give a shell command line")
	case c.Script != "" && len(c.Argv) > 0:
		return wire.BadRequest("command, argv: give one of them, not both")
	case len(c.Script) > MaxCommand:
		return wire.BadRequest("command: it is %d bytes long and the limit is 1 MiB; upload it as a file and run that", len(c.Script))
	case strings.IndexByte(c.Script, 0) >= 0:
		return wire.BadRequest("command: it holds a NUL byte at offset %d; remove it", strings.IndexByte(c.Script, 0))
	case strings.IndexByte(c.Cwd, 0) >= 0:
		return wire.BadRequest("cwd: it holds a NUL byte; remove it")
	}
	total := 0
	for i, a := range c.Argv {
		if total += len(a) + 1; len(a) >= maxString || total > MaxCommand {
			return wire.BadRequest("argv[%d]: the arguments are too long; upload them as a file", i)
		}
		if strings.IndexByte(a, 0) >= 0 {
			return wire.BadRequest("argv[%d]: it holds a NUL byte; remove it", i)
		}
	}
	return CheckEnv("envs", c.Env)
}

// startError explains an errno of fork and exec.
func startError(s Spec, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && (errno == syscall.EAGAIN || errno == syscall.ENOMEM) {
		return &StartError{-1, "cannot start a process: " + errno.Error() + " (the sandbox's limit of processes or memory is reached)"}
	}
	if errors.Is(err, syscall.EACCES) && unix.Access(s.Dir, unix.X_OK) == nil && s.Cred != nil {
		return &StartError{126, "cannot run " + s.Path + " in " + s.Dir + ": permission denied for this user"}
	}
	return notStarted(s.Path, err)
}

func notStarted(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return &StartError{127, name + ": command not found"}
	case errors.Is(err, syscall.E2BIG):
		return wire.BadRequest("command, envs: arguments and environment are too long together; upload them as a file")
	}
	return &StartError{126, name + ": " + err.Error()}
}
