package policies

import (
	"fmt"
	"strings"
)

// Globs: * stands for any run of characters but "/", ** for any run at all, ?
// for one character but "/". Everything else stands for itself.

const maxGlob = 512

func checkGlob(g string) error {
	switch {
	case g == "":
		return fmt.Errorf("a pattern is empty")
	case len(g) > maxGlob:
		return fmt.Errorf("a pattern has %d bytes, of at most %d", len(g), maxGlob)
	case strings.ContainsRune(g, 0):
		return fmt.Errorf("pattern %q holds a NUL byte", g)
	case strings.Count(g, "*") > 16:
		return fmt.Errorf("pattern %q has more than 16 stars", g)
	}
	return nil
}

// matchGlob takes time proportional to the product of the lengths at most, so
// that neither side can make it slow.
func matchGlob(glob, s string) bool {
	// reach[i] tells whether what was read of glob matches s[:i].
	reach := make([]bool, len(s)+1)
	reach[0] = true
	for glob != "" {
		var star, deep bool
		switch {
		case strings.HasPrefix(glob, "**"):
			star, deep, glob = true, true, glob[2:]
		case glob[0] == '*':
			star, glob = true, glob[1:]
		}
		if star {
			for i := range len(s) {
				reach[i+1] = reach[i+1] || reach[i] && (deep || s[i] != '/')
			}
			continue
		}
		for i := len(s); i > 0; i-- {
			reach[i] = reach[i-1] && (glob[0] == s[i-1] || glob[0] == '?' && s[i-1] != '/')
		}
		reach[0] = false
		glob = glob[1:]
	}
	return reach[len(s)]
}
