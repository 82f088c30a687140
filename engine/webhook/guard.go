package webhook

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

const (
	tryLimit    = 20 * time.Second // for one delivery
	maxURL      = 2048
	maxResponse = 4 << 10 // bytes of an answer that are read, and thrown away
)

// public tells whether an address is of the public internet.
func public(addr netip.Addr) bool {
	addr = addr.Unmap()
	return !slices.ContainsFunc(engine.PrivatePrefixes(), func(p netip.Prefix) bool { return p.Contains(addr) })
}

func notPublic(where string) *engine.Error {
	return engine.Errorf(engine.KindInvalid, "%s is not an address of the public internet", where).
		WithHint("the operator may allow others with webhooks_private")
}

// checkURL refuses what cannot be or may not be an endpoint. What a name stands
// for is looked at with each connection, since it may change.
func (s *Service) checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "":
		return engine.Errorf(engine.KindInvalid, "url is not an http or https URL").WithHint("use a form like https://example.com/hook")
	case len(text) > maxURL:
		return engine.Errorf(engine.KindInvalid, "url has %d bytes", len(text)).WithHint("use at most %d", maxURL)
	case u.User != nil || u.Fragment != "":
		return engine.Errorf(engine.KindInvalid, "url holds a user or a fragment").WithHint("requests are signed; the receiver needs no password")
	case s.Private:
		return nil
	case u.Scheme != "https":
		return engine.Errorf(engine.KindInvalid, "url is not encrypted").WithHint("use https")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if addr, err := netip.ParseAddr(host); err == nil && !public(addr) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return notPublic(host)
	}
	return nil
}

// newClient makes connections to public addresses only, unless all are
// allowed. The address is checked when it is dialed, after the name was looked
// up, so that a name cannot change in between. Redirects are not followed.
func newClient(private bool) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if !private {
		dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !public(ap.Addr()) {
				return notPublic(address)
			}
			return nil
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 2, MaxIdleConns: 64, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
