package sudo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
)

const (
	maxRequest = 4 << 20 // environment and arguments
	maxClients = 256
)

// Server runs commands for clients inside the sandbox.
type Server struct {
	runner   *process.Runner
	listener *net.UnixListener
	log      *slog.Logger
	slots    chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// Open listens at path, for everybody in the sandbox to connect to; who may use
// it is decided per connection by the kernel's word on its user.
func Open(path string, r *process.Runner, log *slog.Logger) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for sudo: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the socket of sudo to users: %w", err)
	}
	s := &Server{runner: r, listener: l, log: log, slots: make(chan struct{}, maxClients), conns: map[net.Conn]struct{}{}}
	s.wg.Go(s.accept)
	return s, nil
}

// Close stops listening and ends running commands.
func (s *Server) Close() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, say
			time.Sleep(50 * time.Millisecond)
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			<-s.slots
		})
	}
}

func (s *Server) serve(c *net.UnixConn) {
	caller, err := peer(c)
	if err != nil || !s.allowed(caller) {
		s.log.Info("sudo refused", "uid", caller.Uid, "err", err)
		_, _ = c.Write(encode(message{Error: "this user may not use sudo"}))
		_ = c.CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, c) // an unread request would reset the connection before the answer is read
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	fds, err := receive(c)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	if err != nil {
		_, _ = c.Write(encode(message{Error: err.Error()}))
		return
	}
	in := bufio.NewReader(io.LimitReader(c, maxRequest))
	line, err := in.ReadBytes('\n')
	var q request
	if err == nil {
		err = json.Unmarshal(line, &q)
	}
	if err != nil {
		_, _ = c.Write(encode(message{Error: "the request cannot be read or is too long"}))
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	child, err := s.start(q, caller, fds)
	if err != nil {
		_, _ = c.Write(encode(message{Error: err.Error()}))
		return
	}
	s.follow(c, in, child)
}

// follow passes signals on and tells the exit code. A client that vanishes
// takes the command with it.
func (s *Server) follow(c *net.UnixConn, in *bufio.Reader, child *process.Child) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				child.SignalTree(syscall.SIGHUP)
				child.SignalTree(syscall.SIGTERM)
				return
			}
			var m message
			if json.Unmarshal(line, &m) == nil && m.Signal > 0 && m.Signal < 65 {
				_ = child.Signal(syscall.Signal(m.Signal))
			}
		}
	})
	code := child.Exit().Code
	_, _ = c.Write(encode(message{Exit: &code}))
	c.Close()
	wg.Wait()
}

// allowed lets root and the sandbox's default user in.
func (s *Server) allowed(u unix.Ucred) bool {
	return u.Uid == 0 || u.Uid == s.runner.User().UID
}

func peer(c *net.UnixConn) (unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var u *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { u, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return unix.Ucred{}, err
	}
	if failed != nil {
		return unix.Ucred{}, failed
	}
	return *u, nil
}

// receive takes the three streams of the client.
func receive(c *net.UnixConn) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(3*4))
	var b [1]byte
	n, on, _, _, err := c.ReadMsgUnix(b[:], oob)
	if err != nil || n != 1 {
		return nil, errors.New("the streams did not arrive")
	}
	var fds []int
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	for _, m := range msgs {
		got, _ := unix.ParseUnixRights(&m)
		fds = append(fds, got...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if err != nil || len(fds) != 3 {
		return fds, errors.New("the streams did not arrive")
	}
	return fds, nil
}

// start runs the command as sudo would: a clean environment with a few of the
// caller's variables, or all of them with -E.
func (s *Server) start(q request, caller unix.Ucred, fds []int) (*process.Child, error) {
	name := q.User
	if name == "" {
		name = "root"
	}
	target, err := s.runner.Users.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("unknown user or group %s", name)
	}
	c := process.Command{Argv: q.Argv, Cwd: q.Cwd, User: name, Env: s.environ(q, target, caller)}
	if q.Shell || q.Login {
		c = s.shell(c, q, target)
	}
	spec, _, err := s.runner.Prepare(c)
	if err != nil {
		return nil, err
	}
	if q.Login {
		spec.Argv = append([]string{"-" + spec.Argv[0]}, spec.Argv[1:]...)
	}
	spec.Files, spec.For = fds, int(caller.Pid)
	return s.runner.Table.Start(spec)
}

// shell turns -s and -i into a shell of the target user, which runs the
// arguments if there are any.
func (s *Server) shell(c process.Command, q request, target process.User) process.Command {
	sh := target.Shell
	if q.Shell && !q.Login && q.Env["SHELL"] != "" {
		sh = q.Env["SHELL"]
	}
	if sh == "" {
		sh = s.runner.Shell(c.Env)
	}
	c.Argv = []string{sh}
	if len(q.Argv) > 0 {
		c.Argv = append(c.Argv, "-c", join(q.Argv))
	}
	if q.Login {
		c.Cwd = target.Home
	}
	return c
}

func (s *Server) environ(q request, target process.User, caller unix.Ucred) map[string]string {
	env := map[string]string{}
	for k, v := range q.Env {
		switch k {
		case "TERM", "LANG", "LC_ALL", "DISPLAY", "COLORTERM", "PATH", "TZ", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "DEBIAN_FRONTEND":
			env[k] = v
		default:
			if q.Keep {
				env[k] = v
			}
		}
	}
	if !q.Keep || q.Home || q.Login {
		env["HOME"] = target.Home
	}
	who, _ := s.runner.Users.Names(caller.Uid, caller.Gid)
	env["USER"], env["LOGNAME"] = target.Name, target.Name
	env["SUDO_USER"], env["SUDO_UID"], env["SUDO_GID"] = who, strconv.Itoa(int(caller.Uid)), strconv.Itoa(int(caller.Gid))
	for k, v := range q.Set {
		env[k] = v
	}
	return env
}

// join quotes arguments for a shell.
func join(argv []string) string {
	var b []byte
	for i, a := range argv {
		if i > 0 {
			b = append(b, ' ')
		}
		for _, c := range []byte(a) {
			safe := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '$' || c >= 0x80
			if !safe {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
	}
	return string(b)
}
