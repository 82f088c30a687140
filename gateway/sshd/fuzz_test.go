package sshd

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// FuzzRequest sends requests of a session with any body. What is understood
// must be within what the toolbox takes.
func FuzzRequest(f *testing.F) {
	f.Add("pty-req", ssh.Marshal(struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}{"xterm", 1 << 31, 5, 0, 0, "\x00"}))
	f.Add("env", ssh.Marshal(struct{ Name, Value string }{"LC_ALL", "C"}))
	f.Add("exec", ssh.Marshal(struct{ Command string }{"ls"}))
	f.Add("subsystem", ssh.Marshal(struct{ Name string }{"sftp"}))
	f.Add("window-change", []byte("1234567812345678"))
	f.Add("signal", ssh.Marshal(struct{ Signal string }{"TERM"}))
	f.Fuzz(func(t *testing.T, kind string, payload []byte) {
		s := &session{start: wire.ExecStart{Env: map[string]string{}}, controls: make(chan wire.ExecControl, maxControls)}
		ran := 0
		s.request(&ssh.Request{Type: kind, Payload: payload}, func() { ran++ })
		s.begun = true
		for range maxControls + 2 {
			s.request(&ssh.Request{Type: kind, Payload: payload}, func() { ran++ })
		}
		q := s.start
		if ran > 1 || q.Cols < 0 || q.Cols > maxSize || q.Rows < 0 || q.Rows > maxSize || q.TTY && (q.Cols == 0 || q.Rows == 0) {
			t.Errorf("%d runs, %+v", ran, q)
		}
		for name := range q.Env {
			if !envAllowed(name) {
				t.Errorf("the variable %q was taken", name)
			}
		}
		for len(s.controls) > 0 {
			if m := <-s.controls; m.Type == "resize" && (m.Cols < 1 || m.Cols > maxSize || m.Rows < 1 || m.Rows > maxSize) {
				t.Errorf("got %+v", m)
			}
		}
	})
}
