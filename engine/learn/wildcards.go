package learn

import (
	"maps"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/atoll-sh/atoll/policies"
)

// collapse puts "*.parent" in place of the names right below parent, where
// there are at least two. A parent below which strangers can have names, as
// co.uk or a hoster's, stays.
func collapse(targets map[string]map[policies.Ports]bool) map[string]map[policies.Ports]bool {
	below := map[string][]string{}
	for target := range targets {
		if _, parent, ok := strings.Cut(target, "."); ok && owned(parent) && !isAddress(target) {
			below[parent] = append(below[parent], target)
		}
	}
	out := maps.Clone(targets)
	for parent, names := range below {
		if len(names) < 2 {
			continue
		}
		all := map[policies.Ports]bool{}
		for _, n := range names {
			maps.Copy(all, targets[n])
			delete(out, n)
		}
		out["*."+parent] = all
	}
	return out
}

// owned tells whether a name and all below it belong to one owner.
func owned(name string) bool {
	_, err := publicsuffix.EffectiveTLDPlusOne(name)
	return err == nil && strings.Contains(name, ".")
}

func isAddress(target string) bool {
	return strings.Contains(target, ":") || !strings.ContainsFunc(target, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
}
