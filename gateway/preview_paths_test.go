package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/preview"
)

func TestPreviewPaths(t *testing.T) {
	b := newBench(t, func(c *gateway.Config) { c.PreviewPaths = true })
	link := b.link(private, 3000, time.Minute)
	terminal := b.link(private, 22222, time.Minute)
	bearer := []string{"Authorization", "Bearer " + key}
	good := "/preview/3000/" + public
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		uri        string // as the guest saw it; empty: it saw nothing
	}{
		{"public", good + "/a/b?x=y", nil, 200, "/a/b?x=y"},
		{"root", good + "/", nil, 200, "/"},
		{"without the slash", good, nil, 308, ""},
		{"encoded", good + "/a%2Fb%20c", nil, 200, "/a%2Fb%20c"},
		{"private", "/preview/3000/" + private + "/", nil, 401, ""},
		{"private with a key", "/preview/3000/" + private + "/", bearer, 200, "/"},
		{"a link", "/preview/3000/" + link + "/x", nil, 200, "/x"},
		{"a link at another port", "/preview/3001/" + link + "/", nil, 401, ""},
		{"a cookie proves nothing here", "/preview/3000/" + private + "/", []string{"Cookie", b.cookie(3000, private)}, 401, ""},
		{"climbing out", good + "/../../3000/" + private + "/", nil, 404, ""},
		{"climbing out, encoded", good + "/%2e%2E/%2e%2e/3000/" + private + "/", nil, 404, ""},
		{"climbing out with encoded slashes", good + "/..%2f..%2F3000%2f" + private, nil, 404, ""},
		{"climbing out with a backslash", good + "/..%5c..", nil, 404, ""},
		{"an encoded slash in the id", "/preview/3000/" + public + "%2f..%2f" + private + "/", nil, 404, ""},
		{"an encoded id", "/preview/3000/%61aaaaaaa-0000-4000-8000-000000000002/", nil, 404, ""},
		{"two slashes", "/preview//3000/" + public + "/", nil, 404, ""},
		{"no port", "/preview/" + public + "/", nil, 404, ""},
		{"leading zero", "/preview/03000/" + public + "/", nil, 404, ""},
		{"terminal page", "/preview/22222/" + terminal + "/", nil, 200, ""},
		{"terminal of a public sandbox", "/preview/22222/" + public + "/", nil, 401, ""},
	} {
		res, body := request(t, "GET", b.s.URL()+c.path, "", "", c.headers...)
		var got seen
		_ = json.Unmarshal(body, &got)
		if res.StatusCode != c.status || got.URI != c.uri {
			t.Errorf("%s: got %d, the guest saw %q, want %d and %q\n%s", c.name, res.StatusCode, got.URI, c.status, c.uri, body)
		}
		if c.uri != "" && !strings.HasPrefix(res.Header.Get("Content-Security-Policy"), "sandbox allow-scripts") {
			t.Errorf("%s: the guest's page runs as ours: %v", c.name, res.Header)
		}
	}
	testPathsKeepGuestsOut(t, b, good)
}

// Below a path, guests share the API's origin, so they may leave nothing there.
func testPathsKeepGuestsOut(t *testing.T, b *bench, good string) {
	res, _ := request(t, "GET", b.s.URL()+good+"/cookies", "", "", "Origin", "null")
	if res.Header.Get("Set-Cookie") != "" || res.Header.Get("Access-Control-Allow-Origin") != "null" {
		t.Errorf("got %v", res.Header)
	}
	res, _ = request(t, "GET", b.s.URL()+good+"/moved", "", "")
	if got, want := res.Header.Get("Location"), good+"/elsewhere"; got != want {
		t.Errorf("got a redirect to %q, want %q", got, want)
	}
	_, body := request(t, "GET", b.s.URL()+good+"/", key, "", "Cookie", "dashboard=secret", tokenHeader, "x")
	var got seen
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if got.Host != "localhost:3000" || got.Header.Get("X-Forwarded-Prefix") != good || got.Header["Cookie"] != nil ||
		got.Header["Authorization"] != nil || got.Header[tokenHeader] != nil {
		t.Errorf("the guest saw %+v", got)
	}
	_, body = request(t, "GET", b.s.URL()+"/api/sandbox/public/ports/3000/preview-url", key, "")
	if want := b.s.URL() + good + "/"; !strings.Contains(string(body), want) {
		t.Errorf("got %s, want %s", body, want)
	}
}

func TestPreviewURLs(t *testing.T) {
	b := newBench(t)
	api := b.s.URL() + "/api/sandbox/private/ports/"
	var plain, signed struct {
		SandboxID, URL, Token string
		Port                  int
	}
	_, body := request(t, "GET", api+"3000/preview-url", key, "")
	if err := json.Unmarshal(body, &plain); err != nil || plain.SandboxID != private || plain.Token != tokenOf(private) || plain.URL != "http://"+b.host(3000, private) {
		t.Errorf("%v: got %s", err, body)
	}
	_, body = request(t, "GET", api+"3000/signed-preview-url?expiresInSeconds=120", key, "")
	if err := json.Unmarshal(body, &signed); err != nil || signed.SandboxID != private || signed.Port != 3000 || signed.URL != "http://"+b.host(3000, signed.Token) {
		t.Errorf("%v: got %s", err, body)
	}
	if link, err := b.e.Link(t.Context(), signed.Token); err != nil || time.Until(link.ExpiresAt) < 100*time.Second {
		t.Errorf("got %+v, %v", link, err)
	}
	for path, want := range map[string]int{
		"0/preview-url": 400, "65536/preview-url": 400, "x/preview-url": 400, "80/signed-preview-url?expiresInSeconds=0": 400,
		"80/signed-preview-url?expiresInSeconds=86401": 400, "80/signed-preview-url?expiresInSeconds=soon": 400, "80/signed-preview-url": 200,
	} {
		if res, body := request(t, "GET", api+path, key, ""); res.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", path, res.StatusCode, body, want)
		}
	}
	if res, _ := request(t, "GET", api+"80/preview-url", gatewaytest.OtherKey, ""); res.StatusCode != 404 {
		t.Errorf("another organization's key: got %d", res.StatusCode)
	}
	_, body = request(t, "GET", b.s.URL()+"/api/config", "", "")
	if want := `"proxyTemplateUrl":"http://{{PORT}}-{{sandboxId}}.localhost:`; !strings.Contains(string(body), want) {
		t.Errorf("got %s", body)
	}
}

func TestPreviewTag(t *testing.T) {
	b := newBench(t)
	link := b.link(private, 3000, time.Minute)
	for _, c := range []struct {
		path, key, want string
		status          int
	}{
		{private + "/public", "", "false", 200},
		{public + "/public", "", "true", 200},
		{"nobody/public", "", "false", 200},
		{private + "/validate/" + tokenOf(private), "", "true", 200},
		{private + "/validate/" + tokenOf(public), "", "false", 200},
		{"nobody/validate/x", "", "false", 200},
		{private + "/access", "", "", 401},
		{private + "/access", key, "true", 200},
		{private + "/access", gatewaytest.OtherKey, "", 404},
		{private + "/signing-key", "", "", 401},
		{private + "/signing-key", gatewaytest.ReaderKey, "", 403},
		{private + "/signing-key", key, `"signing-` + private + `-0"`, 200},
		{private + "/preview-warning?port=3000", "", `{"enabled":false}`, 200},
		{link + "/3000/sandbox-id", "", `"` + private + `"`, 200},
		{link + "/3001/sandbox-id", "", "", 404},
		{"abcdefgh12345678/3000/sandbox-id", "", "", 404},
	} {
		res, body := request(t, "GET", b.s.URL()+"/api/preview/"+c.path, c.key, "")
		if got := strings.TrimSpace(string(body)); res.StatusCode != c.status || c.want != "" && got != c.want {
			t.Errorf("%s: got %d %s, want %d %s", c.path, res.StatusCode, got, c.status, c.want)
		}
	}
}

func TestSignedFileURLs(t *testing.T) {
	b := newBench(t)
	later, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Minute).Unix()
	signing := "signing-" + private + "-0"
	signed := func(key, method, file string, expires int64) string {
		return url.Values{"path": {file}, "expires": {fmt.Sprint(expires)}, "signature": {preview.Sign(key, method, file, expires)}}.Encode()
	}
	const file = "/dir/a b:c&d.txt"
	up, down := "/toolbox/"+private+"/files/upload-v2?", "/toolbox/"+private+"/files/download?"
	get, put := signed(signing, "GET", file, later), signed(signing, "POST", file, later)
	for _, c := range []struct {
		name, method, path string
		headers            []string
		status             int
	}{
		{"upload", "POST", up + put, nil, 200},
		{"download", "GET", down + get, nil, 200},
		{"download for ever", "GET", down + signed(signing, "GET", file, 0), nil, 200},
		{"from a page", "GET", down + get, []string{"Origin", "https://app.example"}, 200},
		{"expired", "GET", down + signed(signing, "GET", file, past), nil, 401},
		{"another key", "GET", down + signed("signing-"+public+"-0", "GET", file, later), nil, 401},
		{"another method's", "GET", down + put, nil, 401},
		{"another path", "GET", down + get + "x", nil, 401},
		{"a second path", "GET", down + get + "&path=/etc/shadow", nil, 400},
		{"a longer life", "GET", down + strings.Replace(get, fmt.Sprint(later), fmt.Sprint(later+1), 1), nil, 401},
		{"a time that is none", "GET", down + strings.Replace(get, fmt.Sprint(later), "+"+fmt.Sprint(later), 1), nil, 400},
		{"no time", "GET", down + strings.Replace(get, "expires=", "expired=", 1), nil, 400},
		{"an empty signature", "GET", down + "path=/x&expires=0&signature=", nil, 401},
		{"another operation", "GET", "/toolbox/" + private + "/files/info?" + get, nil, 401},
		{"another operation's path", "GET", "/toolbox/" + private + "/files/download/../info?" + get, nil, 401},
		{"HEAD", "HEAD", down + get, nil, 401},
		{"by name", "GET", "/toolbox/private/files/download?" + get, nil, 401},
		{"another sandbox", "GET", "/toolbox/" + public + "/files/download?" + get, nil, 401},
		{"no sandbox", "GET", "/toolbox/nobody/files/download?" + get, nil, 401},
		{"with a wrong key", "GET", down + get, []string{"Authorization", "Bearer wrong"}, 401},
		{"the older address", "GET", "/api/toolbox/" + private + "/toolbox/files/download?" + get, nil, 401},
	} {
		body := ""
		if c.method == "POST" {
			body = "content"
		}
		res, got := request(t, c.method, b.s.URL()+c.path, "", body, c.headers...)
		if res.StatusCode != c.status || c.method == "GET" && c.status == 200 && string(got) != "content" {
			t.Errorf("%s: got %d %s, want %d", c.name, res.StatusCode, got, c.status)
		}
	}
	_, body := request(t, "POST", b.s.URL()+"/api/sandbox/private/signing-key/rotate", key, "")
	if want := `"signing-` + private + `-1"`; strings.TrimSpace(string(body)) != want {
		t.Errorf("got %s, want %s", body, want)
	}
	if res, _ := request(t, "GET", b.s.URL()+down+get, "", ""); res.StatusCode != 401 {
		t.Errorf("after a rotation: got %d", res.StatusCode)
	}
}

func TestTerminalAndRecordings(t *testing.T) {
	b := newBench(t)
	bearer := []string{"Authorization", "Bearer " + key}
	for _, c := range []struct {
		method string
		port   int
		path   string
		more   []string
		status int
		says   string
	}{
		{"GET", 22222, "/", nil, 200, "assets/terminal.js"},
		{"GET", 22222, "/assets/xterm.js", nil, 200, "Terminal"},
		{"GET", 22222, "/assets/LICENSE-xterm.txt", nil, 200, "Permission is hereby granted"},
		{"GET", 22222, "/assets/../error.html", nil, 404, ""},
		{"GET", 22222, "/assets/%2e%2e/error.html", nil, 404, ""},
		{"GET", 22222, "/assets/", nil, 404, ""},
		{"GET", 22222, "/error.html", nil, 404, ""},
		{"POST", 22222, "/", nil, 400, ""},
		{"POST", 22222, "/process/execute", nil, 400, ""},
		{"GET", 22222, "/process/pty/..%2fexecute", nil, 400, ""},
		{"GET", 22222, "/internal/status", nil, 404, ""},
		{"GET", 22222, "/process/pty/x", nil, 404, ""}, // the fake toolbox has none
		{"GET", 22222, "/process/pty/x", []string{"Origin", "https://evil.example"}, 403, ""},
		{"GET", 22222, "/process/pty/x", []string{"Origin", "http://" + b.host(3000, private)}, 403, ""},
		{"GET", 22222, "/process/pty/x", []string{"Sec-Fetch-Site", "same-site"}, 403, ""},
		{"GET", 33333, "/", nil, 200, "assets/recordings.js"},
		{"GET", 33333, "/computeruse/recordings", nil, 404, ""},
		{"POST", 33333, "/computeruse/recordings/start", nil, 400, ""},
		{"GET", 33333, "/computeruse/status", nil, 404, ""},
		{"GET", 2280, "/echo", nil, 200, `"Path":"/echo"`},
		{"GET", 2280, "/internal/status", nil, 403, ""},
	} {
		res, body := b.do(c.method, c.port, private, c.path, "", append(bearer, c.more...)...)
		if res.StatusCode != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s %d%s: got %d %.300s, want %d and %q", c.method, c.port, c.path, res.StatusCode, body, c.status, c.says)
		}
		if c.path == "/" && c.status == 200 {
			csp := res.Header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "script-src 'self';") || !strings.Contains(csp, "frame-ancestors 'none'") {
				t.Errorf("got policy %s", csp)
			}
		}
	}
}

// The toolbox's WebSockets are at port 2280, with the token where browsers can
// put it.
func TestToolboxAsAPreview(t *testing.T) {
	b := newBench(t)
	for query, want := range map[string]int{"": 401, "?DAYTONA_SANDBOX_AUTH_KEY=" + tokenOf(private): 101} {
		h := http.Header{"Origin": {"https://app.example"}}
		ws, res, err := websocket.Dial(t.Context(), "ws://"+b.s.Addr().String()+"/internal/exec"+query,
			&websocket.DialOptions{Host: b.host(2280, private), HTTPHeader: h, Subprotocols: []string{"X-Daytona-SDK-Version~1.0.0"}})
		if res == nil || res.StatusCode != want {
			t.Fatalf("%s: got %v, %v, want %d", query, res, err, want)
		}
		if err == nil {
			ws.CloseNow()
		}
	}
	res, _ := b.do("OPTIONS", 2280, private, "/process/execute", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
	if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("preflight: got %d %v", res.StatusCode, res.Header)
	}
	res, _ = b.visit(2280, private, "/echo", "Origin", "https://app.example", tokenHeader, tokenOf(private))
	if res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("call: got %d %v", res.StatusCode, res.Header)
	}
}

func TestTouchIsActivity(t *testing.T) {
	b := newBench(t)
	post(t, b.s.URL()+"/api/sandbox/"+private+"/last-activity", "")
	if got := b.e.Held(); len(got) != 1 || got[0] != private {
		t.Errorf("held %v", got)
	}
	if res, _ := request(t, "POST", b.s.URL()+"/api/sandbox/stopped/last-activity", key, ""); res.StatusCode != 409 || len(b.e.Held()) != 1 {
		t.Errorf("stopped: got %d, held %v", res.StatusCode, b.e.Held())
	}
}
