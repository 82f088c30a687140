package main

import (
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/oidc"
)

// identities checks access tokens of the identity provider; nil: none is
// trusted.
func (s *server) identities() engine.Identities {
	c := s.cfg
	if c.OIDCIssuer == "" {
		return nil
	}
	return oidc.New(oidc.Config{
		Issuer: c.OIDCIssuer, Audiences: c.OIDCAudiences(), Scopes: c.OIDCScopeList(),
		ScopeClaim: c.OIDCScopeClaim, OrganizationClaim: c.OIDCOrganizationClaim, Log: s.log,
	})
}
