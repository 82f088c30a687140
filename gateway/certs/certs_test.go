package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/atoll-sh/atoll/engine"
)

// authority is a CA of the test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, key: newKey(t)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// write makes a certificate for the name and puts it into files.
func (a *authority) write(dir, name string) (cert, key string) {
	a.t.Helper()
	k := newKey(a.t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

func TestFilesAreReadAgain(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	p := &pair{log: slog.New(slog.DiscardHandler)}
	p.cert, p.key = a.write(dir, "one.example")
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
	a.write(dir, "two.example")
	want("two.example")
	if err := os.WriteFile(p.cert, []byte("half a certifica"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("two.example")
}

func TestFilesThatDoNotFit(t *testing.T) {
	a, one, two := newAuthority(t), t.TempDir(), t.TempDir()
	cert, _ := a.write(one, "one.example")
	_, key := a.write(two, "two.example")
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
