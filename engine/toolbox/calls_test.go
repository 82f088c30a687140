package toolbox

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// server is where a toolbox tells for which call processes work.
type server struct {
	t        *testing.T
	listener int
	conn     int
}

func listenForCalls(t *testing.T, socket string) *server {
	t.Helper()
	path := filepath.Join(filepath.Dir(socket), wire.CallsSocket)
	_ = unix.Unlink(path)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 4)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, listener: fd, conn: -1}
	t.Cleanup(s.close)
	return s
}

func (s *server) close() {
	for _, fd := range []*int{&s.listener, &s.conn} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// next waits for what is told next.
func (s *server) next() (m wire.Begun) {
	s.t.Helper()
	limit := unix.NsecToTimeval((20 * time.Second).Nanoseconds())
	if s.conn < 0 {
		if err := unix.SetsockoptTimeval(s.listener, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			s.t.Fatal(err)
		}
		var err error
		if s.conn, _, err = unix.Accept4(s.listener, unix.SOCK_CLOEXEC); err != nil {
			s.t.Fatal(err)
		}
		if err := unix.SetsockoptTimeval(s.conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			s.t.Fatal(err)
		}
	}
	buf := make([]byte, 1024)
	n, err := unix.Read(s.conn, buf)
	if err != nil || n == 0 {
		s.t.Fatalf("nothing is told: %v", err)
	}
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		s.t.Fatal(err)
	}
	if m.PID <= 0 || m.At <= 0 {
		s.t.Errorf("told of process %d at %d", m.PID, m.At)
	}
	return m
}

// call makes a request for a call of the ledger.
func (b *box) call(call, method, path string, body any) {
	b.t.Helper()
	if status, _, text := b.send(method, path, b.json(body), callHeader, call); status >= http.StatusBadRequest {
		b.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
}

// TestCallsAreTold: the server learns which process was begun for which call,
// and when a shell works for another one.
func TestCallsAreTold(t *testing.T) {
	b := open(t)
	s := listenForCalls(t, b.tb.config.Socket)
	b.call("A", "POST", "/process/execute", map[string]any{"command": "true"})
	if m := s.next(); m.Call != "A" {
		t.Errorf("a command: %+v", m)
	}
	b.call("C", "POST", "/process/pty", map[string]any{"id": "p"})
	if m := s.next(); m.Call != "C" {
		t.Errorf("a terminal: %+v", m)
	}
	b.call("D", "POST", "/process/session", map[string]any{"sessionId": "s"})
	shell := s.next()
	if shell.Call != "D" {
		t.Errorf("a session: %+v", shell)
	}
	for _, call := range []string{"E", "F"} {
		b.call(call, "POST", "/process/session/s/exec", map[string]any{"command": "true"})
		begun, ended := s.next(), s.next()
		if begun.Call != call || begun.PID != shell.PID || ended.Call != "" || ended.PID != shell.PID || ended.At < begun.At {
			t.Errorf("a session's command: %+v, %+v", begun, ended)
		}
	}
	b.run("true")
	if m := s.next(); m.Call != "" {
		t.Errorf("a command without a call: %+v", m)
	}
}

// TestCallsWithoutServer: commands run whether or not anybody listens, and a
// new server is told.
func TestCallsWithoutServer(t *testing.T) {
	b := open(t)
	b.call("A", "POST", "/process/execute", map[string]any{"command": "true"})
	for range 2 {
		s := listenForCalls(t, b.tb.config.Socket)
		b.call("B", "POST", "/process/execute", map[string]any{"command": "true"})
		if m := s.next(); m.Call != "B" {
			t.Errorf("got %+v", m)
		}
		s.close()
	}
}
