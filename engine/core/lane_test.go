package core_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

// scripted is a dialer whose toolboxes write what a test tells them to, whatever
// they are asked.
type scripted struct {
	path string

	mu    sync.Mutex
	dials int
}

func (s *scripted) Dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	s.dials++
	s.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, "unix", s.path)
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// newScripted serves answer to each request of each connection, until answer
// returns false.
func newScripted(t *testing.T, answer func(n int, w io.Writer) bool) (*rig, *scripted) {
	t.Helper()
	s := &scripted{path: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for n := 0; ; n++ {
					if _, err := c.Read(buf); err != nil || !answer(n, c) {
						return
					}
				}
			})
		}
	})
	r := newRig(t, func(c *core.Config) { c.Dialer = s })
	t.Cleanup(func() {
		r.ok(r.Close(context.Background()))
		l.Close()
		wg.Wait()
	})
	r.create("one")
	return r, s
}

func TestHostileAnswers(t *testing.T) {
	for _, tc := range []struct{ name, answer string }{
		{"endless head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 100<<10) + "\r\n\r\n"},
		{"many headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", 20<<10) + "\r\n"},
		{"informational answers without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100)},
		{"an upgrade that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"},
		{"no HTTP", "hello\r\n\r\n"},
		{"nothing", ""},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newScripted(t, func(_ int, w io.Writer) bool {
				_, _ = io.WriteString(w, tc.answer)
				return false
			})
			if code, body, err := r.call("one", "/a"); err == nil {
				t.Errorf("got %d %q, want an error", code, body)
			}
			if r.busy() {
				t.Error("a failed call is still open")
			}
		})
	}
}

// What a toolbox says unasked must not become the answer to the next request.
func TestUnaskedAnswers(t *testing.T) {
	const ok, evil = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	r, s := newScripted(t, func(n int, w io.Writer) bool {
		_, _ = io.WriteString(w, ok+evil)
		return true
	})
	for range 3 {
		code, body, err := r.call("one", "/a")
		if err != nil || code != 200 || body != "ok" {
			t.Fatalf("got %d %q, %v", code, body, err)
		}
	}
	if got := s.count(); got != 3 {
		t.Errorf("got %d connections, want a new one for each call", got)
	}
}

// A toolbox that closes idle connections is called on new ones.
func TestClosedConnections(t *testing.T) {
	gone := make(chan struct{}, 10)
	r, s := newScripted(t, func(n int, w io.Writer) bool {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
		if n == 1 {
			w.(net.Conn).Close()
			gone <- struct{}{}
		}
		return n < 1
	})
	for i := range 4 {
		code, body, err := r.call("one", "/a")
		if err != nil || code != 200 || body != "ok" {
			t.Fatalf("call %d: got %d %q, %v", i, code, body, err)
		}
		if i%2 == 1 {
			<-gone
		}
	}
	if got := s.count(); got != 2 {
		t.Errorf("got %d connections, want 2 for two calls each", got)
	}
}

// A large answer goes from socket to socket.
func TestLargeAnswer(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	r, s := newScripted(t, func(_ int, w io.Writer) bool {
		fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(data))
		_, _ = w.Write(data)
		return true
	})
	rt, err := r.Toolboxes().Toolbox(t.Context(), ref("one"))
	r.ok(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.ok(err)
	defer l.Close()
	for range 2 {
		got := make(chan []byte)
		go func() {
			c, err := l.Accept()
			if err != nil {
				close(got)
				return
			}
			defer c.Close()
			b, _ := io.ReadAll(c)
			got <- b
		}()
		to, err := net.Dial("tcp", l.Addr().String())
		r.ok(err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ignored/file", nil)
		r.ok(err)
		res, err := rt.RoundTrip(req)
		r.ok(err)
		n, err := io.Copy(to, res.Body)
		r.ok(err)
		res.Body.Close()
		to.Close()
		if b := <-got; n != int64(len(data)) || !bytes.Equal(b, data) {
			t.Errorf("got %d bytes, %d of them at the other end, want %d", n, len(b), len(data))
		}
	}
	if got := s.count(); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}

// A caller that leaves takes its connection with it.
func TestCallerLeaves(t *testing.T) {
	asked := make(chan struct{})
	r, _ := newScripted(t, func(_ int, w io.Writer) bool {
		close(asked)
		return true
	})
	rt, err := r.Toolboxes().Toolbox(t.Context(), ref("one"))
	r.ok(err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, _, err = get(ctx, rt, "/a")
	wantKind(t, err, engine.KindCanceled)
	if r.busy() {
		t.Error("the call is still open")
	}
}
