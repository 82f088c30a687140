// Package reqstream writes notifications that belong to one request onto the
// very stream that request is answered on, in order and before its response.
//
// mcp-go sends notifications through a channel that a second goroutine
// empties. That goroutine drops what it holds when the handler returns, and
// in the era with sessions all requests of a session share the channel, so
// frames get lost or land on another request's stream. Here the handler
// writes the frame itself, under the lock that guards the response.
package reqstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

type streamKey struct{}

// notifier is what carries a request: an HTTP response or a pair of pipes.
type notifier interface {
	notify(frame []byte) error
}

// Notify sends a notification on the transport that carries ctx's request. It
// reports false when the transport cannot take it: there is none in ctx, or
// the client does not accept a stream.
func Notify(ctx context.Context, method string, params any) (bool, error) {
	n, _ := ctx.Value(streamKey{}).(notifier)
	if n == nil {
		return false, nil
	}
	frame, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
	if err != nil {
		return false, fmt.Errorf("encode notification %s: %w", method, err)
	}
	switch err := n.notify(frame); err {
	case nil:
		return true, nil
	case errNoStream:
		return false, nil
	default:
		return true, err
	}
}

var errNoStream = errors.New("the client accepts no stream")

// Stream is the response to one HTTP request. It becomes an event stream with
// the first notification or keep-alive, unless the server made it one before.
type Stream struct {
	accepts bool // the client takes text/event-stream
	every   time.Duration
	header  http.Header // the server's; copied out when it writes the header

	mu     sync.Mutex
	w      http.ResponseWriter
	mode   mode
	closed bool
	beat   *time.Timer
}

type mode int

const (
	undecided mode = iota
	plain          // the server answered with something that is no stream
	native         // the server opened an event stream and frames its events
	upgraded       // we opened the event stream and frame the server's answer
)

// Handler gives every request a Stream. When a request takes longer than
// keepAlive, a comment is written that often, so that neither proxies nor
// clients give up. Zero switches that off.
func Handler(next http.Handler, keepAlive time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost && r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		s := &Stream{w: w, every: keepAlive, header: w.Header().Clone(), accepts: acceptsStream(r)}
		if s.header == nil {
			s.header = http.Header{}
		}
		if keepAlive > 0 {
			s.beat = time.AfterFunc(keepAlive, s.keepAlive)
		}
		defer s.close()
		next.ServeHTTP(s, r.WithContext(context.WithValue(r.Context(), streamKey{}, notifier(s))))
	})
}

func acceptsStream(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.Contains(accept, "text/event-stream") || strings.Contains(accept, "*/*")
}

// close ends the keep-alives. It waits for one that is being written.
func (s *Stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.beat != nil {
		s.beat.Stop()
	}
}

func (s *Stream) keepAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.mode == plain || !s.openLocked() {
		return
	}
	if _, err := io.WriteString(s.w, ":\n\n"); err != nil {
		return
	}
	_ = http.NewResponseController(s.w).Flush()
	s.beat.Reset(s.every)
}

// openLocked makes the response an event stream and tells whether it is one.
func (s *Stream) openLocked() bool {
	switch {
	case s.mode == native || s.mode == upgraded:
		return true
	case s.mode == plain || !s.accepts:
		return false
	}
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
	s.mode = upgraded
	return true
}

func (s *Stream) notify(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.openLocked() {
		return errNoStream
	}
	return s.eventLocked(frame)
}

func (s *Stream) eventLocked(frame []byte) error {
	if _, err := fmt.Fprintf(s.w, "event: message\ndata: %s\n\n", frame); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

// Header returns the server's header. It is its own map, because keep-alives
// may write the real one at the same time.
func (s *Stream) Header() http.Header { return s.header }

// WriteHeader passes the server's header on, unless the stream is open.
func (s *Stream) WriteHeader(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeHeaderLocked(code)
}

func (s *Stream) writeHeaderLocked(code int) {
	if s.mode != undecided {
		return
	}
	s.mode = plain
	if s.header.Get("Content-Type") == "text/event-stream" {
		s.mode = native
		s.header.Set("X-Accel-Buffering", "no")
	}
	h := s.w.Header()
	for k, v := range s.header {
		h[k] = v
	}
	s.w.WriteHeader(code)
}

// Write takes whole messages or whole events, as mcp-go writes them.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeHeaderLocked(http.StatusOK)
	if s.mode != upgraded || isEvent(p) {
		return s.w.Write(p)
	}
	if err := s.eventLocked(bytes.TrimSpace(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func isEvent(p []byte) bool {
	for _, prefix := range []string{"event:", "id:", "data:", ":"} {
		if bytes.HasPrefix(p, []byte(prefix)) {
			return true
		}
	}
	return false
}

// Flush sends what was written. There is no Unwrap on purpose: nobody may
// write past the lock.
func (s *Stream) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = http.NewResponseController(s.w).Flush()
}

// Lines writes messages as lines to one writer, each whole. It carries all
// requests of a stdio connection.
type Lines struct {
	mu sync.Mutex
	w  io.Writer
}

// NewLines returns Lines that write to w.
func NewLines(w io.Writer) *Lines { return &Lines{w: w} }

// Context returns ctx with l as the transport for Notify.
func (l *Lines) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, streamKey{}, notifier(l))
}

// WriteMessage encodes v and writes it as one line.
func (l *Lines) WriteMessage(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	return l.notify(b)
}

func (l *Lines) notify(frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(append(frame, '\n'))
	return err
}
