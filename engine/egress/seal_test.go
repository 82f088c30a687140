package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/secret"
)

// received is the last request to /echo of the internet's servers.
type received struct {
	mu                             sync.Mutex
	header, query, path, body, ver string
	length                         int64
}

// echo answers with what it got.
func (g *received) echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	g.header, g.query, g.path, g.body, g.ver, g.length = r.Header.Get("Authorization"), r.URL.RawQuery, r.URL.EscapedPath(), string(b), r.Proto, r.ContentLength
	g.mu.Unlock()
	w.Header().Set("X-Echo", r.Header.Get("Authorization"))
	w.Header().Set("Location", "https://evil.example/?"+r.URL.RawQuery)
	w.Header().Set("Trailer", "X-End")
	out := r.Header.Get("Authorization") + "|" + r.URL.RawQuery + "|" + string(b)
	if r.URL.Query().Has("flush") { // in pieces that cut a value in two
		for _, c := range []byte(out) {
			_, _ = w.Write([]byte{c})
			w.(http.Flusher).Flush()
		}
	} else {
		_, _ = io.WriteString(w, out)
	}
	w.Header().Set("X-End", r.Header.Get("Authorization"))
}

func (g *received) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.header, g.query, g.path, g.body = "", "", "", ""
}

func (g *received) take() (out struct {
	header, query, path, body, ver string
	length                         int64
},
) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out.header, out.query, out.path, out.body, out.ver, out.length = g.header, g.query, g.path, g.body, g.ver, g.length
	return out
}

// vault is a resolver whose secrets tests change.
type vault struct {
	mu   sync.Mutex
	have map[string][]secret.Binding
	err  error
}

func (v *vault) Resolve(_ context.Context, sandbox string) ([]secret.Binding, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.have[sandbox], v.err
}

func (v *vault) set(sandbox string, err error, b ...secret.Binding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.have[sandbox], v.err = b, err
}

const (
	holder = "dtn_secret_11111111-1111-4111-8111-111111111111"
	value  = "s3cr3t/with+odd=chars"
)

func binding(hosts ...string) secret.Binding {
	return secret.Binding{Name: "api key", Placeholder: holder, Value: secret.NewValue(value), Hosts: hosts}
}

// sealed is a sandbox with a secret, and what its processes trust.
func (w *world) sealed(p engine.NetworkPolicy, b ...secret.Binding) (network.Slot, *vault, *x509.CertPool) {
	w.t.Helper()
	v := &vault{have: map[string][]secret.Binding{"sb": b}}
	w.filter.SetResolver(v)
	s, err := w.manager.Acquire(w.t.Context())
	must(w.t, err)
	pem, err := w.filter.Seal(s, "sb")
	must(w.t, err)
	must(w.t, w.manager.Apply(w.t.Context(), s, p))
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		w.t.Fatal("the certificate is none")
	}
	return s, v, pool
}

// client makes requests from a sandbox, to an address whatever the name.
func client(t *testing.T, s network.Slot, pool *x509.CertPool, address string, h2 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool}, //nolint:gosec // a test's
		ForceAttemptHTTP2: h2, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return connect(s, "tcp", address, wait) },
	}
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: wait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func post(c *http.Client, url, kind, auth, body string) (*http.Response, string, error) {
	req, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", auth)
	req.Header.Set("Content-Type", kind)
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func TestSecretReachesItsHost(t *testing.T) {
	for _, policy := range []engine.NetworkPolicy{{}, domains("good.example")} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("names %d, h2 %v", len(policy.AllowDomains), h2), func(t *testing.T) {
				w := newWorld(t)
				s, _, pool := w.sealed(policy, binding("good.example"))
				c := client(t, s, pool, good4+":443", h2)
				for _, flush := range []string{"", "&flush=1"} {
					resp, body, err := post(c, "https://good.example/echo/"+holder+"?k="+holder+flush, "application/json", "Bearer "+holder, `{"k":"`+holder+`"}`)
					must(t, err)
					got := w.got.take()
					if got.header != "Bearer "+value || got.query != "k=s3cr3t%2Fwith%2Bodd%3Dchars"+flush || got.body != `{"k":"`+value+`"}` || got.path != "/echo/s3cr3t%2Fwith+odd=chars" {
						t.Errorf("the host got %+v", got)
					}
					if got.length != int64(len(got.body)) {
						t.Errorf("length %d of %d bytes", got.length, len(got.body))
					}
					if want := "Bearer " + holder + "|k=" + holder + flush + `|{"k":"` + holder + `"}`; body != want {
						t.Errorf("the sandbox got %q, want %q", body, want)
					}
					for _, list := range []http.Header{resp.Header, resp.Trailer} {
						if text := fmt.Sprint(list); strings.Contains(text, "s3cr3t") {
							t.Errorf("a value came back: %s", text)
						}
					}
					if flush != "" && resp.Trailer.Get("X-End") != "Bearer "+holder || resp.StatusCode != 200 || h2 != (resp.ProtoMajor == 2) {
						t.Errorf("got %v with trailer %v", resp.Proto, resp.Trailer)
					}
				}
				// Of unknown length, and with credentials as git has them.
				req, err := http.NewRequest("POST", "https://good.example/echo", io.MultiReader(strings.NewReader("a "+holder[:20]), strings.NewReader(holder[20:]+" z")))
				must(t, err)
				req.SetBasicAuth("x", holder)
				resp, err := c.Do(req)
				must(t, err)
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				must(t, err)
				got := w.got.take()
				if got.body != "a "+value+" z" || got.header != "Basic "+base64.StdEncoding.EncodeToString([]byte("x:"+value)) {
					t.Errorf("the host got %+v", got)
				}
				if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+holder)); resp.Header.Get("X-Echo") != want || strings.Contains(string(b), "s3cr3t") {
					t.Errorf("the sandbox got %q and %q", resp.Header.Get("X-Echo"), b)
				}
			})
		}
	}
}

func TestSecretStaysAwayFromOthers(t *testing.T) {
	w := newWorld(t)
	s, v, pool := w.sealed(engine.NetworkPolicy{}, binding("good.example"))
	// Another host: its own certificate comes through, which the sandbox's
	// authority did not sign, and the placeholder stays.
	if _, _, err := post(client(t, s, pool, evil4+":443", true), "https://evil.example/echo", "", "Bearer "+holder, ""); !isUnknownAuthority(err) {
		t.Errorf("another host answered with a certificate of the sandbox's: %v", err)
	}
	_, body, err := post(client(t, s, w.roots, evil4+":443", true), "https://evil.example/echo", "text/plain", "Bearer "+holder, holder)
	if err != nil || body != "Bearer "+holder+"||"+holder || w.got.take().header != "Bearer "+holder {
		t.Errorf("another host: %q, %v", body, err)
	}
	// The secret's host at another's address goes to its own.
	if _, _, err = post(client(t, s, pool, evil4+":443", false), "https://good.example/echo", "text/plain", holder, ""); err != nil || w.got.take().header != value {
		t.Errorf("the host at another address: %v", err)
	}
	// In the clear.
	if _, body, err = post(client(t, s, nil, good4+":80", false), "http://good.example/echo", "text/plain", holder, holder); err != nil || body != holder+"||"+holder {
		t.Errorf("in the clear: %q, %v", body, err)
	}
	// Another host asked for on the host's connection.
	for _, host := range []string{"evil.example", "good.example:8443", "x.good.example"} {
		resp, err := misdirect(s, pool, host)
		if err != nil || resp != http.StatusMisdirectedRequest {
			t.Errorf("%s on the connection of good.example: %d, %v", host, resp, err)
		}
	}
	// TLS without a name, and no TLS at all, go where they went.
	if got, err := get(s, "", good4+":443"); err == nil && !strings.HasPrefix(got, "400") && !strings.HasPrefix(got, "200") {
		t.Errorf("without a name: %q", got)
	}
	if got, err := plain(s, good4+":443", "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"); err != nil || !strings.HasPrefix(got, "400") {
		t.Errorf("plain text: %q, %v", got, err)
	}
	// It changes under a connection that stands.
	c := client(t, s, pool, good4+":443", true)
	header := func() string {
		_, _, err := post(c, "https://good.example/echo", "text/plain", holder, "")
		must(t, err)
		return w.got.take().header
	}
	if got := header(); got != value {
		t.Errorf("got %q", got)
	}
	v.set("sb", nil)
	if got := header(); got != holder {
		t.Errorf("after it was detached: %q", got)
	}
	v.set("sb", nil, binding("good.example"))
	if got := header(); got != value {
		t.Errorf("after it was attached: %q", got)
	}
	v.set("sb", errors.New("the database is gone"))
	if resp, _, err := post(c, "https://good.example/echo", "text/plain", holder, ""); err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("without an answer about secrets: %v, %v", resp, err)
	}
	if _, _, err := post(client(t, s, w.roots, good4+":443", false), "https://good.example/echo", "text/plain", holder, ""); err == nil {
		t.Error("a new connection without an answer about secrets")
	}
}

func misdirect(s network.Slot, pool *x509.CertPool, host string) (int, error) {
	c, err := connect(s, "tcp", good4+":443", wait)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	k := tls.Client(c, &tls.Config{ServerName: "good.example", RootCAs: pool}) //nolint:gosec // a test's
	fmt.Fprintf(k, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	got, err := body(k)
	var code int
	_, _ = fmt.Sscan(got, &code)
	return code, err
}

func isUnknownAuthority(err error) bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

func TestSealFollowsThePolicy(t *testing.T) {
	w := newWorld(t)
	s, _, pool := w.sealed(domains("a.cdn.example"), binding("good.example", "*.cdn.example", "rebind.example"))
	if _, _, err := post(client(t, s, pool, good4+":443", true), "https://good.example/echo", "text/plain", holder, ""); err == nil {
		t.Error("a secret opened a host that the policy does not allow")
	}
	c := client(t, s, pool, good4+":443", true)
	if _, _, err := post(c, "https://a.cdn.example/echo", "text/plain", holder, ""); err != nil || w.got.take().header != value {
		t.Errorf("a host by pattern: %v", err)
	}
	must(t, w.manager.Apply(t.Context(), s, domains("good.example", "rebind.example")))
	if _, _, err := post(c, "https://a.cdn.example/echo", "text/plain", holder, ""); err == nil {
		t.Error("a connection outlived the policy that allowed it")
	}
	if resp, text, err := post(client(t, s, pool, good4+":443", true), "https://rebind.example/echo", "text/plain", holder, ""); err != nil || resp.StatusCode != http.StatusBadGateway || strings.Contains(text, "s3cr3t") {
		t.Errorf("a host at private addresses: %v, %q, %v", resp, text, err)
	}
	// A host whose certificate nobody knows gets nothing.
	w.filter.proxy.roots = x509.NewCertPool()
	w.got.take()
	resp, text, err := post(client(t, s, pool, good4+":443", true), "https://good.example/echo/unknown", "text/plain", holder, "")
	if err != nil || resp.StatusCode != http.StatusBadGateway || strings.Contains(text, "s3cr3t") || w.got.take().path == "/echo/unknown" {
		t.Errorf("a host that is another: %v, %q, %v", resp, text, err)
	}
}

func TestOpenPolicyWithSecrets(t *testing.T) {
	w := newWorld(t)
	s, _, pool := w.sealed(engine.NetworkPolicy{}, binding("good.example"))
	// All that was open stays so, but for QUIC.
	for _, a := range []string{good4 + ":9000", evil4 + ":22"} {
		if _, err := greets(s, a, wait); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	if got, err := get(s, "evil.example", evil4+":443"); err != nil || got != "200 evil served evil.example/x" {
		t.Errorf("another host: %q, %v", got, err)
	}
	if got, err := get(s, "no-such.example", good4+":443"); err != nil || got != "200 good served no-such.example/x" {
		t.Errorf("a name that does not resolve, at an address: %q, %v", got, err)
	}
	if got, err := plain(s, evil4+":80", "GET /y HTTP/1.1\r\nHost: odd host\r\nConnection: close\r\n\r\n"); err != nil || !strings.HasPrefix(got, "400") {
		t.Errorf("what the server refuses itself: %q, %v", got, err)
	}
	for _, a := range []string{"169.254.169.254:443", "10.0.0.1:443", s.Gateway4.String() + ":443", s.Gateway4.String() + ":80"} {
		if c, err := connect(s, "tcp", a, patience); err == nil {
			_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("%s answered", a)
			}
			c.Close()
		}
	}
	if ask, _ := w.filter.Question(s.Index, buildQuestion(1, "good.example", dnsmessage.Type(typeHTTPS))); ask != nil {
		t.Error("a question for the keys of an encrypted hello was passed on")
	}
	// Without secrets it is as it was, and nothing ends TLS.
	old, err := w.filter.Seal(s, "sb")
	must(t, err)
	must(t, w.filter.Unseal(s))
	if _, _, err := post(client(t, s, pool, good4+":443", true), "https://good.example/echo", "", holder, ""); !isUnknownAuthority(err) {
		t.Errorf("after the end of the seal: %v", err)
	}
	if got, err := get(s, "good.example", good4+":443"); err != nil || got != "200 good served good.example/x" {
		t.Errorf("after the end of the seal: %q, %v", got, err)
	}
	again, err := w.filter.Seal(s, "sb")
	must(t, err)
	if string(old) == string(again) {
		t.Error("a new seal has the old certificate")
	}
}

func TestSwapBounds(t *testing.T) {
	s := newSwap([]secret.Binding{{Placeholder: holder, Value: secret.NewValue(strings.Repeat("v", 60<<10))}}, make(chan struct{}, 9))
	req := func(auth, kind, body string) *http.Request {
		r, err := http.NewRequest("POST", "https://good.example/", strings.NewReader(body))
		must(t, err)
		r.Header.Set("Authorization", auth)
		r.Header.Set("Content-Type", kind)
		return r
	}
	if err := s.request(req(strings.Repeat(holder, 5), "", "")); engine.KindOf(err) != engine.KindExhausted {
		t.Errorf("a large head: %v", err)
	}
	if err := s.request(req("", "text/plain", strings.Repeat(holder, 200))); engine.KindOf(err) != engine.KindExhausted {
		t.Errorf("a large body: %v", err)
	}
	line := newSwap([]secret.Binding{{Placeholder: holder, Value: secret.NewValue("two\nlines of it")}}, make(chan struct{}, 9))
	if err := line.request(req(holder, "", "")); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("a value of two lines in a header: %v", err)
	}
	for kind, want := range map[string]string{
		"application/json": `two\nlines of it`, "application/x-www-form-urlencoded": "two%0Alines+of+it",
		"text/plain": "two\nlines of it", "application/octet-stream": holder, "": "two\nlines of it",
	} {
		r := req("", kind, holder)
		must(t, line.request(r))
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != want || r.ContentLength != int64(len(want)) {
			t.Errorf("%s: %q of length %d, %v", kind, b, r.ContentLength, err)
		}
	}
	big := strings.Repeat("x", maxSwapBody+1-len(holder)) + holder
	r := req("", "text/plain", big)
	must(t, line.request(r))
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != big {
		t.Errorf("a body beyond the bound changed: %v", err)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("a "+holder+" b"), uint8(3))
	f.Add([]byte("aabaabaaab"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		pairs := []pair{{holder, "value", "a"}, {"aab", holder, "b"}}
		s := &stream{from: io.NopCloser(&drops{in, int(step%7) + 1}), pairs: pairs}
		got, err := io.ReadAll(s)
		if err != nil || string(got) != replace(string(in), pairs) {
			t.Errorf("%q in steps of %d became %q, want %q (%v)", in, step, got, replace(string(in), pairs), err)
		}
	})
}

// drops reads a few bytes at a time.
type drops struct {
	b    []byte
	step int
}

func (p *drops) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.step, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

// TestSecretsAtListedAddresses reaches a secret's host at an address that a list
// of networks opened: the value goes there, and nothing opens that the list does
// not.
func TestSecretsAtListedAddresses(t *testing.T) {
	w := newWorld(t)
	s, _, pool := w.sealed(networks(good4+"/32"), binding("good.example"))
	listed := client(t, s, pool, good4+":443", false)
	if _, _, err := post(listed, "https://good.example/echo", "text/plain", "Bearer "+holder, "x"); err != nil {
		t.Fatal(err)
	}
	if got := w.got.take(); got.header != "Bearer "+value {
		t.Errorf("the host got %q", got.header)
	}
	// A host without secrets passes unread, so its own certificate is seen.
	if _, _, err := post(client(t, s, w.roots, good4+":443", false), "https://a.cdn.example/echo", "text/plain", "Bearer "+holder, "x"); err != nil {
		t.Errorf("a host without secrets at a listed address: %v", err)
	}
	if got := w.got.take(); got.header != "Bearer "+holder {
		t.Errorf("a host without secrets got %q", got.header)
	}
	for _, a := range []string{evil4 + ":443", "[" + good6 + "]:443"} {
		if _, got, err := post(client(t, s, pool, a, false), "https://good.example/echo", "text/plain", "Bearer "+holder, "x"); err == nil {
			t.Errorf("%s, which the list lacks, answered %q", a, got)
		}
	}
	// Clients that may have QUIC would go past the proxy with it.
	c, err := connect(s, "udp", good4+":443", wait)
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	must(t, err)
	_ = c.SetReadDeadline(time.Now().Add(wait))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("UDP to the web's port: %v", err)
	}
	if got, err := plain(s, good4+":80", "GET /y HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n"); err != nil || !strings.HasPrefix(got, "200 good") {
		t.Errorf("in the clear: %q, %v", got, err)
	}
}
