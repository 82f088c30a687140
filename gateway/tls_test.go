package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/certs"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// The API and previews over TLS, with HTTP/2 for those who speak it.
func TestTLS(t *testing.T) {
	authority := gatewaytest.NewAuthority(t)
	cert, key := authority.Write(t.TempDir(), "atoll.example", "*.atoll.example")
	conf, err := certs.Files(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *gateway.Config) { c.TLS, c.PublicURL = conf, "https://atoll.example" })
	client := func(h2 bool) *http.Client {
		tr := &http.Transport{
			ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: authority.Pool},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", b.s.Addr().String())
			},
		}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	get := func(u string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+gatewaytest.AdminKey)
		res, err := client(true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res, string(body)
	}
	host := "3000-" + private + ".atoll.example"
	res, body := get("https://atoll.example/api/sandbox/private/ports/3000/preview-url")
	if res.ProtoMajor != 2 || !strings.Contains(body, `"https://`+host+`"`) {
		t.Errorf("got HTTP/%d %s", res.ProtoMajor, body)
	}
	res, body = get("https://" + host + "/")
	if res.StatusCode != 200 || !strings.Contains(body, `"X-Forwarded-Proto":["https"]`) {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	res, _ = get("https://" + host + "/?DAYTONA_SANDBOX_AUTH_KEY=" + tokenOf(private))
	if len(res.Cookies()) != 0 { // the key came first
		t.Errorf("got cookies %v", res.Cookies())
	}
	ws, _, err := websocket.Dial(t.Context(), "wss://"+host+"/ws?DAYTONA_SANDBOX_AUTH_KEY="+tokenOf(private), &websocket.DialOptions{HTTPClient: client(false)})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.Read(t.Context()); string(got) != "HI" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = http.Get("http://" + b.s.Addr().String())
	if err != nil {
		t.Errorf("plain HTTP got no word on what is spoken here: %v", err)
	}
}

// Uploads and answers of any size pass in the memory of a few buffers.
func TestPreviewBodiesStream(t *testing.T) {
	b := newBench(t)
	const size = 64 << 20
	pr, pw := io.Pipe()
	go func() {
		part := bytes.Repeat([]byte("x"), 1<<20)
		for range size >> 20 {
			if _, err := pw.Write(part); err != nil {
				return
			}
		}
		pw.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.s.Addr().String()+"/mirror", pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = b.host(3000, public)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
		t.Errorf("got %d bytes back, %v, want %d", n, err, size)
	}
}
