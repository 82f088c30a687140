package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/certs"
	"github.com/atoll-sh/atoll/gateway/preview"
)

// tls returns how the gateway speaks TLS, or nil.
func (s *server) tls() (*tls.Config, error) {
	c := s.cfg
	switch {
	case c.TLSCert != "":
		return certs.Files(c.TLSCert, c.TLSKey, s.log)
	case c.ACMEHost == "":
		return nil, nil
	}
	domain := preview.Domain(c.PreviewDomain)
	if domain == "" {
		domain = preview.DefaultDomain(c.PublicURL)
	}
	links := s.core.Previews()
	return certs.ACME{
		Hosts: c.ACMEHosts(), Directory: c.ACMEDirectory, Email: c.ACMEEmail, Cache: filepath.Join(c.Home, "acme"),
		Preview: func(ctx context.Context, host string) bool { return domain.Exists(ctx, links, host) },
	}.Config(), nil
}

// secretFile reads a secret of 32 bytes, or makes it.
func secretFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		return secret, writeFile(path, []byte(hex.EncodeToString(secret)+"\n"), 0o600)
	}
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != 32 {
		return nil, engine.Errorf(engine.KindInvalid, "%s is damaged", path).
			WithHint("restore it, or remove it to have a new one made; preview tokens and signed file URLs change then").Wrap(err)
	}
	return secret, nil
}
