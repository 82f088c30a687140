package main

import (
	"context"
	"path/filepath"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// openBox reads the keys that secrets are sealed with. Only the file of the
// home is made when it is absent: one that was named must exist, because a
// fresh key would not open what other servers sealed.
func (s *server) openBox() (*secret.Box, error) {
	if s.cfg.SecretKeyFile != "" {
		return secret.OpenFile(s.cfg.SecretKeyFile, false)
	}
	return secret.OpenFile(filepath.Join(s.cfg.Home, "secret.key"), true)
}

// services is what the server offers beside sandboxes.
func (s *server) services() engine.Services {
	return engine.Services{Secrets: s.core.Secrets()}
}

// tendServices does once what a start of the server is the moment for.
func (s *server) tendServices(ctx context.Context) {
	s.run(ctx, func(ctx context.Context) {
		n, err := s.core.Resealed(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("secrets not sealed anew", "err", err)
		}
		if n > 0 {
			s.log.Info("secrets sealed with the new key", "count", n)
		}
	})
}
