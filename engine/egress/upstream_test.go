package egress

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

// outbound is an HTTP proxy in the internet that writes down what it is asked.
type outbound struct {
	t     testing.TB
	mu    sync.Mutex
	asked []string // method, host and credentials of each request
}

// ServeHTTP implements http.Handler.
func (o *outbound) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked = append(o.asked, r.Method+" "+r.URL.Host+" "+r.Header.Get("Proxy-Authorization"))
	o.mu.Unlock()
	host, port, err := net.SplitHostPort(r.URL.Host)
	if err != nil {
		host, port = r.URL.Host, "80"
	}
	if len(names[host]) > 0 {
		host = names[host][0]
	}
	up, err := net.Dial("tcp", net.JoinHostPort(host, port)) // reached below from within the namespace
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer up.Close()
	if r.Method != http.MethodConnect {
		r.Header.Del("Proxy-Authorization")
		_ = r.Write(up)
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		o.t.Error(err)
		return
	}
	defer c.Close()
	if r.Method == http.MethodConnect {
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(up, c)
			up.Close()
		}()
	}
	_, _ = io.Copy(c, up)
}

// took returns what it was asked since the last time.
func (o *outbound) took() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.asked
	o.asked = nil
	return out
}

// proxies starts one at an address: in the clear on 3128, with TLS on 3129. It
// dials from the internet's namespace.
func (w *world) proxies(addresses ...string) *outbound {
	o := &outbound{t: w.t}
	h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := networktest.In(w.net.NS, func() error { o.ServeHTTP(rw, r); return nil }); err != nil {
			w.t.Error(err)
		}
	})
	must(w.t, networktest.In(w.net.NS, func() error {
		for _, a := range addresses {
			for port, config := range map[string]*tls.Config{"3128": nil, "3129": {Certificates: []tls.Certificate{w.certificate()}}} {
				l, err := net.Listen("tcp", net.JoinHostPort(a, port))
				if err != nil {
					return err
				}
				if config != nil {
					l = tls.NewListener(l, config)
				}
				s := &http.Server{Handler: h, ReadHeaderTimeout: wait}
				go func() { _ = s.Serve(l) }()
				w.t.Cleanup(func() { s.Close() })
			}
		}
		return nil
	}))
	return o
}

func via(p engine.NetworkPolicy, proxy string) engine.NetworkPolicy {
	p.OutboundProxyURL = proxy
	return p
}

func TestOutboundProxy(t *testing.T) {
	w := newWorld(t)
	o := w.proxies(proxy4)
	const plainProxy, basic = "http://u:p%20w@" + proxy4 + ":3128", "Basic dTpwIHc="
	name := w.slot(via(domains("good.example", "rebind.example"), plainProxy))
	open := w.slot(via(engine.NetworkPolicy{}, "https://proxy.example:3129"))
	list := w.slot(via(networks(good4+"/32"), "http://proxy.example:3128"))
	request := func(host string) string { return "GET /y HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n" }
	web := func(s network.Slot, host, address string) func() (string, error) {
		return func() (string, error) { return get(s, host, address) }
	}
	clear := func(s network.Slot, host, address string) func() (string, error) {
		return func() (string, error) { return plain(s, address, request(host)) }
	}
	for _, tt := range []struct {
		story string
		do    func() (string, error)
		want  string
		asked []string
	}{
		{"TLS by name, to a foreign address", web(name, "good.example", evil4+":443"), "200 good served good.example/x", []string{"CONNECT good.example:443 " + basic}},
		{"HTTP by name", clear(name, "good.example", evil4+":80"), "200 good served good.example/y", []string{"GET good.example " + basic}},
		{"TLS to a foreign name", web(name, "evil.example", good4+":443"), "", nil},
		{"HTTP to a foreign name", clear(name, "evil.example", good4+":80"), "403 Refused", nil},
		{"a name of private addresses", web(name, "rebind.example", good4+":443"), "", nil},
		{"HTTP to a name of private addresses", clear(name, "rebind.example", good4+":80"), "403 Refused", nil},
		{"everything allowed, by a proxy that speaks TLS", web(open, "evil.example", evil4+":443"), "200 evil served evil.example/x", []string{"CONNECT evil.example:443 "}},
		{"everything allowed, in the clear", clear(open, "evil.example", evil4+":80"), "200 evil served evil.example/y", []string{"GET evil.example "}},
		{"everything allowed, an address for a host", clear(open, evil4, evil4+":80"), "200 evil served " + evil4 + "/y", []string{"CONNECT " + evil4 + ":80 "}},
		{"TLS without a name", web(open, "", evil4+":443"), "200 evil served /x", []string{"CONNECT " + evil4 + ":443 "}},
		{"an address of the list", web(list, "good.example", good4+":443"), "200 good served good.example/x", []string{"CONNECT " + good4 + ":443 "}},
		{"an address of the list, in the clear", clear(list, "good.example", good4+":80"), "200 good served good.example/y", []string{"CONNECT " + good4 + ":80 "}},
		{"an address that is not", web(list, "good.example", evil4+":443"), "", nil},
	} {
		got, err := tt.do()
		if asked := o.took(); !slices.Equal(asked, tt.asked) {
			t.Errorf("%s: the proxy was asked %q, want %q", tt.story, asked, tt.asked)
		}
		if tt.want == "" && err == nil || tt.want != "" && (err != nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %q, %v; want %q", tt.story, got, err, tt.want)
		}
	}
	// What is not of the web is judged as ever and goes its own way.
	if who, err := greets(list, good4+":9000", wait); err != nil || who != "good" {
		t.Errorf("another port: %q, %v", who, err)
	}
	if who, err := greets(list, evil4+":9000", patience); err == nil {
		t.Errorf("another port of another address answered %q", who)
	}
}

// TestOutboundProxyChanges takes a proxy away and gives another: connections of
// the first one end, and later ones go their new way.
func TestOutboundProxyChanges(t *testing.T) {
	w := newWorld(t)
	o := w.proxies(proxy4)
	p := domains("good.example")
	s := w.slot(via(p, "http://"+proxy4+":3128"))
	c, err := connect(s, "tcp", good4+":443", wait)
	must(t, err)
	defer c.Close()
	k := tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
	must(t, k.Handshake())
	must(t, w.manager.Apply(t.Context(), s, p))
	fmt.Fprintf(k, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n")
	if got, err := body(k); err == nil {
		t.Errorf("a connection outlived its proxy: %q", got)
	}
	o.took()
	if got, err := get(s, "good.example", good4+":443"); err != nil || len(o.took()) != 0 {
		t.Errorf("without a proxy: %q, %v", got, err)
	}
}

func TestPrivateOutboundProxy(t *testing.T) {
	w := newWorld(t)
	o := w.proxies("10.99.0.2")
	s := w.slot(engine.NetworkPolicy{})
	for _, a := range []string{"10.99.0.2", "127.0.0.1", "192.0.2.65", "169.254.169.254", "[::1]", "[::ffff:10.99.0.2]", s.Gateway4.String()} {
		if err := w.manager.Apply(t.Context(), s, via(engine.NetworkPolicy{}, "http://"+a+":3128")); engine.KindOf(err) != engine.KindDenied {
			t.Errorf("a proxy at %s: %v", a, err)
		}
	}
	if who, err := greets(s, good4+":9000", patience); err == nil {
		t.Errorf("open, though the policy with the proxy could not be had: %q", who)
	}
	must(t, w.manager.Apply(t.Context(), s, via(engine.NetworkPolicy{}, "http://private-proxy.example:3128")))
	if got, err := get(s, "good.example", good4+":443"); err == nil || len(o.took()) != 0 {
		t.Errorf("a proxy whose name is private: %q", got)
	}
}

func TestUpstreamURLs(t *testing.T) {
	for text, want := range map[string]string{
		"http://a.example": "a.example:80", "https://a.example/": "a.example:443", "http://u:p@192.0.2.1:3128": "192.0.2.1:3128",
		"https://[2001:db8::1]:8443": "[2001:db8::1]:8443",
	} {
		if u, err := upstreamOf(text); err != nil || u.address() != want {
			t.Errorf("%s: %+v, %v", text, u, err)
		}
	}
	for _, text := range []string{"a.example", "socks5://a.example", "http://", "http://a b", "http://a.example:0", "http://a.example:70000", "http://u:secret@a_%zz"} {
		if _, err := upstreamOf(text); engine.KindOf(err) != engine.KindInvalid || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzProxyAnswer: whatever a proxy answers, what is passed on is what came
// behind an answer of success, and reading ends.
func FuzzProxyAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 407 No\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			defer server.Close()
			go func() { _, _ = io.Copy(io.Discard, server) }()
			_, _ = server.Write(b)
		}()
		u, err := upstreamOf("http://u:p@a.example")
		if err != nil {
			t.Fatal(err)
		}
		c, err := requestTunnel(client, u, "b.example:443")
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(c)
		if !bytes.HasPrefix(b, []byte("HTTP/")) || !bytes.HasSuffix(b, rest) {
			t.Errorf("%q was passed on of %q", rest, b)
		}
	})
}
