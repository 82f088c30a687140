package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/net/dns/dnsmessage"

	programs "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/ebpf/kernel"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
	"github.com/atoll-sh/atoll/policies"
)

func TestMain(m *testing.M) {
	code := networktest.Main(m)
	if err := attacks.Report(); err != nil {
		fmt.Fprintln(os.Stderr, "write the attacks' results:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// The internet: two hosts with web servers that say who they are, and names.
const (
	good4, evil4 = "198.51.100.7", "203.0.113.9"
	good6        = "2001:db8:1::7"
	proxy4       = "10.99.0.1" // an outbound proxy's, which the operator allows
	wait         = time.Minute
	patience     = 400 * time.Millisecond
)

// names is what the internet's name server says.
var names = map[string][]string{
	"good.example":          {good4, good6},
	"a.cdn.example":         {good4},
	"evil.example":          {evil4},
	"rebind.example":        {"10.0.0.1", "127.0.0.1", "169.254.169.254"},
	"half.example":          {"192.168.1.1", good4},
	"alias.example":         {"CNAME good.example"},
	"private-alias.example": {"CNAME rebind.example"},
	"meta.example":          {"169.254.169.254", "fd00:ec2::254", "64:ff9b::a9fe:a9fe"},
	"slow.example":          {good4},
	"flip.example":          {"169.254.169.254", "10.0.0.1"},
	"host.example":          {"192.0.2.65", "2001:db8:ffff::1"},
	"proxy.example":         {proxy4},
	"private-proxy.example": {"10.99.0.2"},
}

type world struct {
	t       testing.TB
	net     *networktest.Internet
	filter  *Filter
	manager *network.Manager
	bpf     string
	asked   *asked
	roots   *x509.CertPool // of the internet's servers
	got     received
	flipped sync.Once    // done: flip.example is private
	slow    sync.RWMutex // held: the name server keeps slow.example to itself
}

// hold keeps the answer for slow.example back until release.
func (w *world) hold()    { w.slow.Lock() }
func (w *world) release() { w.slow.Unlock() }

// asked records the names that reached the internet's name server.
type asked struct {
	mu    sync.Mutex
	names []string
}

func (a *asked) add(n string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, n)
}

func (a *asked) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = nil
}

func (a *asked) has(n string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.names, n)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, asked: &asked{}, roots: x509.NewCertPool(), bpf: filepath.Join(t.TempDir(), "bpf")}
	w.net = networktest.NewInternet(t, good4+"/32", evil4+"/32", good6+"/128", evil6+"/128", proxy4+"/32", "10.99.0.2/32")
	must(t, kernel.Mount(w.bpf))
	t.Cleanup(func() { must(t, kernel.Unmount(w.bpf)) })
	must(t, networktest.In(w.net.NS, w.serve))
	w.open()
	t.Cleanup(func() {
		if w.manager != nil {
			_ = w.manager.Destroy(context.Background())
			_ = w.filter.Close()
		}
	})
	return w
}

// open starts a server's network, or what a restarted server would.
func (w *world) open() {
	w.t.Helper()
	var err error
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.filter, err = Open(w.bpf, []netip.Prefix{netip.MustParsePrefix(proxy4 + "/32")}, log)
	must(w.t, err)
	w.filter.proxy.roots = w.roots
	w.manager, err = network.Open(w.t.Context(), network.Config{
		ID: "e1", Index: -1, Resolvers: []netip.AddrPort{netip.MustParseAddrPort(good4 + ":53")}, Filter: w.filter, Log: log,
	})
	must(w.t, err)
}

// close is what the end of a server's process does to them.
func (w *world) close() {
	w.manager.Close()
	must(w.t, w.filter.Close())
}

func (w *world) slot(p engine.NetworkPolicy) network.Slot {
	w.t.Helper()
	s, err := w.manager.Acquire(w.t.Context())
	must(w.t, err)
	must(w.t, w.manager.Apply(w.t.Context(), s, p))
	must(w.t, networktest.Carries(s.NetNS, "eth0"))
	return s
}

// serve runs the internet's servers, in its namespace.
func (w *world) serve() error {
	for _, a := range []string{good4, evil4, good6, evil6} {
		who := map[string]string{good4: "good", good6: "good", evil4: "evil", evil6: "evil"}[a]
		h := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/to-metadata" {
				http.Redirect(rw, r, "http://"+metadata4+"/latest/meta-data/", http.StatusFound)
				return
			}
			if strings.HasPrefix(r.URL.Path, "/echo") {
				w.got.echo(rw, r)
				return
			}
			fmt.Fprintf(rw, "%s served %s%s", who, r.Host, r.URL.Path)
		}), ReadHeaderTimeout: wait}
		for port, config := range map[string]*tls.Config{"80": nil, "443": {Certificates: []tls.Certificate{w.certificate()}, NextProtos: []string{"h2", "http/1.1"}}} {
			l, err := net.Listen("tcp", net.JoinHostPort(a, port))
			if err != nil {
				return err
			}
			if config != nil {
				l = tls.NewListener(l, config)
			}
			go func() { _ = h.Serve(l) }()
			w.t.Cleanup(func() { l.Close() })
		}
		for _, port := range []string{"22", "9000"} {
			l, err := net.Listen("tcp", net.JoinHostPort(a, port))
			if err != nil {
				return err
			}
			w.t.Cleanup(func() { l.Close() })
			go echo(l, who)
		}
	}
	u, err := net.ListenPacket("udp", good4+":53")
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { u.Close() })
	go w.answerNames(u)
	return nil
}

// echo greets and repeats.
func echo(l net.Listener, who string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "%s\n", who)
			_, _ = io.Copy(c, c)
		}()
	}
}

func (w *world) answerNames(u net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		var p dnsmessage.Parser
		h, err := p.Start(buf[:n])
		if err != nil {
			continue
		}
		q, err := p.Question()
		if err != nil {
			continue
		}
		name := strings.TrimSuffix(q.Name.String(), ".")
		w.asked.add(name)
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
		m.Answers = records(q.Name, name, q.Type)
		if name == "flip.example" && q.Type == dnsmessage.TypeA {
			w.flipped.Do(func() { m.Answers = records(q.Name, "good.example", q.Type) })
			for i := range m.Answers {
				m.Answers[i].Header.TTL = 0
			}
		}
		if names[name] == nil {
			m.RCode = dnsmessage.RCodeNameError
		}
		b, err := m.Pack()
		if err != nil {
			continue
		}
		if name == "slow.example" {
			go func() {
				w.slow.RLock()
				defer w.slow.RUnlock()
				_, _ = u.WriteTo(b, from)
			}()
			continue
		}
		_, _ = u.WriteTo(b, from)
	}
}

func records(owner dnsmessage.Name, name string, t dnsmessage.Type) (out []dnsmessage.Resource) {
	header := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: 60}
	for _, v := range names[name] {
		if target, ok := strings.CutPrefix(v, "CNAME "); ok {
			alias := dnsmessage.MustNewName(target + ".")
			out = append(out, records(alias, target, t)...)
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: alias}})
			continue
		}
		switch a := netip.MustParseAddr(v); {
		case a.Is4() && t == dnsmessage.TypeA:
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && t == dnsmessage.TypeAAAA:
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return out
}

func (w *world) certificate() tls.Certificate {
	t := w.t
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"good.example", "*.cdn.example", "evil.example", "proxy.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	w.roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connect dials from a sandbox.
func connect(s network.Slot, nw, address string, limit time.Duration) (c net.Conn, err error) {
	err = networktest.In(s.NetNS, func() error {
		d := net.Dialer{Timeout: limit}
		c, err = d.Dial(nw, address)
		return err
	})
	return c, err
}

// greets tells who answers on a plain port.
func greets(s network.Slot, address string, limit time.Duration) (string, error) {
	c, err := connect(s, "tcp", address, limit)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// get makes a TLS request with a name to an address and returns the body.
func get(s network.Slot, name, address string) (string, error) {
	c, err := connect(s, "tcp", address, wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	k := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
	fmt.Fprintf(k, "GET /x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
	return body(k)
}

// plain sends a raw HTTP request to an address and returns status and body.
func plain(s network.Slot, address, request string) (string, error) {
	c, err := connect(s, "tcp", address, wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	return body(c)
}

func body(c net.Conn) (string, error) {
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return fmt.Sprintf("%d %s", r.StatusCode, b), err
}

// lookup asks the relay for addresses from a sandbox.
func lookup(s network.Slot, name string, t dnsmessage.Type) (dnsmessage.RCode, []netip.Addr, error) {
	c, err := connect(s, "udp", netip.AddrPortFrom(s.Gateway4, 53).String(), wait)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: t, Class: dnsmessage.ClassINET}},
	}
	q, err := m.Pack()
	if err != nil {
		return 0, nil, err
	}
	buf := make([]byte, 2000)
	for end := time.Now().Add(wait); time.Now().Before(end); {
		if _, err := c.Write(q); err != nil {
			return 0, nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(8 * time.Second))
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		var a dnsmessage.Message
		if err := a.Unpack(buf[:n]); err != nil {
			return 0, nil, err
		}
		var out []netip.Addr
		for _, r := range a.Answers {
			switch b := r.Body.(type) {
			case *dnsmessage.AResource:
				out = append(out, netip.AddrFrom4(b.A))
			case *dnsmessage.AAAAResource:
				out = append(out, netip.AddrFrom16(b.AAAA))
			}
		}
		return a.RCode, out, nil
	}
	return 0, nil, os.ErrDeadlineExceeded
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func domains(d ...string) engine.NetworkPolicy  { return engine.NetworkPolicy{AllowDomains: d} }
func networks(n ...string) engine.NetworkPolicy { return engine.NetworkPolicy{AllowCIDRs: n} }

func TestNetworkList(t *testing.T) {
	w := newWorld(t)
	s := w.slot(networks(good4+"/32", "2001:db8:1::/64"))
	for _, a := range []string{good4 + ":9000", "[" + good6 + "]:22"} {
		if who, err := greets(s, a, wait); err != nil || who != "good" {
			t.Errorf("%s: %q, %v", a, who, err)
		}
	}
	for _, a := range []string{evil4 + ":9000", evil4 + ":80", "[2001:db8:ffff::2]:22", "169.254.169.254:80"} {
		if who, err := greets(s, a, patience); err == nil {
			t.Errorf("%s answered %q", a, who)
		}
	}
	if code, _, err := lookup(s, "good.example", dnsmessage.TypeA); err != nil || code != dnsmessage.RCodeNameError {
		t.Errorf("a name under a policy without names: %v, %v", code, err)
	}
	if w.asked.has("good.example") {
		t.Error("the question was passed on")
	}
}

func TestRefusalComesAtOnce(t *testing.T) {
	w := newWorld(t)
	s := w.slot(networks(good4 + "/32"))
	start := time.Now()
	_, err := greets(s, evil4+":9000", wait)
	if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestOpenPolicy(t *testing.T) {
	w := newWorld(t)
	s := w.slot(engine.NetworkPolicy{})
	for _, a := range []string{good4 + ":9000", evil4 + ":22"} {
		if _, err := greets(s, a, wait); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	if code, addrs, err := lookup(s, "evil.example", dnsmessage.TypeA); err != nil || code != 0 || len(addrs) != 1 {
		t.Errorf("lookup: %v %v %v", code, addrs, err)
	}
	blocked := w.slot(engine.NetworkPolicy{BlockAll: true})
	if who, err := greets(blocked, good4+":9000", patience); err == nil {
		t.Errorf("a blocked sandbox reached %q", who)
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example", "*.cdn.example", "rebind.example", "half.example", "alias.example", "private-alias.example"))
	for _, tt := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want []string
	}{
		{"good.example", dnsmessage.TypeA, 0, []string{good4}},
		{"GOOD.example", dnsmessage.TypeAAAA, 0, []string{good6}},
		{"a.cdn.example", dnsmessage.TypeA, 0, []string{good4}},
		{"alias.example", dnsmessage.TypeA, 0, []string{good4}},
		{"half.example", dnsmessage.TypeA, 0, []string{good4}},
		{"good.example", dnsmessage.TypeTXT, 0, nil},
		{"good.example", 65, 0, nil}, // HTTPS, which may carry the keys of an encrypted hello
		{"rebind.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"private-alias.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"evil.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"cdn.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"good.example.evil.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{strings.Repeat("secret.", 18) + "cdn.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
	} {
		code, addrs, err := lookup(s, tt.name, tt.kind)
		if err != nil || code != tt.code {
			t.Errorf("%s %v: %v, %v; want %v", tt.name, tt.kind, code, err, tt.code)
		}
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	for _, never := range []string{"evil.example", "cdn.example"} {
		if w.asked.has(never) {
			t.Errorf("the question for %s was passed on", never)
		}
	}
}

func TestWildcardBudget(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("*.cdn.example"))
	refused := 0
	for i := range wildBudget + 20 {
		name := fmt.Sprintf("x%d.cdn.example", i)
		if f, _ := w.filter.Question(s.Index, buildQuestion(1, name, dnsmessage.TypeA)); f == nil {
			refused++
		}
	}
	if refused != 20 {
		t.Errorf("%d names were refused, want 20", refused)
	}
	if f, _ := w.filter.Question(s.Index, buildQuestion(1, "x1.cdn.example", dnsmessage.TypeA)); f == nil {
		t.Error("a name that was asked before is refused")
	}
}

func TestProxyTLS(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example", "*.cdn.example", "rebind.example"))
	for _, tt := range []struct{ story, name, address, want string }{
		{"an allowed name", "good.example", good4 + ":443", "200 good served good.example/x"},
		{"an allowed name over IPv6", "good.example", "[" + good6 + "]:443", "200 good served good.example/x"},
		{"an allowed name at a foreign address goes to the name's own", "good.example", evil4 + ":443", "200 good served good.example/x"},
	} {
		if got, err := get(s, tt.name, tt.address); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v", tt.story, got, err)
		}
	}
	for _, tt := range []struct{ story, name, address string }{
		{"a foreign name at an allowed address", "evil.example", good4 + ":443"},
		{"a foreign name", "evil.example", evil4 + ":443"},
		{"no name", "", good4 + ":443"},
		{"a name of a private address", "rebind.example", good4 + ":443"},
		{"the parent of a wildcard", "cdn.example", good4 + ":443"},
	} {
		if got, err := get(s, tt.name, tt.address); err == nil {
			t.Errorf("%s: got %q", tt.story, got)
		}
	}
	// Plain text where TLS is expected.
	if got, err := plain(s, good4+":443", "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"); err == nil {
		t.Errorf("plain text on 443: %q", got)
	}
}

func TestProxyTLSInPieces(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example"))
	for _, size := range []int{1, 2, 7, 50} {
		for name, ok := range map[string]bool{"good.example": true, "evil.example": false} {
			c, err := connect(s, "tcp", evil4+":443", wait)
			must(t, err)
			_ = c.SetDeadline(time.Now().Add(wait))
			k := tls.Client(&pieces{Conn: c, size: size}, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
			fmt.Fprintf(k, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
			got, err := body(k)
			if (err == nil) != ok || ok && !strings.Contains(got, "good served") {
				t.Errorf("%s in pieces of %d: %q, %v", name, size, got, err)
			}
			c.Close()
		}
	}
}

// pieces writes a few bytes at a time, each in its own segment.
type pieces struct {
	net.Conn
	size int
}

func (p *pieces) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += p.size {
		if _, err := p.Conn.Write(b[i:min(i+p.size, len(b))]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestProxyRefusesEncryptedHello(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example"))
	c, err := connect(s, "tcp", good4+":443", wait)
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	_, err = c.Write(withExtension(t, "good.example", extensionECH))
	must(t, err)
	b, _ := io.ReadAll(c)
	if len(b) != 7 || b[0] != 21 {
		t.Errorf("got %x, want an alert", b)
	}
}

// TestOuterNameOfEncryptedHello lets a policy judge the name outside: it alone
// decides, and only its own host sees the connection.
func TestOuterNameOfEncryptedHello(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example"))
	w.filter.mu.Lock()
	w.filter.slots[s.Index].policy.Egress.ECH = policies.ECHOuter
	w.filter.mu.Unlock()
	try := func(outside, inside string) error {
		c, err := connect(s, "tcp", evil4+":443", wait)
		must(t, err)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		return tls.Client(c, &tls.Config{ServerName: inside, RootCAs: w.roots, MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echKeys(outside)}).Handshake()
	}
	// The host has no such keys, says so, and proves to be the one outside.
	var rejected *tls.ECHRejectionError
	if err := try("good.example", "evil.example"); !errors.As(err, &rejected) {
		t.Errorf("an allowed name outside: %v", err)
	}
	if err := try("evil.example", "good.example"); err == nil || errors.As(err, &rejected) {
		t.Errorf("a foreign name outside: %v", err)
	}
}

// withExtension makes a hello that has one extension more.
func withExtension(t testing.TB, name string, extension uint16) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}).Handshake() //nolint:gosec // never finished
	}()
	head := make([]byte, 5)
	_, err := io.ReadFull(b, head)
	must(t, err)
	hello := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err = io.ReadFull(b, hello)
	must(t, err)
	i := 4 + 2 + 32
	i += 1 + int(hello[i])
	i += 2 + int(binary.BigEndian.Uint16(hello[i:]))
	i += 1 + int(hello[i])
	hello = binary.BigEndian.AppendUint16(hello, extension)
	hello = append(hello, 0, 1, 0)
	binary.BigEndian.PutUint16(hello[i:], binary.BigEndian.Uint16(hello[i:])+5)
	hello[1], hello[2], hello[3] = 0, byte((len(hello)-4)>>8), byte(len(hello)-4)
	binary.BigEndian.PutUint16(head[3:], uint16(len(hello)))
	return append(head, hello...)
}

func TestProxyHTTP(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example"))
	const ok = "200 good served good.example/y"
	if got, err := plain(s, evil4+":80", "GET /y HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n"); err != nil || got != ok {
		t.Errorf("an allowed host at a foreign address: %q, %v", got, err)
	}
	for _, tt := range []struct{ story, request string }{
		{"a foreign host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n"},
		{"no host", "GET / HTTP/1.1\r\n\r\n"},
		{"an address", "GET / HTTP/1.1\r\nHost: " + evil4 + "\r\n\r\n"},
		{"a foreign absolute address", "GET http://evil.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n"},
		{"user information", "GET http://good.example@evil.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n"},
		{"a zero byte", "GET / HTTP/1.1\r\nHost: good.example\x00.evil.example\r\n\r\n"},
		{"a carriage return", "GET / HTTP/1.1\r\nHost: good.example\rHost: evil.example\r\n\r\n"},
		{"another port", "GET / HTTP/1.1\r\nHost: good.example:22\r\n\r\n"},
		{"CONNECT", "CONNECT good.example:443 HTTP/1.1\r\nHost: good.example:443\r\n\r\n"},
		{"garbage", "\x05\x01\x00\r\n\r\n"},
	} {
		got, err := plain(s, good4+":80", tt.request)
		if err == nil && !strings.HasPrefix(got, "4") {
			t.Errorf("%s: %q", tt.story, got)
		}
	}
	// One connection, two requests: each is judged.
	c, err := connect(s, "tcp", good4+":80", wait)
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	r := bufio.NewReader(c)
	for host, want := range map[string]int{"good.example": 200} {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%s: %v, %v", host, res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusForbidden {
		t.Fatalf("a foreign host on an allowed connection: %v, %v", res, err)
	}
	b, _ := io.ReadAll(res.Body)
	if !strings.Contains(string(b), "evil.example port 80 is not allowed") {
		t.Errorf("the refusal says %q", b)
	}
}

func TestOtherPortsOfNames(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example"))
	if _, _, err := lookup(s, "good.example", dnsmessage.TypeA); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{good4 + ":22", good4 + ":9000", evil4 + ":9000"} {
		if who, err := greets(s, a, patience); err == nil {
			t.Errorf("%s answered %q", a, who)
		}
	}
}

func TestUpdateCutsAndKeeps(t *testing.T) {
	w := newWorld(t)
	s := w.slot(networks(good4+"/32", evil4+"/32"))
	kept, err := connect(s, "tcp", good4+":9000", wait)
	must(t, err)
	defer kept.Close()
	ended, err := connect(s, "tcp", evil4+":9000", wait)
	must(t, err)
	defer ended.Close()
	exchange := func(c net.Conn, limit time.Duration) error {
		_ = c.SetDeadline(time.Now().Add(limit))
		if _, err := c.Write([]byte("hi\n")); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 100))
		return err
	}
	for _, c := range []net.Conn{kept, ended} {
		must(t, exchange(c, wait)) // the greeting
		must(t, exchange(c, wait))
	}
	must(t, w.manager.Apply(t.Context(), s, networks(good4+"/32")))
	if err := exchange(kept, wait); err != nil {
		t.Errorf("an allowed connection was cut: %v", err)
	}
	err = exchange(ended, 2*time.Second)
	if err == nil {
		err = exchange(ended, 2*time.Second)
	}
	if err == nil {
		t.Error("a connection outlived its rule")
	}
}

func TestUpdateEndsProxiedConnections(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example", "a.cdn.example"))
	open := func(name string) *tls.Conn {
		c, err := connect(s, "tcp", good4+":443", wait)
		must(t, err)
		k := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
		_ = k.SetDeadline(time.Now().Add(wait))
		must(t, k.Handshake())
		t.Cleanup(func() { k.Close() })
		return k
	}
	kept, ended := open("good.example"), open("a.cdn.example")
	must(t, w.manager.Apply(t.Context(), s, domains("good.example")))
	ask := func(k *tls.Conn, name string) (string, error) {
		fmt.Fprintf(k, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name)
		return body(k)
	}
	if got, err := ask(kept, "good.example"); err != nil {
		t.Errorf("an allowed connection was cut: %q, %v", got, err)
	}
	if got, err := ask(ended, "a.cdn.example"); err == nil {
		t.Errorf("a connection outlived its name: %q", got)
	}
}

func TestRestartAdopts(t *testing.T) {
	w := newWorld(t)
	list, name := w.slot(networks(good4+"/32")), w.slot(domains("good.example"))
	c, err := connect(list, "tcp", good4+":9000", wait)
	must(t, err)
	defer c.Close()
	w.close()

	// Without a server the kernel goes on with what it knows; what needs the
	// server is refused.
	if who, err := greets(list, good4+":22", wait); err != nil || who != "good" {
		t.Errorf("allowed, without a server: %q, %v", who, err)
	}
	if who, err := greets(list, evil4+":22", patience); err == nil {
		t.Errorf("refused, without a server: %q", who)
	}
	if got, err := get(name, "good.example", good4+":443"); err == nil {
		t.Errorf("by name, without a server: %q", got)
	}

	w.open()
	must(t, w.manager.Recover(t.Context(), []network.Slot{list, name}))
	if who, err := greets(list, evil4+":22", patience); err == nil {
		t.Errorf("refused, before policies are applied again: %q", who)
	}
	must(t, w.manager.Apply(t.Context(), list, networks(good4+"/32")))
	must(t, w.manager.Apply(t.Context(), name, domains("good.example")))
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("x\n")); err != nil {
		t.Errorf("a connection did not live through the restart: %v", err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "good\n" {
		t.Errorf("a connection did not live through the restart: %q, %v", line, err)
	}
	if got, err := get(name, "good.example", evil4+":443"); err != nil || !strings.HasPrefix(got, "200 good") {
		t.Errorf("by name, after the restart: %q, %v", got, err)
	}
	if who, err := greets(list, evil4+":22", patience); err == nil {
		t.Errorf("refused, after the restart: %q", who)
	}
}

// TestLostProgramsCloseTheNetwork takes the programs away under a running
// server.
func TestLostProgramsCloseTheNetwork(t *testing.T) {
	w := newWorld(t)
	s := w.slot(engine.NetworkPolicy{})
	if _, err := greets(s, good4+":22", wait); err != nil {
		t.Fatal(err)
	}
	w.unpin(s)
	for range 3 {
		if who, err := greets(s, good4+":22", patience); err == nil {
			t.Fatalf("the network is open without programs: %q", who)
		}
	}
}

// unpin takes a slot's programs away and waits until they are off its device:
// the kernel takes them off a moment later, and until then they go on to judge.
func (w *world) unpin(s network.Slot) {
	w.t.Helper()
	links, err := filepath.Glob(filepath.Join(w.bpf, "v1", "links", s.Device+"-*"))
	if err != nil || len(links) != 2 {
		w.t.Fatalf("links: %v, %v", links, err)
	}
	for _, l := range links {
		must(w.t, os.Remove(l))
	}
	device, err := net.InterfaceByName(s.Device)
	must(w.t, err)
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		left := 0
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: device.Index, Attach: at})
			must(w.t, err)
			left += len(r.Programs)
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d programs do not go", left)
		}
	}
}

func TestInvalidLists(t *testing.T) {
	for _, p := range []engine.NetworkPolicy{networks("10.0.0.0/33"), networks("x"), domains("*"), domains("*.com"), domains("1.2.3.4"), domains("a b")} {
		if _, err := FromNetwork(p); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func FuzzReadHello(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		go func() {
			_, _ = client.Write(b)
			client.Close()
		}()
		name, hello, err := readHello(t.Context(), server)
		server.Close()
		if err == nil && (name == "" || len(hello) > len(b)) {
			t.Errorf("name %q of %d bytes", name, len(hello))
		}
	})
}

// FuzzQuestion: whatever a sandbox asks, what is passed on is a question that
// was made here, for a name that the policy allows; everything else is
// answered at once.
func FuzzQuestion(f *testing.F) {
	policy, err := FromNetwork(domains("good.example", "*.cdn.example"))
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []string{"good.example", "x.cdn.example", "evil.example", "good\\.example", strings.Repeat("ü.", 80) + "cdn.example", strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".cdn.example"} {
		f.Add(rawQuestion(n))
	}
	f.Fuzz(func(t *testing.T, q []byte) {
		if len(q) < 12 {
			return // the relay does not pass those on
		}
		filter := &Filter{log: slog.New(slog.DiscardHandler), slots: map[int]*slot{2: {policy: policy, byName: true}}}
		ask, answer := filter.Question(2, q)
		if answer != nil {
			return
		}
		_, question, err := parseQuestion(ask)
		if err != nil {
			t.Fatalf("neither an answer nor a question: %x", ask)
		}
		name := strings.TrimSuffix(question.Name.String(), ".")
		if !policies.Decide(policy, policies.LookupRequest{Name: name}).Allow || !bytes.Equal(ask, buildQuestion(binary.BigEndian.Uint16(q), name, question.Type)) {
			t.Errorf("%x is passed on for %q", ask, name)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	q := buildQuestion(1, "good.example", dnsmessage.TypeA)
	f.Add(buildAnswer(q, dnsmessage.Question{Name: dnsmessage.MustNewName("good.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}, []record{{netip.MustParseAddr(good4), 60}}))
	f.Add(q)
	f.Fuzz(func(t *testing.T, a []byte) {
		_, question, err := parseQuestion(q)
		if err != nil {
			t.Fatal(err)
		}
		r, err := addresses(question, a)
		if err == nil && len(r.records) > maxAddresses {
			t.Errorf("%d records", len(r.records))
		}
		reply(a, dnsmessage.RCodeRefused, edeProhibited)
	})
}

// Stats returns what a slot's sandbox sent, got and was refused.
func (f *Filter) Stats(s network.Slot) (programs.Stats, error) {
	f.mu.Lock()
	st := f.slots[s.Index]
	f.mu.Unlock()
	if st == nil {
		return programs.Stats{}, nil
	}
	return f.kernel.Stats(st.number)
}
