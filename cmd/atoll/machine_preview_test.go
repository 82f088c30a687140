package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// page serves a file on port 3000 and echoes WebSocket messages on port 8000.
const page = `
import base64, hashlib, http.server, os, socketserver, threading
os.makedirs("/tmp/web", exist_ok=True)
open("/tmp/web/index.html", "w").write("<h1>hello</h1>")

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        key = ""
        while (line := self.rfile.readline().strip()):
            name, _, value = line.partition(b": ")
            if name.lower() == b"sec-websocket-key":
                key = value.decode()
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        self.wfile.write(f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        while (head := self.rfile.read(2)):
            n = head[1] & 127
            mask, data = self.rfile.read(4), self.rfile.read(n)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
            self.wfile.write(bytes([head[0], n]) + data)

class Files(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *a): super().__init__(*a, directory="/tmp/web")

socketserver.TCPServer.allow_reuse_address = True
threading.Thread(target=socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Echo).serve_forever).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Files).serve_forever()
`

// browser is a client that keeps cookies, says what a page says and finds
// every name below localhost on this machine, as browsers do.
type browser struct {
	t    *testing.T
	http *http.Client
}

func (m *machine) browser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", m.addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &browser{t: t, http: &http.Client{Jar: jar, Transport: tr, Timeout: 20 * time.Second}}
}

// visit goes to a page and returns where it ended up.
func (b *browser) visit(u string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, u, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for k, v := range map[string]string{
		"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none",
	} {
		req.Header.Set(k, v)
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res, string(body)
}

func (b *browser) want(u string, status int, part string) *http.Response {
	b.t.Helper()
	res, body := b.visit(u)
	if res.StatusCode != status || !strings.Contains(body, part) {
		b.t.Errorf("%s: got %d %s, want %d and %q", u, res.StatusCode, body, status, part)
	}
	return res
}

// dial opens a WebSocket as a page of the origin would.
func (b *browser) dial(u, origin string, protocols ...string) (*websocket.Conn, error) {
	client := *b.http
	client.Timeout = 0
	ws, _, err := websocket.Dial(b.t.Context(), u, &websocket.DialOptions{
		HTTPClient: &client, HTTPHeader: http.Header{"Origin": {origin}}, Subprotocols: protocols,
	})
	if err == nil {
		b.t.Cleanup(func() { ws.CloseNow() })
	}
	return ws, err
}

func TestMachinePreviews(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(nil)
	if code, out := m.cli("exec", sb.ID, "--", "sh", "-c", "setsid python3 -c \"$0\" >/dev/null 2>&1 & until curl -s localhost:3000 >/dev/null; do sleep 0.05; done", page); code != 0 {
		t.Fatalf("start the services: %s", out)
	}
	var preview, ws struct{ URL, Token string }
	m.must("GET", "/api/sandbox/"+sb.ID+"/ports/3000/preview-url", nil, &preview)
	m.must("GET", "/api/sandbox/"+sb.ID+"/ports/8000/preview-url", nil, &ws)
	_, port, _ := net.SplitHostPort(m.addr)
	if want := fmt.Sprintf("http://3000-%s.localhost:%s", sb.ID, port); preview.URL != want {
		t.Fatalf("got %s, want %s", preview.URL, want)
	}
	withToken := func(u string) string { return u + "/?DAYTONA_SANDBOX_AUTH_KEY=" + url.QueryEscape(preview.Token) }

	b := m.browser(t)
	b.want(preview.URL+"/", 401, "is private")
	if res := b.want(withToken(preview.URL), 200, "<h1>hello</h1>"); res.Request.URL.RawQuery != "" {
		t.Errorf("the token stayed in the URL %s", res.Request.URL)
	}
	b.want(preview.URL+"/", 200, "<h1>hello</h1>") // by the cookie
	b.want(withToken(strings.Replace(preview.URL, "3000-", "3001-", 1)), 502, "Nothing listens on port 3001")
	testMachineSockets(t, m, b, ws.URL, withToken)

	m.stop() // what was handed out works after a restart
	m.start()
	b.want(preview.URL+"/", 200, "<h1>hello</h1>")
	m.must("POST", "/api/sandbox/"+sb.ID+"/stop", nil, nil)
	b.want(preview.URL+"/", 409, "Start it first")
}

func testMachineSockets(t *testing.T, m *machine, b *browser, page string, withToken func(string) string) {
	t.Helper()
	socket := strings.Replace(page, "http://", "ws://", 1) + "/"
	if _, err := b.dial(socket, page); err == nil {
		t.Error("a WebSocket opened without a token")
	}
	echo, err := b.dial(withToken(strings.TrimSuffix(socket, "/")), page)
	if err != nil {
		t.Fatal(err)
	}
	if err := echo.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := echo.Read(t.Context()); string(got) != "hello" || err != nil {
		t.Errorf("echo: got %q, %v", got, err)
	}

	terminal := strings.Replace(page, "8000-", "22222-", 1)
	b.want(withToken(terminal), 200, "assets/terminal.js")
	pty := strings.Replace(terminal, "http://", "ws://", 1) + "/process/pty/create-connect?id=t&cols=80&rows=24"
	if _, err := b.dial(pty, page); err == nil {
		t.Error("a guest's page opened a terminal with the visitor's cookie")
	}
	tty, err := b.dial(pty, terminal, "X-Daytona-Pty-Exit-Control")
	if err != nil {
		t.Fatal(err)
	}
	if err := tty.Write(t.Context(), websocket.MessageBinary, []byte("echo $((6*7))-$(id -un); exit 3\n")); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		_, got, err := tty.Read(t.Context())
		if err != nil {
			break
		}
		all.Write(got)
	}
	if got := all.String(); !strings.Contains(got, "42-atoll") || !strings.Contains(got, `"exitCode":3`) {
		t.Errorf("terminal: got %q", got)
	}
}
