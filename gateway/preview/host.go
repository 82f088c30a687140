package preview

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// Domain is the name below which previews live, as example.com:8443 or
// localhost:7777. The empty one has no previews.
type Domain string

// DefaultDomain is the domain for a server that clients reach by this URL. An
// address of this machine becomes localhost, whose names need no DNS; another
// address has no names below it, so there is none.
func DefaultDomain(serverURL string) Domain {
	u, err := url.Parse(serverURL)
	if err != nil || u.Host == "" {
		return ""
	}
	ip := net.ParseIP(u.Hostname())
	switch {
	case ip == nil:
		return Domain(strings.ToLower(u.Host))
	case !ip.IsLoopback():
		return ""
	case u.Port() == "":
		return "localhost"
	}
	return Domain("localhost:" + u.Port())
}

// hostname is d without its port.
func (d Domain) hostname() string { return hostname(string(d)) }

// target is what a preview's name says: a port, and the id of a sandbox or the
// token of a link.
type target struct {
	port  int
	label string
}

// isLink tells whether the label is a link's token rather than a sandbox's id.
func (t target) isLink() bool {
	return len(t.label) == engine.LinkTokenLen && !strings.Contains(t.label, "-")
}

func (t target) String() string { return strconv.Itoa(t.port) + "-" + t.label }

// host returns the name of a preview, with the domain's port.
func (d Domain) host(t target) string { return t.String() + "." + string(d) }

// Below tells whether a Host header names something that is a preview's
// business alone, be it well formed or not: a name below the domain with a part
// that begins with a number and a hyphen. What listens there is not the API.
func (d Domain) Below(hostport string) bool {
	name, ok := d.cut(hostport)
	if !ok {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		number, _, hyphen := strings.Cut(label, "-")
		if hyphen && number != "" && strings.Trim(number, "0123456789") == "" {
			return true
		}
	}
	return false
}

// parse reads a Host header. It is strict: one label, no leading zeros.
func (d Domain) parse(hostport string) (target, bool) {
	name, ok := d.cut(hostport)
	if !ok {
		return target{}, false
	}
	number, label, _ := strings.Cut(name, "-")
	return newTarget(number, label)
}

// newTarget checks the parts of a preview's name.
func newTarget(number, label string) (target, bool) {
	port, err := strconv.Atoi(number)
	if err != nil || port < 1 || port > 65535 || strconv.Itoa(port) != number || !plain(label) {
		return target{}, false
	}
	return target{port: port, label: label}, true
}

// plain tells whether s can be an id or a token: nothing that would mean
// something in a host name, a path or a cookie.
func plain(s string) bool {
	return s != "" && len(s) <= 57 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// cut returns what stands before the domain.
func (d Domain) cut(hostport string) (string, bool) {
	if d == "" {
		return "", false
	}
	name, ok := strings.CutSuffix(hostname(hostport), "."+d.hostname())
	return name, ok && name != ""
}

// hostname takes off the port and the dot of the root, and the letters' case.
func hostname(hostport string) string {
	h := hostport
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		h = host
	}
	return strings.ToLower(strings.TrimSuffix(h, "."))
}

// Exists tells whether a host name is that of a sandbox which is there. It is for
// those who have certificates made. Links do not count: authorities publish the
// names, and theirs are secret.
func (d Domain) Exists(ctx context.Context, links engine.Previews, hostport string) bool {
	t, ok := d.parse(hostport)
	if !ok || t.isLink() {
		return false
	}
	_, err := links.AccessByID(ctx, t.label)
	return err == nil
}
