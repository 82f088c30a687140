package fake

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// server is an HTTP server that is reached through memory.
type server struct {
	http  *http.Server
	conns chan net.Conn
	once  sync.Once
	gone  chan struct{}
}

func serve(h http.Handler) *server {
	s := &server{http: &http.Server{Handler: h}, conns: make(chan net.Conn), gone: make(chan struct{})}
	go func() { _ = s.http.Serve(s) }()
	return s
}

// dial returns the client's end of a new connection.
func (s *server) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case s.conns <- far:
		return near, nil
	case <-s.gone:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// close ends the server and its connections. It waits for no handler.
func (s *server) close() {
	s.once.Do(func() { close(s.gone) })
	go func() { _ = s.http.Close() }()
}

// Accept, Close and Addr make the server its own listener.
func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.gone:
		return nil, net.ErrClosed
	}
}

// Close ends the listener.
func (s *server) Close() error {
	s.once.Do(func() { close(s.gone) })
	return nil
}

// Addr names the listener.
func (s *server) Addr() net.Addr { return memory{} }

type memory struct{}

func (memory) Network() string { return "memory" }
func (memory) String() string  { return "memory" }
