package policies

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// Host is a pattern of host names in lower-case ASCII without a trailing dot:
// "example.com" is that name alone, "*.example.com" every name below it at any
// depth but not itself.
type Host string

// ParseHost reads a pattern as people write it: case, a trailing dot and
// Unicode labels are brought to the one form that is compared.
func ParseHost(text string) (Host, error) {
	name, wild := strings.CutPrefix(text, "*.")
	if name == "*" || name == "" {
		return "", fmt.Errorf("host %q stands for every name; use default: allow for that", text)
	}
	if strings.Contains(name, "*") {
		return "", fmt.Errorf("host %q has a star that is not its first label", text)
	}
	name, err := CanonicalName(name)
	if err != nil {
		return "", err
	}
	if !wild {
		return Host(name), nil
	}
	if !strings.Contains(name, ".") {
		return "", fmt.Errorf("host %q stands for a whole top-level domain", text)
	}
	return Host("*." + name), nil
}

// CanonicalName brings a host name to the form that patterns compare:
// lower-case ASCII, no trailing dot. It refuses what is no name, as an address,
// an empty label, or a byte that a resolver and an HTTP parser may read
// differently.
func CanonicalName(text string) (string, error) {
	name := strings.TrimSuffix(text, ".")
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("host %q has no name or more than 253 bytes", text)
	}
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil {
		// Lookup refuses underscores, which real service names have.
		ascii = strings.ToLower(name)
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if !isLabel(label) {
			return "", fmt.Errorf("host %q is not a host name", text)
		}
	}
	if len(ascii) > 253 {
		return "", fmt.Errorf("host %q has more than 253 bytes in ASCII", text)
	}
	if isNumeric(ascii) {
		return "", fmt.Errorf("host %q is an address; list it as a network", text)
	}
	return ascii, nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isNumeric tells whether some resolver might take the name for an address:
// its last label is a number, in any base.
func isNumeric(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(last, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// Matches tells whether a canonical name falls under the pattern.
func (h Host) Matches(name string) bool {
	parent, wild := strings.CutPrefix(string(h), "*")
	if !wild {
		return string(h) == name
	}
	return len(name) > len(parent) && strings.HasSuffix(name, parent)
}
