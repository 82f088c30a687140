package policies

import (
	"fmt"
	"net/netip"
	"strings"
)

// FromLists makes a policy called network of the lists of the API. Networks are
// open on every port; names on the web's. Without lists everything is allowed,
// unless all is blocked.
func FromLists(blockAll bool, networks, domains []string) (*Policy, error) {
	p := &Policy{Name: "network", Egress: Egress{Default: Deny}}
	if blockAll {
		return p, nil
	}
	if len(networks) == 0 && len(domains) == 0 {
		p.Egress.Default = Allow
		return p, nil
	}
	byNetwork := EgressRule{Name: "networkAllowList", Verdict: Allow}
	for _, text := range networks {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("networkAllowList: %q is no network, as 192.0.2.0/24", text)
		}
		byNetwork.Networks = append(byNetwork.Networks, prefix.Masked())
	}
	byName := EgressRule{Name: "domainAllowList", Verdict: Allow}
	for _, text := range domains {
		host, err := ParseHost(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("domainAllowList: %w", err)
		}
		byName.Hosts = append(byName.Hosts, host)
	}
	for _, r := range []EgressRule{byNetwork, byName} {
		if len(r.Networks)+len(r.Hosts) > 0 {
			p.Egress.Rules = append(p.Egress.Rules, r)
		}
	}
	return p, nil
}
