package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/certs"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// lifetime is that of the authority's certificates. They are renewed when a
// third of it is left.
const lifetime = 45 * time.Second

// pebble is Let's Encrypt's authority for tests, on an address of its own, with
// a name server that says that all names are there.
type pebble struct {
	*testing.T
	programs, addr string
	cmd            *exec.Cmd
	http           *http.Client
}

func startPebble(t *testing.T) *pebble {
	t.Helper()
	module := "github.com/letsencrypt/pebble/v2"
	own, dir := gatewaytest.NewAuthority(t), t.TempDir()
	p := &pebble{
		T:        t,
		programs: published.Go(t, "require "+module+" v2.10.3\n", module+"/cmd/pebble", module+"/cmd/pebble-challtestsrv"),
		addr:     fmt.Sprintf("127.%d.%d.2", 64+os.Getpid()>>8&63, os.Getpid()&255),
		http:     &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: own.Pool}, DisableKeepAlives: true}},
	}
	cert, key := own.Write(dir, "pebble.example")
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": p.at(14000), "managementListenAddress": p.at(15000), "certificate": cert, "privateKey": key, "tlsPort": 5001, "httpPort": 5002,
		"retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "short", "validityPeriod": int(lifetime.Seconds())}},
	}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "pebble.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.http.Transport.(*http.Transport).TLSClientConfig.ServerName = "pebble.example"
	p.start("pebble-challtestsrv", "-defaultIPv4", p.addr, "-defaultIPv6", "", "-dnsserver", p.at(8053), "-management", p.at(8055), "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	p.cmd = p.start("pebble", "-strict", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", p.at(8053))
	return p
}

func (p *pebble) at(port int) string { return fmt.Sprintf("%s:%d", p.addr, port) }

// start runs a program until the end of the test, or until it is killed.
func (p *pebble) start(name string, args ...string) *exec.Cmd {
	p.Helper()
	cmd := exec.CommandContext(p.Context(), filepath.Join(p.programs, name), args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	cmd.Stdout = p.Output()
	cmd.Stderr = p.Output()
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = cmd.Wait() }) // after the context, which kills it
	return cmd
}

// root waits for the authority and returns whom its certificates stand on.
func (p *pebble) root() *x509.CertPool {
	p.Helper()
	pool := x509.NewCertPool()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(p.Context(), http.MethodGet, "https://"+p.at(15000)+"/roots/0", nil)
		if err != nil {
			p.Fatal(err)
		}
		res, err := p.http.Do(req)
		if err == nil {
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if pool.AppendCertsFromPEM(text) {
				return pool
			}
		}
		if time.Now().After(end) {
			p.Fatalf("the authority does not start: %v", err)
		}
	}
}

// A real authority issues certificates for the server and its previews and
// renews them in time, if they still are there. It is not asked for what is in
// the cache.
func TestACME(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a certificate to be renewed")
	}
	authority := startPebble(t)
	roots := authority.root()
	preview, deleted := "3000-"+private+".atoll.example", "3000-deleted.atoll.example"
	var gone atomic.Bool
	acme := certs.ACME{
		Hosts: []string{"atoll.example"}, Directory: "https://" + authority.at(14000) + "/dir", Email: "someone@atoll.example", Cache: t.TempDir(),
		Preview: func(_ context.Context, host string) bool { return host == preview || host == deleted && !gone.Load() }, HTTP: authority.http,
	}
	serve := func(listen string) func(host string) (*x509.Certificate, error) {
		b := newBench(t, func(c *gateway.Config) {
			c.TLS, c.PublicURL, c.Listen = acme.Config(), "https://atoll.example", listen
		})
		return func(host string) (*x509.Certificate, error) {
			d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: &tls.Config{RootCAs: roots, ServerName: host}}
			c, err := d.DialContext(t.Context(), "tcp", b.s.Addr().String())
			if err != nil {
				return nil, err
			}
			defer c.Close()
			return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
		}
	}
	hello := serve(authority.at(5001))
	first := map[string]*x509.Certificate{}
	for _, host := range []string{deleted, "atoll.example", preview} {
		c, err := hello(host)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		first[host] = c
	}
	gone.Store(true)
	cached := func() string {
		text, err := os.ReadFile(filepath.Join(acme.Cache, deleted))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := cached()
	for _, host := range []string{"3000-none.atoll.example", "www.atoll.example", "evil.example"} {
		if c, err := hello(host); err == nil {
			t.Errorf("%s: got a certificate for %v", host, c.DNSNames)
		}
	}
	last := map[string]*x509.Certificate{}
	for _, host := range []string{"atoll.example", preview} {
		for old := first[host]; ; time.Sleep(250 * time.Millisecond) {
			c, err := hello(host)
			if err != nil {
				t.Fatalf("%s: a connection while the certificate is renewed: %v", host, err)
			}
			if !c.Equal(old) {
				last[host] = c
				break
			}
		}
	}
	// Its turn came before theirs, but for the tenth of the last third that
	// renewals are spread over.
	time.Sleep(lifetime / 30)
	if now := cached(); now != before {
		t.Error("the certificate of a deleted sandbox was renewed")
	}
	if _, err := hello(deleted); err == nil {
		t.Error("a deleted sandbox has a certificate")
	}
	_ = authority.cmd.Process.Kill()
	again := serve("127.0.0.1:0")
	for host, want := range last {
		if c, err := again(host); err != nil || !c.Equal(want) {
			t.Errorf("%s: after a restart without the authority: got %v, want the renewed certificate", host, err)
		}
	}
}
