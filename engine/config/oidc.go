package config

import (
	"net/url"
	"slices"
	"strings"
)

// OIDCAudiences returns the names that access tokens may have as audience:
// those configured, or the public URL with and without /mcp.
func (c Config) OIDCAudiences() []string {
	if list := splitWords(c.OIDCAudience); len(list) > 0 {
		return list
	}
	if c.PublicURL == "" {
		return nil
	}
	base := strings.TrimSuffix(c.PublicURL, "/")
	return []string{base + "/mcp", base}
}

// OIDCScopeList is OIDCScopes as a list.
func (c Config) OIDCScopeList() []string { return splitWords(c.OIDCScopes) }

func splitWords(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// validateOIDC checks what is about the identity provider.
func (c Config) validateOIDC(bad func(field, format string, args ...any)) {
	if c.OIDCIssuer == "" {
		if c.OIDCAudience != "" || c.OIDCScopes != "" || c.OIDCSignUp {
			bad("oidc_issuer", "is missing, and the other oidc settings are about it")
		}
		return
	}
	u, err := url.Parse(c.OIDCIssuer)
	local := err == nil && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && local) {
		bad("oidc_issuer", "%q is not an https URL", c.OIDCIssuer)
	}
	if len(c.OIDCAudiences()) == 0 {
		bad("oidc_audience", "is missing; name this server as tokens do, or set public_url")
	}
}
