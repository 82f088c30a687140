package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func TestFilesAreReadAgain(t *testing.T) {
	a, dir := gatewaytest.NewAuthority(t), t.TempDir()
	p := &pair{log: slog.New(slog.DiscardHandler)}
	p.cert, p.key = a.Write(dir, "one.example")
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	// want changes the files' time, which is coarse, and forgets the last look.
	want := func(name string) {
		t.Helper()
		clock = clock.Add(time.Minute)
		if err := os.Chtimes(p.cert, clock, clock); err != nil {
			t.Fatal(err)
		}
		p.looked = time.Time{}
		got, err := p.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if leaf, err := x509.ParseCertificate(got.Certificate[0]); err != nil || !slices.Equal(leaf.DNSNames, []string{name}) {
			t.Errorf("got %v, %v, want %s", leaf.DNSNames, err, name)
		}
	}
	want("one.example")
	a.Write(dir, "two.example")
	want("two.example")
	if err := os.WriteFile(p.cert, []byte("half a certifica"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("two.example")
}

func TestFilesThatDoNotFit(t *testing.T) {
	a, one, two := gatewaytest.NewAuthority(t), t.TempDir(), t.TempDir()
	cert, _ := a.Write(one, "one.example")
	_, key := a.Write(two, "two.example")
	for _, pair := range [][2]string{{cert, key}, {cert, filepath.Join(one, "none")}, {key, cert}} {
		if _, err := Files(pair[0], pair[1], slog.New(slog.DiscardHandler)); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%v: got %v, want invalid", pair, err)
		}
	}
}

func TestACMEAsksForKnownNamesOnly(t *testing.T) {
	a := ACME{
		Hosts: []string{"atoll.example"}, Cache: t.TempDir(),
		Preview: func(_ context.Context, host string) bool { return host == "3000-there.atoll.example" },
	}
	for host, want := range map[string]engine.Kind{
		"atoll.example": "", "ATOLL.example.": "", "3000-there.atoll.example": "",
		"3000-gone.atoll.example": engine.KindDenied, "www.atoll.example": engine.KindDenied, "evil.example": engine.KindDenied, "": engine.KindDenied,
	} {
		if err := a.allow(t.Context(), host); engine.KindOf(err) != want {
			t.Errorf("%q: got %v, want %q", host, err, want)
		}
	}
	if c := a.Config(); !slices.Contains(c.NextProtos, acme.ALPNProto) || !slices.Contains(c.NextProtos, "h2") || c.MinVersion < tls.VersionTLS12 {
		t.Errorf("got %+v", c)
	}
}

// An order in a signed request, as RFC 8555 writes it.
func TestOrdersAreRead(t *testing.T) {
	order := base64.RawURLEncoding.EncodeToString([]byte(`{"identifiers":[{"type":"dns","value":"a.example"},{"type":"dns","value":"b.example"}]}`))
	finalize := base64.RawURLEncoding.EncodeToString([]byte(`{"csr":"MII"}`))
	for body, want := range map[string][]string{
		`{"protected":"e30","payload":"` + order + `","signature":"AA"}`:    {"a.example", "b.example"},
		`{"protected":"e30","payload":"` + finalize + `","signature":"AA"}`: nil,
		`{"protected":"e30","payload":"","signature":"AA"}`:                 nil,
		`{"payload":"%"}`: nil, `no JSON`: nil, ``: nil,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://ca.example/order", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if got := ordered(req); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", body, got, want)
		}
	}
}
