// Package certs gives the server its TLS certificates: from files, which may
// be replaced while it runs, or from an ACME authority.
package certs

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// Files returns a configuration whose certificate comes from PEM files. They
// are read again after they changed; a pair that does not fit is logged and the
// old one stays.
func Files(cert, key string, log *slog.Logger) (*tls.Config, error) {
	p := &pair{cert: cert, key: key, log: log}
	if err := p.load(); err != nil {
		return nil, engine.Errorf(engine.KindInvalid, "the TLS certificate %s and key %s cannot be used", cert, key).
			WithHint("both must be PEM files that belong together").Wrap(err)
	}
	return &tls.Config{GetCertificate: p.get, MinVersion: tls.VersionTLS12}, nil
}

// pair is a certificate and its key, in files.
type pair struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]stamp
	looked  time.Time
}

// stamp tells whether a file is the one that was read.
type stamp struct {
	at   time.Time
	size int64
}

func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.looked) >= lookEvery {
		p.looked = now
		if p.stamps() != p.stamp {
			p.renew()
		}
	}
	return p.current, nil
}

func (p *pair) renew() {
	if err := p.load(); err != nil {
		p.log.Error("the new TLS certificate is not used", "cert", p.cert, "error", err)
		return
	}
	p.log.Info("new TLS certificate", "cert", p.cert)
}

// load reads both files. The stamps are taken first, so that a file which is
// written meanwhile is read once more.
func (p *pair) load() error {
	stamp := p.stamps()
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return err
	}
	p.current, p.stamp = &c, stamp
	return nil
}

func (p *pair) stamps() (s [2]stamp) {
	for i, path := range []string{p.cert, p.key} {
		if fi, err := os.Stat(path); err == nil {
			s[i] = stamp{fi.ModTime(), fi.Size()}
		}
	}
	return s
}
