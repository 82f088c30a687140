package config

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/atoll-sh/atoll/policies"
)

var policyVariable = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)

// PolicyVariables parses PolicyHosts.
func (c Config) PolicyVariables() (map[string][]string, error) {
	out := map[string][]string{}
	for _, one := range strings.Fields(c.PolicyHosts) {
		name, hosts, ok := strings.Cut(one, "=")
		if !ok || !policyVariable.MatchString(name) {
			return nil, fmt.Errorf("%q is not of the form %s=a.example.com,b.example.com", one, policies.PythonIndexHosts)
		}
		for _, h := range strings.Split(hosts, ",") {
			host, err := policies.ParseHost(h)
			if err != nil {
				return nil, err
			}
			out[name] = append(out[name], string(host))
		}
	}
	return out, nil
}
