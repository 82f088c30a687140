package certs

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/atoll-sh/atoll/engine"
)

// ACME is how certificates are got from an authority.
type ACME struct {
	Hosts     []string // names of the server
	Directory string   // URL of the authority; empty: Let's Encrypt
	Email     string   // for the authority's notices; empty: none
	Cache     string   // directory for keys and certificates
	// Preview tells whether a host name is that of a preview which exists. A
	// certificate is asked for such names when somebody comes by them.
	Preview func(ctx context.Context, host string) bool
	HTTP    *http.Client // to the authority; nil: the default one
}

// Config returns a configuration that gets certificates when they are needed,
// and renews them as long as their names lead somewhere. It proves the name with
// TLS-ALPN-01, on the same port. The terms of the authority are accepted.
func (a ACME) Config() *tls.Config {
	client := http.Client{}
	if a.HTTP != nil {
		client = *a.HTTP
	}
	client.Transport = orders{allow: a.allow, next: client.Transport}
	m := &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(a.Cache), HostPolicy: a.allow, Email: a.Email,
		Client: &acme.Client{DirectoryURL: a.Directory, HTTPClient: &client, UserAgent: "atoll"},
	}
	if a.Directory == "" {
		m.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	c := m.TLSConfig()
	c.MinVersion = tls.VersionTLS12
	return c
}

// allow keeps strangers from having certificates made for names that lead
// nowhere: authorities limit how many there may be.
func (a ACME) allow(ctx context.Context, host string) error {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if slices.Contains(a.Hosts, host) || a.Preview != nil && a.Preview(ctx, host) {
		return nil
	}
	return engine.Errorf(engine.KindDenied, "no certificate is made for %q", host)
}

// orders lets no order for a name pass that is not allowed. The manager asks
// its policy before the first order for a name, and not before renewals.
type orders struct {
	allow func(ctx context.Context, host string) error
	next  http.RoundTripper // nil: the default one
}

func (o orders) RoundTrip(req *http.Request) (*http.Response, error) {
	for _, host := range ordered(req) {
		if err := o.allow(req.Context(), host); err != nil {
			return nil, err
		}
	}
	if o.next == nil {
		return http.DefaultTransport.RoundTrip(req)
	}
	return o.next.RoundTrip(req)
}

// ordered are the names that a request asks certificates for.
func ordered(req *http.Request) (hosts []string) {
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	defer body.Close()
	var signed struct{ Payload string }
	if json.NewDecoder(body).Decode(&signed) != nil {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return nil
	}
	var order struct{ Identifiers []struct{ Value string } }
	_ = json.Unmarshal(text, &order) // what is no order has none
	for _, i := range order.Identifiers {
		hosts = append(hosts, i.Value)
	}
	return hosts
}
