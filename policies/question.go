package policies

import (
	"fmt"
	"net/netip"
	"strings"
)

// ParseQuestion reads a question as people ask it: its kind, one of connect,
// lookup, tool, exec, read, write and secret, and what it is about. A host
// without a port means 443 over TCP.
func ParseQuestion(kind, subject string) (Request, error) {
	switch kind {
	case "connect":
		return ParseConnect(withPort(subject))
	case "lookup":
		return LookupRequest{Name: subject}, nil
	case "tool":
		return ToolRequest{Tool: subject, Changes: true}, nil
	case "exec":
		return ExecRequest{Path: subject}, nil
	case "read", "write":
		return FileRequest{Path: subject, Write: kind == "write"}, nil
	case "secret":
		return SecretRequest{Name: subject}, nil
	}
	return nil, fmt.Errorf("%q is none of connect, lookup, tool, exec, read, write and secret", kind)
}

func withPort(subject string) string {
	if a, err := netip.ParseAddr(subject); err == nil && a.Is6() {
		return "[" + subject + "]:443"
	}
	if !strings.ContainsAny(subject, ":/") {
		return subject + ":443"
	}
	return subject
}
