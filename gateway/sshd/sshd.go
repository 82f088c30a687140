// Package sshd is the SSH gateway: ssh, scp, sftp, rsync and editors reach a
// sandbox with a token for a user name. There is no SSH server in sandboxes:
// sessions are commands of the toolbox, and forwarded ports are its
// connections. Whatever comes from a client is hostile until its token is
// known, and from a sandbox always.
package sshd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/atoll-sh/atoll/engine"
)

// Config is what a server needs. Door, Toolboxes and HostKey are required.
type Config struct {
	Listen    string // host:port; port 0 takes a free one
	Door      engine.SSHDoor
	Toolboxes engine.Toolboxes
	HostKey   ssh.Signer
	Log       *slog.Logger // nil: nowhere
	Limits    Limits       // zero fields: the defaults
}

// Limits bound what clients can cost.
type Limits struct {
	Connections int           // at the same time, of all
	PerSandbox  int           // at the same time, into one sandbox
	Handshakes  int           // at the same time, until a token is known
	PerAddress  int           // of those, from one address
	Channels    int           // at the same time, in one connection
	Handshake   time.Duration // from the connection to the token
	KeepAlive   time.Duration // of silence before a client is asked whether it lives; three make it dead
	Failures    int           // tokens that one address may get wrong in a minute before it has to wait
	Slow        time.Duration // that it waits then for each refusal
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, fallback int) {
		if *n == 0 {
			*n = fallback
		}
	}
	set(&l.Connections, 1024)
	set(&l.PerSandbox, 64)
	set(&l.Handshakes, 64)
	set(&l.PerAddress, 16)
	set(&l.Channels, 128)
	set(&l.Failures, 20)
	if l.Handshake == 0 {
		l.Handshake = 20 * time.Second
	}
	if l.Slow == 0 {
		l.Slow = 3 * time.Second
	}
	if l.KeepAlive == 0 {
		l.KeepAlive = 30 * time.Second
	}
	return l
}

// Server is a listening SSH gateway.
type Server struct {
	config   Config
	listener net.Listener
	ctx      context.Context //nolint:containedctx // ends with Close
	cancel   context.CancelFunc
	served   sync.WaitGroup
	failures *failures

	mu          sync.Mutex
	connections map[net.Conn]struct{}
	handshakes  int
	strangers   map[string]int // handshakes by address
	inside      map[string]int // connections by sandbox
	closed      bool
}

// Open listens and begins to serve.
func Open(ctx context.Context, c Config) (*Server, error) {
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, engine.Errorf(engine.KindUnavailable, "cannot listen on %s for SSH", c.Listen).
			WithHint("choose another address with --ssh-listen, or off").Wrap(err)
	}
	s := &Server{
		config: c, listener: l, failures: newFailures(c.Limits.Failures, time.Now),
		connections: map[net.Conn]struct{}{}, strangers: map[string]int{}, inside: map[string]int{},
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.served.Go(s.accept)
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() *net.TCPAddr { return s.listener.Addr().(*net.TCPAddr) }

// Close ends all connections and waits until they are gone or ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for c := range s.connections {
		c.Close()
	}
	s.mu.Unlock()
	s.cancel()
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	gone := make(chan struct{})
	go func() { // ends with the last connection, all of which are closed
		s.served.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// accept takes connections until the listener is closed.
func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, mostly
			s.config.Log.Warn("accept an SSH connection", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-s.ctx.Done():
				return
			}
		}
		if !s.enter(c) {
			c.Close()
			continue
		}
		s.served.Go(func() {
			defer s.leave(c)
			s.serve(c)
		})
	}
}

// enter counts a connection in, unless it is one too many.
func (s *Server) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.config.Limits
	if s.closed || len(s.connections) >= l.Connections || s.handshakes >= l.Handshakes || s.strangers[address(c)] >= l.PerAddress {
		return false
	}
	s.connections[c] = struct{}{}
	s.handshakes++
	s.strangers[address(c)]++
	return true
}

func (s *Server) leave(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, c)
}

// known ends a connection's time as a stranger.
func (s *Server) known(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshakes--
	if a := address(c); s.strangers[a] > 1 {
		s.strangers[a]--
	} else {
		delete(s.strangers, a)
	}
}

// failed counts a wrong token. An address that has tried many waits for its
// answer; good tokens are not slowed down by others' failures.
func (s *Server) failed(c net.Conn) {
	if !s.failures.add(address(c)) {
		return
	}
	select {
	case <-time.After(s.config.Limits.Slow):
	case <-s.ctx.Done():
	}
}

// visit counts a connection into a sandbox; done counts it out.
func (s *Server) visit(sandbox string) (done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside[sandbox] >= s.config.Limits.PerSandbox {
		return nil, false
	}
	s.inside[sandbox]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.inside[sandbox]--; s.inside[sandbox] == 0 {
			delete(s.inside, sandbox)
		}
	}, true
}

// address is the peer's, without its port.
func address(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return host
}
