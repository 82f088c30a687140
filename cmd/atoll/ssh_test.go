package main

import (
	"log/slog"
	"net"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/config"
	"github.com/atoll-sh/atoll/engine/core"
)

// TestSSHPortTaken has a second server go on without an SSH gateway, unless it
// was told where to have one.
func TestSSHPortTaken(t *testing.T) {
	if l, err := net.Listen("tcp", config.DefaultSSH); err == nil { // else another server has it
		defer l.Close()
	}
	for listen, want := range map[string]engine.Kind{"": "", "off": "", config.DefaultSSH: engine.KindUnavailable} {
		cfg := config.Default()
		cfg.Home, cfg.SSHListen = t.TempDir(), listen
		s := &server{cfg: cfg, log: slog.New(slog.DiscardHandler), core: &core.Core{}}
		if gate, err := s.openSSH(t.Context()); engine.KindOf(err) != want || gate != nil {
			t.Errorf("%q: got %v, %v, want the kind %q", listen, gate, err, want)
		}
	}
	cfg := config.Default()
	cfg.Home, cfg.SSHListen, cfg.SSHHost = t.TempDir(), "127.0.0.1:0", "ssh.example.com:2200"
	s := &server{cfg: cfg, log: slog.New(slog.DiscardHandler), core: &core.Core{}}
	gate, err := s.openSSH(t.Context())
	if err != nil || gate.Host != "ssh.example.com" || gate.Port != 2200 {
		t.Errorf("got %+v, %v", gate, err)
	}
	if err := s.close(t.Context()); err != nil {
		t.Error(err)
	}
}
