package core_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

// refusing is a dialer whose toolboxes do not answer.
type refusing struct{}

func (refusing) Dial(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") }

// piped is a dialer whose toolboxes are one HTTP server in memory.
type piped struct {
	handler http.Handler

	mu    sync.Mutex
	dials []string
	wg    sync.WaitGroup
}

func (p *piped) Dial(_ context.Context, sandbox string) (net.Conn, error) {
	near, far := net.Pipe()
	p.mu.Lock()
	p.dials = append(p.dials, sandbox)
	p.mu.Unlock()
	l := &oneConn{conn: far, done: make(chan struct{})}
	p.wg.Go(func() { _ = http.Serve(l, p.handler) })
	return near, nil
}

func (p *piped) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dials)
}

// oneConn is a listener that has one connection.
type oneConn struct {
	conn net.Conn
	once bool
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.once {
		<-l.done
		return nil, io.EOF
	}
	l.once = true
	return &closing{l.conn, sync.OnceFunc(func() { close(l.done) })}, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

type closing struct {
	net.Conn
	done func()
}

func (c *closing) Close() error { c.done(); return c.Conn.Close() }

func newToolboxRig(t *testing.T, h http.HandlerFunc) (*rig, *piped) {
	t.Helper()
	p := &piped{handler: h}
	r := newRig(t, func(c *core.Config) { c.Dialer = p })
	t.Cleanup(func() { // runs before the rig's own
		r.ok(r.Close(context.Background()))
		p.wg.Wait()
	})
	return r, p
}

func (r *rig) call(name, path string) (int, string, error) {
	rt, err := r.Toolboxes().Toolbox(r.t.Context(), ref(name))
	if err != nil {
		return 0, "", err
	}
	return get(r.t.Context(), rt, path)
}

func get(ctx context.Context, rt http.RoundTripper, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ignored"+path, strings.NewReader("in"))
	if err != nil {
		return 0, "", err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func echo(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	fmt.Fprintf(w, "%s %s", req.URL.RequestURI(), body)
}

func TestToolboxCalls(t *testing.T) {
	r, p := newToolboxRig(t, echo)
	sb := r.create("one")
	for range 3 {
		code, body, err := r.call("one", "/process/execute?a=b%2Fc")
		if err != nil || code != 200 || body != "/process/execute?a=b%2Fc in" {
			t.Errorf("got %d %q, %v", code, body, err)
		}
	}
	if p.count() != 1 || p.dials[0] != sb.ID {
		t.Errorf("got dials %v, want one of %s", p.dials, sb.ID)
	}
	got, err := r.Sandboxes().Sandbox(t.Context(), ref("one"))
	if err != nil || !got.LastActive.After(sb.LastActive) {
		t.Errorf("last active %v, was %v, %v", got.LastActive, sb.LastActive, err)
	}
}

func TestToolboxRefusesInternalPaths(t *testing.T) {
	r, p := newToolboxRig(t, echo)
	r.create("one")
	for _, path := range []string{"/internal/identity", "/internal", "//internal/status", "/x/../internal/status", "/%69nternal/status", "/./internal/"} {
		_, _, err := r.call("one", path)
		if engine.KindOf(err) != engine.KindDenied {
			t.Errorf("%s: got %v, want denied", path, err)
		}
	}
	if p.count() != 0 {
		t.Errorf("got %d dials, want none", p.count())
	}
}

func TestToolboxFollowsTheSandbox(t *testing.T) {
	r, p := newToolboxRig(t, echo)
	r.create("one")
	kept, err := r.Toolboxes().Toolbox(t.Context(), ref("one"))
	r.ok(err)
	_, _, err = r.call("one", "/a")
	r.ok(err)
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	_, _, err = r.call("one", "/a")
	wantKind(t, err, engine.KindConflict)
	if !strings.Contains(engine.AsError(err).Hint, "start") {
		t.Errorf("got hint %q", engine.AsError(err).Hint)
	}
	_, _, err = get(t.Context(), kept, "/a")
	wantKind(t, err, engine.KindConflict)
	r.ok(second(r.Sandboxes().Start(t.Context(), ref("one"))))
	_, _, err = r.call("one", "/a")
	r.ok(err)
	if p.count() != 2 {
		t.Errorf("got %d dials, want one for each incarnation", p.count())
	}
	_, _, err = r.call("nobody", "/a")
	wantKind(t, err, engine.KindNotFound)
}

func TestToolboxStreamIsActivityUntilItEnds(t *testing.T) {
	r, _ := newToolboxRig(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") != "test" {
			t.Error("the upgrade was lost")
		}
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: Upgrade\r\n\r\n")
		for {
			line, err := buf.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(conn, "got ", line)
		}
	})
	r.create("one")
	rt, err := r.Toolboxes().Toolbox(t.Context(), ref("one"))
	r.ok(err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ignored/pty", nil)
	r.ok(err)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "test")
	resp, err := rt.RoundTrip(req)
	r.ok(err)
	defer resp.Body.Close()
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d and %T, want a stream", resp.StatusCode, resp.Body)
	}
	lines := bufio.NewReader(stream)
	for _, word := range []string{"a\n", "b\n"} {
		if _, err := io.WriteString(stream, word); err != nil {
			t.Fatal(err)
		}
		if got, err := lines.ReadString('\n'); got != "got "+word || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if !r.busy() {
		t.Error("an open stream is no activity")
	}
	// Stopping the sandbox ends the stream.
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	if _, err := lines.ReadString('\n'); err == nil {
		t.Error("the stream outlived the sandbox")
	}
	resp.Body.Close()
	if r.busy() {
		t.Error("a closed stream is still activity")
	}
}

func (r *rig) busy() bool {
	rows, err := r.Rows(r.t.Context())
	r.ok(err)
	return len(rows) == 1 && rows[0].Busy
}

func TestToolboxThatDoesNotAnswer(t *testing.T) {
	r := newRig(t, func(c *core.Config) { c.Dialer = refusing{} })
	r.create("one")
	_, _, err := r.call("one", "/a")
	wantKind(t, err, engine.KindUnavailable)
	select {
	case <-r.Suspects():
	default:
		t.Error("nobody is told that something may be wrong")
	}
	if r.busy() {
		t.Error("a failed call is still open")
	}
}
