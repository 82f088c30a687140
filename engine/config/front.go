package config

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// ACMEHosts is ACMEHost as a list, in lower case.
func (c Config) ACMEHosts() []string {
	return strings.FieldsFunc(strings.ToLower(c.ACMEHost), func(r rune) bool { return r == ',' || r == ' ' })
}

// TLS tells whether the server itself speaks TLS.
func (c Config) TLS() bool { return c.TLSCert != "" || c.ACMEHost != "" }

// validateFront checks what is about names and certificates.
func (c Config) validateFront(bad func(field, format string, args ...any)) {
	if c.PreviewDomain != "" && !isDomain(c.PreviewDomain) {
		bad("preview_domain", "%q is not a name, as example.com or example.com:8443", c.PreviewDomain)
	}
	if c.PreviewURLs != "host" && c.PreviewURLs != "path" {
		bad("preview_urls", "%q is not host or path", c.PreviewURLs)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls_cert", "tls_cert and tls_key go together")
	}
	for field, path := range map[string]string{"tls_cert": c.TLSCert, "tls_key": c.TLSKey} {
		if path != "" && !filepath.IsAbs(path) {
			bad(field, "%q is not an absolute path", path)
		}
	}
	if c.TLSCert != "" && c.ACMEHost != "" {
		bad("acme_host", "excludes tls_cert")
	}
	for _, h := range c.ACMEHosts() {
		if !isDomain(h) || strings.Contains(h, ":") || !strings.Contains(h, ".") {
			bad("acme_host", "%q is not a name that certificates are made for", h)
		}
	}
	if u, err := url.Parse(c.ACMEDirectory); c.ACMEDirectory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		bad("acme_directory", "%q is not an https URL", c.ACMEDirectory)
	}
	if c.TLS() && !strings.HasPrefix(c.PublicURL, "https://") {
		bad("public_url", "must begin with https:// when the server speaks TLS, and have a name of its certificate")
	}
}

// isDomain tells whether s is a host name, with a port or without.
func isDomain(s string) bool {
	name := s
	if host, port, err := net.SplitHostPort(s); err == nil && strings.Trim(port, "0123456789") == "" && port != "" {
		name = host
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return len(name) <= 253 && net.ParseIP(name) == nil
}
