package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"syscall"

	"github.com/atoll-sh/atoll/engine/config"
	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/sshd"
)

// openSSH opens the SSH gateway. There is none, and no error, when it is
// switched off or when another server has the port that nobody asked for.
func (s *server) openSSH(ctx context.Context) (*api.SSHGateway, error) {
	if s.cfg.SSHListen == "off" {
		return nil, nil
	}
	host, port, err := s.cfg.SSHAddress()
	if err != nil {
		return nil, err
	}
	key, err := sshd.HostKey(filepath.Join(s.cfg.Home, "ssh_host_ed25519_key"))
	if err != nil {
		return nil, err
	}
	gate, err := sshd.Open(ctx, sshd.Config{
		Listen: cmp.Or(s.cfg.SSHListen, config.DefaultSSH), Door: s.core.SSH(), Toolboxes: s.core.Toolboxes(), HostKey: key, Log: s.log,
	})
	if s.cfg.SSHListen == "" && errors.Is(err, syscall.EADDRINUSE) {
		s.log.Warn("no SSH gateway: its port is taken; choose another with --ssh-listen", "address", config.DefaultSSH)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.later(gate.Close)
	return &api.SSHGateway{
		Host: host, Port: cmp.Or(port, gate.Addr().Port), HostKey: sshd.PublicKey(key), Fingerprint: sshd.Fingerprint(key),
	}, nil
}
