package certs

import (
	"context"
	"crypto/tls"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/atoll-sh/atoll/engine"
)

// ACME is how certificates are got from an authority.
type ACME struct {
	Hosts     []string // names of the server
	Directory string   // URL of the authority; empty: Let's Encrypt
	Email     string   // for the authority's notices; empty: none
	Cache     string   // directory for keys and certificates
	// Preview tells whether a host name is that of a preview which exists. A
	// certificate is asked for such names when somebody comes by them.
	Preview func(ctx context.Context, host string) bool
	HTTP    *http.Client // to the authority; nil: the default one
}

// Config returns a configuration that gets certificates when they are needed
// and proves the name with TLS-ALPN-01, on the same port. The terms of the
// authority are accepted.
func (a ACME) Config() *tls.Config {
	m := &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(a.Cache), HostPolicy: a.allow, Email: a.Email,
		Client: &acme.Client{DirectoryURL: a.Directory, HTTPClient: a.HTTP, UserAgent: "atoll"},
	}
	if a.Directory == "" {
		m.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	c := m.TLSConfig()
	c.MinVersion = tls.VersionTLS12
	return c
}

// allow keeps strangers from having certificates made for names that lead
// nowhere: authorities limit how many there may be.
func (a ACME) allow(ctx context.Context, host string) error {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if slices.Contains(a.Hosts, host) || a.Preview != nil && a.Preview(ctx, host) {
		return nil
	}
	return engine.Errorf(engine.KindDenied, "no certificate is made for %q", host)
}
