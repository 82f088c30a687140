package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/preview"
)

// The sandboxes of the tests' bench. Port 9 of each is closed.
const (
	private = "aaaaaaaa-0000-4000-8000-000000000001"
	public  = "aaaaaaaa-0000-4000-8000-000000000002"
	foreign = "aaaaaaaa-0000-4000-8000-000000000003" // of another organization
	stopped = "aaaaaaaa-0000-4000-8000-000000000004"
)

// bench is a server with sandboxes in which a service listens on every port.
type bench struct {
	t *testing.T
	e *gatewaytest.Engine
	s *gateway.Server
}

func newBench(t *testing.T, options ...func(*gateway.Config)) *bench {
	t.Helper()
	b := &bench{t: t, e: gatewaytest.New(t)}
	guest := httptest.NewServer(guest())
	t.Cleanup(guest.Close)
	b.e.Ports = func(_ string, port int) string {
		if port == 9 {
			return "127.0.0.1:9"
		}
		return guest.Listener.Addr().String()
	}
	for _, s := range []engine.Sandbox{
		{ID: private, Name: "private"},
		{ID: public, Name: "public", Public: true},
		{ID: foreign, Name: "foreign", OrganizationID: gatewaytest.Other},
		{ID: stopped, Name: "stopped", State: engine.StateStopped},
	} {
		if s.OrganizationID == "" {
			s.OrganizationID = engine.DefaultOrganization
		}
		if s.State == "" {
			s.State = engine.StateStarted
		}
		b.e.AddSandbox(s)
	}
	b.s = gatewaytest.Serve(t, b.e, options...)
	return b
}

// guest is what runs in the sandboxes.
func guest() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(seen{Method: r.Method, Host: r.Host, URI: r.RequestURI, Header: r.Header, Body: string(body)})
	})
	mux.HandleFunc("/cookies", func(w http.ResponseWriter, _ *http.Request) {
		for _, line := range []string{
			"plain=1; Path=/", "wide=2; Domain=localhost; Path=/; HttpOnly", "Odd=3;domain = .LOCALHOST ;Secure",
			"daytona-sandbox-auth-" + public + "=forged; Path=/", " Daytona-Sandbox-Auth-x=1; Domain=localhost",
		} {
			w.Header().Add("Set-Cookie", line)
		}
		for _, h := range []string{"Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc"} {
			w.Header().Set(h, "x")
		}
		w.Header().Set("X-Own", "kept")
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	mux.HandleFunc("/ticks", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	mux.HandleFunc("/mirror", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for {
			kind, b, err := ws.Read(r.Context())
			if err != nil || ws.Write(r.Context(), kind, bytes.ToUpper(b)) != nil {
				return
			}
		}
	})
	return mux
}

// seen is what the guest's root answers: what it saw.
type seen struct {
	Method, Host, URI, Body string
	Header                  http.Header
}

func (b *bench) host(port int, label string) string {
	_, p, _ := net.SplitHostPort(b.s.Addr().String())
	return fmt.Sprintf("%d-%s.localhost:%s", port, label, p)
}

// visit asks a preview's host for a path.
func (b *bench) visit(port int, label, path string, headers ...string) (*http.Response, []byte) {
	b.t.Helper()
	return b.do("GET", port, label, path, "", headers...)
}

func (b *bench) do(method string, port int, label, path, body string, headers ...string) (*http.Response, []byte) {
	b.t.Helper()
	return request(b.t, method, "http://"+b.s.Addr().String()+path, "", body, append([]string{"Host", b.host(port, label)}, headers...)...)
}

func (b *bench) link(sandbox string, port int, lifetime time.Duration) string {
	b.t.Helper()
	token, _, err := b.e.CreateLink(b.t.Context(), engine.SandboxRef{OrganizationID: engine.DefaultOrganization, IDOrName: sandbox}, port, lifetime)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

func tokenOf(sandbox string) string { return "token-" + sandbox + "-0" }

// cookie gets a good cookie for a preview, as a browser does.
func (b *bench) cookie(port int, sandbox string) string {
	b.t.Helper()
	res, _ := b.visit(port, sandbox, "/?DAYTONA_SANDBOX_AUTH_KEY="+tokenOf(sandbox))
	for _, c := range res.Cookies() {
		if c.Name == "daytona-sandbox-auth-"+sandbox {
			return c.Name + "=" + c.Value
		}
	}
	b.t.Fatalf("got %d %v, want a cookie", res.StatusCode, res.Header)
	return ""
}

const tokenHeader = "X-Daytona-Preview-Token"

func TestPreviewAuthentication(t *testing.T) {
	b := newBench(t)
	link, other, expired := b.link(private, 3000, time.Minute), b.link(private, 4000, time.Minute), b.link(private, 3000, -time.Minute)
	bearer := func(key string) []string { return []string{"Authorization", "Bearer " + key} }
	token := func(s string) []string { return []string{tokenHeader, s} }
	cookie := func(s string) []string { return []string{"Cookie", s} }
	mine := b.cookie(3000, private)
	_, value, _ := strings.Cut(mine, "=")
	for _, c := range []struct {
		name    string
		port    int
		label   string
		query   string
		headers []string
		status  int
	}{
		{"nothing", 3000, private, "", nil, 401},
		{"a key", 3000, private, "", bearer(key), 200},
		{"a key of another organization", 3000, private, "", bearer(gatewaytest.OtherKey), 404},
		{"our key for another organization's", 3000, foreign, "", bearer(key), 404},
		{"a foreign key and a good token", 3000, private, "", append(bearer(gatewaytest.OtherKey), token(tokenOf(private))...), 200},
		{"a wrong key", 3000, private, "", bearer("wrong-wrong-wrong"), 401},
		{"the guest's own key and a good token", 3000, private, "", append(bearer("guests"), token(tokenOf(private))...), 200},
		{"basic authentication of the guest", 3000, public, "", []string{"Authorization", "Basic YTpi"}, 200},
		{"the token", 3000, private, "", token(tokenOf(private)), 200},
		{"the token at the toolbox", 2280, private, "", token(tokenOf(private)), 200},
		{"another sandbox's token", 3000, private, "", token(tokenOf(public)), 401},
		{"half a token", 3000, private, "", token(tokenOf(private)[:20]), 401},
		{"a link's token in the header", 3000, private, "", token(link), 200},
		{"a link's token for another port in the header", 3000, private, "", token(other), 401},
		{"a link's token for another sandbox in the header", 3000, foreign, "", token(link), 401},
		{"the token in the query", 3000, private, "?a=1&DAYTONA_SANDBOX_AUTH_KEY=" + tokenOf(private), nil, 200},
		{"a wrong token in the query", 3000, private, "?DAYTONA_SANDBOX_AUTH_KEY=x", nil, 401},
		{"the cookie", 3000, private, "", cookie(mine), 200},
		{"the cookie among bad ones", 3000, private, "", cookie("daytona-sandbox-auth-" + private + "=bad; " + mine), 200},
		{"the cookie at another port", 4000, private, "", cookie(mine), 401},
		{"the cookie at the terminal", 22222, private, "", cookie(mine), 401},
		{"the cookie for another sandbox", 3000, foreign, "", cookie("daytona-sandbox-auth-" + foreign + "=" + value), 401},
		{"a cookie with a later time", 3000, private, "", cookie("daytona-sandbox-auth-" + private + "=9" + value), 401},
		{"a cookie without a seal", 3000, private, "", cookie("daytona-sandbox-auth-" + private + "=9999999999."), 401},
		{"the token itself as a cookie", 3000, private, "", cookie("daytona-sandbox-auth-" + private + "=link." + tokenOf(private)), 401},
		{"the cookie from a page of the same preview", 3000, private, "", append(cookie(mine), "Origin", "http://"+b.host(3000, private)), 200},
		{"the cookie from another port of the sandbox", 3000, private, "", append(cookie(mine), "Origin", "http://"+b.host(8000, private)), 200},
		{"the cookie from another sandbox's page", 3000, private, "", append(cookie(mine), "Origin", "http://"+b.host(3000, public)), 401},
		{"the cookie from an evil page", 3000, private, "", append(cookie(mine), "Origin", "https://evil.example"), 401},
		{"the cookie from a page without an origin", 3000, private, "", append(cookie(mine), "Origin", "null"), 401},
		{"the cookie for an image on another sandbox's page", 3000, private, "", append(cookie(mine), "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"), 401},
		{"the cookie after a click elsewhere", 3000, private, "", append(cookie(mine), "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200},
		{"a link", 3000, link, "", nil, 200},
		{"a link at another port", 4000, link, "", nil, 401},
		{"an expired link", 3000, expired, "", nil, 401},
		{"a link that never was", 3000, "abcdefgh12345678", "", nil, 401},
		{"a key at an expired link", 3000, expired, "", bearer(key), 401},
		{"public", 3000, public, "", nil, 200},
		{"public, with a foreign key", 3000, public, "", bearer(gatewaytest.OtherKey), 200},
		{"public, the toolbox", 2280, public, "", nil, 401},
		{"public, the terminal", 22222, public, "", nil, 401},
		{"public, the recordings", 33333, public, "", nil, 401},
		{"public, the terminal with a key", 22222, public, "", bearer(key), 200},
		{"no such sandbox", 3000, "aaaaaaaa-0000-4000-8000-00000000dead", "", bearer(key), 404},
		{"a name instead of an id", 3000, "private", "", bearer(key), 404},
		{"stopped", 3000, stopped, "", bearer(key), 409},
		{"nobody listens", 9, private, "", bearer(key), 502},
		{"port 0", 0, private, "", bearer(key), 404},
		{"port 65536", 65536, private, "", bearer(key), 404},
	} {
		path := "/" + c.query
		if c.port == 2280 {
			path = "/echo" + c.query
		}
		res, body := b.visit(c.port, c.label, path, c.headers...)
		if res.StatusCode != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, res.StatusCode, body, c.status)
		}
		if c.status >= 400 && res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: a program got %s", c.name, res.Header.Get("Content-Type"))
		}
	}
}

// Guests see the visitor's request, but nothing by which they could act for
// the visitor or for us.
func TestPreviewKeepsSecretsFromGuests(t *testing.T) {
	b := newBench(t)
	res, body := b.do("POST", 3000, private, "/a%2Fb/c;d?x=1&DAYTONA_SANDBOX_AUTH%5FKEY="+tokenOf(private)+"&y=%zz", "hello",
		"Authorization", "Bearer "+key, tokenHeader, tokenOf(private),
		"Cookie", "own=1; "+b.cookie(3000, private)+"; daytona-preview-page-accepted=true; last=2",
		"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "gopher", "Forwarded", "for=192.0.2.1",
		"X-Real-Ip", "192.0.2.1", "X-Daytona-Organization-Id", "o", "X-Daytona-Skip-Preview-Warning", "true", "X-Custom", "kept")
	var got seen
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v in %d %s", err, res.StatusCode, body)
	}
	want := seen{
		Method: "POST", Host: b.host(3000, private), URI: "/a%2Fb/c;d?x=1&y=%zz", Body: "hello",
		Header: http.Header{
			"Cookie": {"own=1; last=2"}, "X-Custom": {"kept"}, "Content-Type": {"application/json"}, "Content-Length": {"5"},
			"Accept-Encoding": {"gzip"}, "User-Agent": {"Go-http-client/1.1"}, "X-Request-Id": got.Header["X-Request-Id"],
			"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {b.host(3000, private)}, "X-Forwarded-Proto": {"http"},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, auth := range map[string]string{
		"the guest's own": "Bearer guests", "a key that was revoked": "Bearer atl_gone", "ours": "Bearer " + key, "another organization's": "Bearer " + gatewaytest.OtherKey,
	} {
		_, body := b.visit(3000, public, "/", "Authorization", auth)
		if passed, want := strings.Contains(string(body), auth), name == "the guest's own"; passed != want {
			t.Errorf("the Authorization header, %s: passed is %t, want %t", name, passed, want)
		}
	}
}

func TestPreviewGuestsKeepToThemselves(t *testing.T) {
	b := newBench(t)
	res, _ := b.visit(3000, public, "/cookies")
	want := []string{"plain=1; Path=/", "wide=2; Path=/; HttpOnly", "Odd=3;Secure"}
	if d := cmp.Diff(want, res.Header["Set-Cookie"]); d != "" {
		t.Error(d)
	}
	for _, h := range []string{"Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc"} {
		if v := res.Header.Get(h); v != "" {
			t.Errorf("%s passed: %s", h, v)
		}
	}
	if res.Header.Get("X-Own") != "kept" {
		t.Error("the guest's own header is lost")
	}
}

// Other sites that a page links to must not learn the token in its address.
func TestPreviewLinksStayOutOfReferrers(t *testing.T) {
	b := newBench(t)
	res, _ := b.visit(3000, b.link(private, 3000, time.Minute), "/")
	if got := res.Header.Get("Referrer-Policy"); got != "same-origin" {
		t.Errorf("got policy %q", got)
	}
}

func TestPreviewTokenInTheURL(t *testing.T) {
	b := newBench(t)
	page := []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Accept", "text/html"}
	res, _ := b.visit(3000, private, "//evil.example/x?a=b&DAYTONA_SANDBOX_AUTH_KEY="+tokenOf(private), page...)
	if got := res.Header.Get("Location"); res.StatusCode != 302 || got != "/evil.example/x?a=b" {
		t.Errorf("a browser got %d to %q, want to be sent to the page without the token", res.StatusCode, got)
	}
	c := res.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "" || c.MaxAge != 3600 || c.Secure {
		t.Errorf("got cookie %+v", c)
	}
	res, body := b.visit(3000, private, "/x?DAYTONA_SANDBOX_AUTH_KEY="+tokenOf(private))
	if res.StatusCode != 200 || len(res.Cookies()) != 1 || strings.Contains(string(body), "token-") {
		t.Errorf("a program got %d %v %s", res.StatusCode, res.Cookies(), body)
	}
	link := b.link(private, 3000, time.Minute)
	res, _ = b.visit(3000, private, "/?DAYTONA_SANDBOX_AUTH_KEY="+link)
	cookie := res.Cookies()[0].Name + "=" + res.Cookies()[0].Value
	if res, _ := b.visit(3000, private, "/", "Cookie", cookie); res.StatusCode != 200 {
		t.Errorf("the cookie of a link: got %d", res.StatusCode)
	}
	if err := b.e.ExpireLink(t.Context(), gatewaytest.Ref("private"), 3000, link); err != nil {
		t.Fatal(err)
	}
	if res, _ := b.visit(3000, private, "/", "Cookie", cookie); res.StatusCode != 401 {
		t.Errorf("the cookie of a link that was revoked: got %d", res.StatusCode)
	}
}

// API and previews never share an origin.
func TestPreviewHosts(t *testing.T) {
	b := newBench(t, func(c *gateway.Config) { c.PreviewDomain = "boxes.example:8443" })
	ask := func(host, path string, headers ...string) (int, string) {
		res, body := request(t, "GET", "http://"+b.s.Addr().String()+path, key, "", append([]string{"Host", host}, headers...)...)
		return res.StatusCode, string(body)
	}
	for _, c := range []struct {
		host, path string
		guest      bool
		status     int
	}{
		{"3000-" + private + ".boxes.example", "/api/sandbox", true, 200},
		{"3000-" + private + ".boxes.example", "/healthz", true, 200},
		{"3000-" + private + ".boxes.example:1", "/mcp", true, 200},
		{"3000-" + private + ".BOXES.example.", "/toolbox/x/y", true, 200},
		{"3000-" + strings.ToUpper(private) + ".boxes.example", "/", true, 200},
		{"boxes.example", "/api/sandbox", false, 200},
		{"boxes.example", "/preview/3000/" + private + "/", false, 404},
		{"3000-" + private, "/api/health", false, 200},
		{"3000-" + private + ".other.example", "/api/health", false, 200},
		{"3000-" + private + ".localhost", "/api/health", false, 200},
		{"03000-" + private + ".boxes.example", "/api/sandbox", false, 404},
		{"3000-.boxes.example", "/api/sandbox", false, 404},
		{"99999-" + private + ".boxes.example", "/api/sandbox", false, 404},
		{"x.3000-" + private + ".boxes.example", "/api/sandbox", false, 404},
		{"3000-" + private + ".evil.boxes.example", "/api/health", false, 404},
		{"3000-a_b.boxes.example", "/api/sandbox", false, 404},
		{"3000-..boxes.example", "/api/sandbox", false, 404},
	} {
		status, body := ask(c.host, c.path)
		if fromGuest := strings.Contains(body, `"URI"`); status != c.status || fromGuest != c.guest {
			t.Errorf("%s%s: got %d %s, want %d, from a guest %t", c.host, c.path, status, body, c.status, c.guest)
		}
	}
	if status, body := ask("boxes.example", "/mcp", "Origin", "http://3000-"+public+".boxes.example"); status != 403 {
		t.Errorf("MCP for a guest's page: got %d %s", status, body)
	}
	_, body := ask("127.0.0.1", "/api/sandbox/private/ports/3000/preview-url")
	if want := "http://3000-" + private + ".boxes.example:8443"; !strings.Contains(body, want) {
		t.Errorf("got %s, want %s", body, want)
	}
}

// Certificates are made for sandboxes that are there, and never for the secret
// names of links.
func TestPreviewNamesForCertificates(t *testing.T) {
	b := newBench(t)
	d := preview.Domain("boxes.example")
	for host, want := range map[string]bool{
		"3000-" + private + ".boxes.example": true, "22222-" + foreign + ".BOXES.example.": true,
		"3000-aaaaaaaa-0000-4000-8000-00000000dead.boxes.example": false, "3000-" + b.link(private, 3000, time.Minute) + ".boxes.example": false,
		"boxes.example": false, "03000-" + private + ".boxes.example": false, "3000-" + private + ".evil.example": false,
	} {
		if got := d.Exists(t.Context(), b.e, host); got != want {
			t.Errorf("%s: got %t, want %t", host, got, want)
		}
	}
	for u, want := range map[string]preview.Domain{
		"http://127.0.0.1:7777": "localhost:7777", "http://[::1]": "localhost", "https://Atoll.example:8443": "atoll.example:8443",
		"http://localhost:1": "localhost:1", "http://192.0.2.1:80": "", "": "",
	} {
		if got := preview.DefaultDomain(u); got != want {
			t.Errorf("%s: got %q, want %q", u, got, want)
		}
	}
}

// Where MCP is open to pages of this machine, pages of guests are strangers.
func TestGuestsPagesAreNotOurs(t *testing.T) {
	b := newBench(t, func(c *gateway.Config) {
		c.MCP = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	})
	for origin, want := range map[string]int{"http://localhost:6274": 200, "http://" + b.host(3000, public): 403, "http://3000-x.localhost": 403} {
		if res, body := request(t, "GET", b.s.URL()+"/mcp", key, "", "Origin", origin); res.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", origin, res.StatusCode, body, want)
		}
	}
}

func TestPreviewPages(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		port   int
		label  string
		key    string
		status int
		says   string
	}{
		{3000, private, "", 401, "Port 3000 of this sandbox is private"},
		{9, private, key, 502, "Nothing listens on port 9"},
		{3000, stopped, key, 409, "Sandbox stopped is stopped"},
		{3000, "abcdefgh12345678", "", 401, "expired or was never made"},
		{3000, "aaaaaaaa-0000-4000-8000-00000000dead", "", 404, "There is no sandbox"},
	} {
		headers := []string{"Accept", "text/html,*/*"}
		if c.key != "" {
			headers = append(headers, "Authorization", "Bearer "+c.key)
		}
		res, body := b.visit(c.port, c.label, "/", headers...)
		if res.StatusCode != c.status || !strings.Contains(string(body), c.says) || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") ||
			!strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%d-%s: got %d %s %s, want %d and %q", c.port, c.label, res.StatusCode, res.Header, body, c.status, c.says)
		}
	}
}

func TestPreviewWebSockets(t *testing.T) {
	b := newBench(t)
	dial := func(label, query string, headers ...string) (*websocket.Conn, int) {
		h := http.Header{}
		for i := 0; i+1 < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		ws, res, err := websocket.Dial(t.Context(), "ws://"+b.s.Addr().String()+"/ws"+query, &websocket.DialOptions{HTTPHeader: h, Host: b.host(3000, label)})
		if res == nil {
			t.Fatal(err)
		}
		if err == nil {
			t.Cleanup(func() { ws.CloseNow() })
		}
		return ws, res.StatusCode
	}
	mine := b.cookie(3000, private)
	link := b.link(private, 3000, time.Minute)
	for _, c := range []struct {
		name, label, query string
		headers            []string
		status             int
	}{
		{"nothing", private, "", nil, 401},
		{"a key", private, "", []string{"Authorization", "Bearer " + key}, 101},
		{"the token in the query", private, "?DAYTONA_SANDBOX_AUTH_KEY=" + tokenOf(private), []string{"Origin", "https://app.example"}, 101},
		{"the cookie from its own page", private, "", []string{"Cookie", mine, "Origin", "http://" + b.host(3000, private)}, 101},
		{"the cookie from another sandbox's page", private, "", []string{"Cookie", mine, "Origin", "http://" + b.host(3000, public)}, 401},
		{"a link", link, "", nil, 101},
	} {
		ws, status := dial(c.label, c.query, c.headers...)
		if status != c.status {
			t.Errorf("%s: got %d, want %d", c.name, status, c.status)
		}
		if ws == nil || status != 101 {
			continue
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(t.Context()); string(got) != "HI" || err != nil {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
	}
}

// Revoking a token ends what it let in.
func TestPreviewRevocationCutsConnections(t *testing.T) {
	b := newBench(t)
	api := b.s.URL() + "/api/sandbox/" + private
	for name, revoke := range map[string]func(token string){
		"the link": func(token string) {
			post(t, api+"/ports/3000/signed-preview-url/"+token+"/expire", "")
		},
		"all": func(string) { post(t, api+"/signing-key/rotate", "") },
	} {
		label, header := b.link(private, 3000, time.Minute), http.Header{}
		token := label
		if name == "all" {
			label = private
			header.Set(tokenHeader, tokenOf(private))
		}
		ws, _, err := websocket.Dial(t.Context(), "ws://"+b.s.Addr().String()+"/ws", &websocket.DialOptions{HTTPHeader: header, Host: b.host(3000, label)})
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		revoke(token)
		if _, _, err := ws.Read(t.Context()); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
		if res, _ := b.visit(3000, label, "/", tokenHeader, header.Get(tokenHeader)); res.StatusCode != 401 {
			t.Errorf("%s: got %d afterwards, want 401", name, res.StatusCode)
		}
	}
	if res, _ := request(t, "POST", api+"/ports/3000/signed-preview-url/nope/expire", key, ""); res.StatusCode != 404 {
		t.Errorf("revoking what is not there: got %d", res.StatusCode)
	}
}

func TestPreviewStreams(t *testing.T) {
	b := newBench(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+b.s.Addr().String()+"/ticks", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = b.host(3000, public)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for want := range 3 {
		line, err := lines.ReadString('\n')
		if line != fmt.Sprintf("data: %d\n", want) || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
		_, _ = lines.ReadString('\n')
	}
}

func TestPreviewActivity(t *testing.T) {
	b := newBench(t)
	_, _ = b.visit(3000, public, "/", "X-Daytona-Skip-Last-Activity-Update", "true")
	if got := b.e.Held(); len(got) != 0 {
		t.Errorf("a quiet visit held %v", got)
	}
	_, _ = b.visit(3000, private, "/")
	_, _ = b.visit(3000, public, "/")
	if d := cmp.Diff([]string{public}, b.e.Held()); d != "" {
		t.Error(d)
	}
}

func TestPreviewCORS(t *testing.T) {
	b := newBench(t)
	app := "https://app.example"
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-daytona-preview-token"}
	for _, c := range []struct {
		name        string
		method      string
		label       string
		headers     []string
		origin      string
		credentials string
	}{
		{"preflight", "OPTIONS", private, append(preflight, "Origin", app), app, ""},
		{"preflight of the same sandbox", "OPTIONS", private, append(preflight, "Origin", "http://"+b.host(5173, private)), "http://" + b.host(5173, private), "true"},
		{"preflight of another sandbox", "OPTIONS", private, append(preflight, "Origin", "http://"+b.host(5173, public)), "http://" + b.host(5173, public), ""},
		{"call", "GET", public, []string{"Origin", app}, app, ""},
		{"call without our rules", "GET", public, []string{"Origin", app, "X-Daytona-Disable-CORS", "true"}, "", ""},
	} {
		res, body := b.do(c.method, 3000, c.label, "/", "", c.headers...)
		h := res.Header
		if res.StatusCode >= 300 || h.Get("Access-Control-Allow-Origin") != c.origin || h.Get("Access-Control-Allow-Credentials") != c.credentials {
			t.Errorf("%s: got %d %v %s", c.name, res.StatusCode, h, body)
		}
	}
}

// What an HTTP parser could read in two ways ends at the gateway, or reaches
// the guest in one way only.
func TestPreviewSmuggling(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		head, body string
		status     int
	}{
		"two lengths":               {"Content-Length: 5\r\nContent-Length: 6\r\n", "hello", 400},
		"odd transfer coding":       {"Transfer-Encoding: xchunked\r\n", "hello", 501},
		"two codings":               {"Transfer-Encoding: gzip, chunked\r\n", "hello", 501},
		"a space before the colon":  {"Content-Length : 5\r\n", "hello", 400},
		"a second host":             {"Host: evil\r\n", "", 400},
		"a folded line is one":      {"X-A: b\r\n Content-Length: 5\r\n", "", 200},
		"length and chunks":         {"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", 200},
		"hop-by-hop token":          {"Connection: close, X-Custom\r\nX-Custom: hop\r\n", "", 200},
		"hop-by-hop our own header": {"Connection: close, X-Forwarded-For\r\n", "", 200},
	} {
		conn, err := net.Dial("tcp", b.s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", b.host(3000, public), c.head, c.body)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, _ := io.ReadAll(res.Body)
		conn.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: got %d %s, want %d", name, res.StatusCode, body, c.status)
		}
		if strings.Contains(string(body), "Content-Length\":[\"3") || strings.Contains(string(body), `"hop"`) || c.status == 200 && !strings.Contains(string(body), "X-Forwarded-For") {
			t.Errorf("%s: the guest saw %s", name, body)
		}
	}
}
