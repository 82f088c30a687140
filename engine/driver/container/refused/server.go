package refused

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Server is where keepers tell of calls.
type Server struct {
	conn *net.UnixConn
	log  *slog.Logger
}

// Listen opens the socket at path, in a directory that only root may enter; it
// is made. Keepers wait with what they have while nobody listens, and while Run
// does not take it.
func Listen(path string, log *slog.Logger) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for refused calls: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for refused calls: %w", err)
	}
	return &Server{conn: conn, log: log}, nil
}

// Run hands on what keepers tell, until ctx or the Server ends.
func (s *Server) Run(ctx context.Context, tell func(Call)) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxMessage)
	for ctx.Err() == nil {
		n, err := s.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		c, err := decode(buf[:n])
		if err != nil {
			s.log.Warn("a refused call was not understood", "err", err)
			continue
		}
		tell(c)
	}
}

// Close ends it. What keepers have, they keep.
func (s *Server) Close() error { return s.conn.Close() }
