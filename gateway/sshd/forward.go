package sshd

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// connectTimeout bounds the connecting to a port of the sandbox.
const connectTimeout = 10 * time.Second

// target is the body of a request for direct-tcpip.
type target struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// local tells whether a host is what a sandbox calls itself. The name is
// looked at and never resolved: nothing but the sandbox can be reached.
func local(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// forward connects the client to a port of the sandbox.
func (c *conn) forward(ctx context.Context, ch ssh.NewChannel) {
	var t target
	if err := ssh.Unmarshal(ch.ExtraData(), &t); err != nil || t.Port < 1 || t.Port > 65535 {
		_ = ch.Reject(ssh.ConnectionFailed, "it names no port")
		return
	}
	if !local(t.Host) {
		_ = ch.Reject(ssh.Prohibited, "only ports of the sandbox itself can be reached: use localhost")
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dial, stop := context.WithTimeout(ctx, connectTimeout)
	port, err := c.server.config.Toolboxes.DialPort(dial, c.ref(), int(t.Port))
	stop()
	if err != nil {
		reject(ch, ssh.ConnectionFailed, err)
		return
	}
	defer port.Close()
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	var rest sync.WaitGroup
	rest.Go(func() { answer(requests); port.Close() }) // the client has closed the channel
	end := context.AfterFunc(ctx, func() { port.Close(); channel.Close() })
	defer end()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(port, channel)
		closeWrite(port)
	})
	both.Go(func() {
		_, _ = io.Copy(channel, port)
		_ = channel.CloseWrite()
	})
	both.Wait()
	channel.Close()
	rest.Wait()
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}
