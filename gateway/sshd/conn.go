package sshd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/client"
)

// conn is a connection whose token is known.
type conn struct {
	server *Server
	ssh    *ssh.ServerConn
	visit  *engine.SSHVisit
	tools  *client.Client

	sessions sync.WaitGroup
	slots    chan struct{} // one for each open channel
}

func (c *conn) ref() engine.SandboxRef {
	return engine.SandboxRef{OrganizationID: c.visit.OrganizationID, IDOrName: c.visit.SandboxID}
}

// serve speaks with one client until it leaves or has to.
func (s *Server) serve(raw net.Conn) {
	c, channels, requests, err := s.handshake(raw)
	s.known(raw)
	if err != nil {
		s.config.Log.Debug("an SSH connection was refused", "remote", address(raw), "err", err)
		return
	}
	defer drain(raw, channels, requests)
	defer c.visit.Leave()
	done, ok := s.visit(c.visit.SandboxID)
	if !ok {
		s.config.Log.Warn("too many SSH connections into a sandbox", "sandbox", c.visit.SandboxID, "remote", address(raw))
		return
	}
	defer done()
	s.config.Log.Info("SSH connection", "sandbox", c.visit.SandboxID, "remote", address(raw))
	ctx, cancel := context.WithCancel(c.visit.Life)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	stopServer := context.AfterFunc(s.ctx, cancel)
	defer stopServer()
	c.sessions.Go(func() { answer(requests) })
	c.sessions.Go(func() { c.keepAlive(ctx) })
	for ch := range channels {
		c.open(ctx, ch)
	}
	why := "the client left"
	if cause := context.Cause(c.visit.Life); cause != nil {
		why = cause.Error()
	}
	cancel() // sessions of a client that is gone end with it
	c.sessions.Wait()
	s.config.Log.Info("SSH connection ended", "sandbox", c.visit.SandboxID, "remote", address(raw), "reason", why)
}

// handshake finds out which sandbox the client may enter. The token is the
// user's name, and good without anything else.
func (s *Server) handshake(raw net.Conn) (*conn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	var visit *engine.SSHVisit
	enter := func(meta ssh.ConnMetadata) (*ssh.Permissions, error) {
		if visit != nil {
			return &ssh.Permissions{}, nil
		}
		v, err := s.config.Door.Enter(s.ctx, meta.User())
		if err != nil {
			if engine.KindOf(err) == engine.KindUnauthenticated {
				s.failed(raw)
			}
			return nil, &ssh.BannerError{Err: err, Message: notice(err)}
		}
		visit = v
		return &ssh.Permissions{}, nil
	}
	config := &ssh.ServerConfig{
		ServerVersion:        "SSH-2.0-Atoll",
		MaxAuthTries:         3,
		NoClientAuth:         true,
		NoClientAuthCallback: enter,
		PasswordCallback:     func(m ssh.ConnMetadata, _ []byte) (*ssh.Permissions, error) { return enter(m) },
		PublicKeyCallback:    func(m ssh.ConnMetadata, _ ssh.PublicKey) (*ssh.Permissions, error) { return enter(m) },
	}
	config.AddHostKey(s.config.HostKey)
	_ = raw.SetDeadline(time.Now().Add(s.config.Limits.Handshake))
	sc, channels, requests, err := ssh.NewServerConn(raw, config)
	if err == nil {
		_ = raw.SetDeadline(time.Time{})
	}
	var rt *client.Client
	if err == nil {
		rt, err = s.toolbox(visit)
	}
	if err != nil {
		if visit != nil {
			visit.Leave()
		}
		if sc != nil {
			drain(raw, channels, requests)
		}
		return nil, nil, nil, err
	}
	c := &conn{server: s, ssh: sc, visit: visit, tools: rt, slots: make(chan struct{}, s.config.Limits.Channels)}
	return c, channels, requests, nil
}

func (s *Server) toolbox(v *engine.SSHVisit) (*client.Client, error) {
	rt, err := s.config.Toolboxes.Toolbox(v.Life, engine.SandboxRef{OrganizationID: v.OrganizationID, IDOrName: v.SandboxID})
	if err != nil {
		return nil, err
	}
	return client.New(visiting{rt, engine.Caller{Door: "ssh", Principal: engine.Principal{OrganizationID: v.OrganizationID}}}), nil
}

// visiting says who is behind the calls of a connection.
type visiting struct {
	http.RoundTripper
	caller engine.Caller
}

// RoundTrip implements http.RoundTripper.
func (v visiting) RoundTrip(req *http.Request) (*http.Response, error) {
	return v.RoundTripper.RoundTrip(req.WithContext(engine.WithCaller(req.Context(), v.caller)))
}

// drain closes a connection and throws away what it has asked for, without
// which its goroutine would wait for ever.
func drain(raw net.Conn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	raw.Close()
	go ssh.DiscardRequests(requests) // ends with the connection
	for range channels {
	}
}

// notice tells people why they are not let in.
func notice(err error) string {
	e := engine.AsError(err)
	text := "atoll: " + e.Message
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text + "\r\n"
}

// answer refuses what clients ask of the whole connection: ports of this host
// and of sandboxes are not listened on for them.
func answer(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(false, nil) // an answer to keepalives as well
		}
	}
}

// keepAlive asks silent clients whether they live. One that does not answer
// is cut off.
func (c *conn) keepAlive(ctx context.Context) {
	every := c.server.config.Limits.KeepAlive
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		timer := time.AfterFunc(3*every, func() { c.ssh.Close() })
		_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		timer.Stop()
		if err != nil {
			return
		}
	}
}

// open serves a channel, if it is one that we have.
func (c *conn) open(ctx context.Context, ch ssh.NewChannel) {
	serve := map[string]func(context.Context, ssh.NewChannel){"session": c.session, "direct-tcpip": c.forward}[ch.ChannelType()]
	if serve == nil {
		_ = ch.Reject(ssh.UnknownChannelType, "this server has sessions and direct-tcpip")
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		_ = ch.Reject(ssh.ResourceShortage, "too many channels are open")
		return
	}
	c.sessions.Go(func() {
		defer func() { <-c.slots }()
		serve(ctx, ch)
	})
}

// reject refuses a channel with an error's text.
func reject(ch ssh.NewChannel, reason ssh.RejectionReason, err error) {
	e := engine.AsError(err)
	if errors.Is(err, context.Canceled) {
		e = engine.Errorf(engine.KindCanceled, "the connection is ending")
	}
	_ = ch.Reject(reason, e.Message)
}
