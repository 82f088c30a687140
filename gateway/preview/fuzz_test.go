package preview

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func FuzzHost(f *testing.F) {
	for _, s := range []string{"3000-abc.x.example", "3000-abc.x.example:80", "03000-a.x.example", "3000-.x.example", "x.example", "[::1]:80", "3000-a.X.EXAMPLE."} {
		f.Add(s)
	}
	d := Domain("x.example:8443")
	f.Fuzz(func(t *testing.T, host string) {
		got, ok := d.parse(host)
		if !ok {
			return
		}
		if !d.Below(host) {
			t.Errorf("%q is a preview and served as the API", host)
		}
		if again, ok := d.parse(d.host(got)); !ok || again != got {
			t.Errorf("%q: %v does not come back", host, got)
		}
		if got.port < 1 || got.port > 65535 || !plain(got.label) {
			t.Errorf("%q: got %v", host, got)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/preview/3000/abc/x", "/preview/3000/abc", "/preview/3000/abc/../y", "/preview/3000/abc/%2e%2e/y", "/preview/3000/a%2fb/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		at, ok := parsePath(path)
		if !ok {
			return
		}
		if at.prefix()+at.path != path {
			t.Errorf("%q was read as %q and %q", path, at.prefix(), at.path)
		}
		decoded, err := url.PathUnescape(at.path)
		if err != nil {
			return
		}
		for part := range strings.SplitSeq(strings.ReplaceAll(decoded, `\`, "/"), "/") {
			if part == ".." {
				t.Errorf("%q climbs", path)
			}
		}
	})
}

func FuzzSetCookie(f *testing.F) {
	for _, s := range []string{"a=1; Domain=x.example", "a=1;DOMAIN = .x; Path=/", "daytona-sandbox-auth-x=1", " Daytona-Preview-Page-Accepted=1", "=; domain", "a=1; domain=x; Domain=y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{"Set-Cookie": {line}}
		hostOnly(h)
		for _, c := range (&http.Response{Header: h}).Cookies() {
			if c.Domain != "" || ourCookie(c.Name) {
				t.Errorf("%q passed as %q", line, h["Set-Cookie"])
			}
		}
	})
}

func FuzzRequestSecrets(f *testing.F) {
	f.Add("a=1&DAYTONA_SANDBOX_AUTH_KEY=x&b", "own=1; daytona-sandbox-auth-x=y")
	f.Add("DAYTONA%5FSANDBOX_AUTH_KEY=x;y", "daytona-sandbox-auth-x =y;; ;Daytona-Preview-Page-Accepted=1")
	f.Add("%zz=1&+DAYTONA_SANDBOX_AUTH_KEY=x", "=daytona-sandbox-auth-x")
	f.Fuzz(func(t *testing.T, query, cookie string) {
		left := withoutToken(query)
		if q, _ := url.ParseQuery(left); q.Has(tokenQuery) {
			t.Errorf("the token stays in %q", left)
		}
		r := &http.Request{Header: http.Header{"Cookie": {cookie}}}
		stripCookies(r.Header)
		for _, c := range r.Cookies() {
			if ourCookie(c.Name) {
				t.Errorf("%s stays in %q", c.Name, r.Header["Cookie"])
			}
		}
	})
}
