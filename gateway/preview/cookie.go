package preview

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Our cookies. The first is followed by the label of the preview's host.
const (
	cookiePrefix   = "daytona-sandbox-auth-"
	acceptedCookie = "daytona-preview-page-accepted"
	cookieLifetime = time.Hour
)

// ourCookie tells whether a name is for the server alone: guests neither see
// nor set such cookies.
func ourCookie(name string) bool {
	name = strings.ToLower(strings.TrimSpace(name))
	return strings.HasPrefix(name, cookiePrefix) || name == acceptedCookie
}

// cookieFor makes the cookie that stands for a token which came in the URL. It
// is bound to the host, port and label. That of a link is looked up each time,
// so that it ends with the link.
func (p *Previews) cookieFor(v *visit) *http.Cookie {
	value := linkMark + v.token
	if v.token == v.access.Token {
		stamp := strconv.FormatInt(p.now().Add(cookieLifetime).Unix(), 10)
		value = stamp + "." + seal(v, stamp)
	}
	return &http.Cookie{
		Name: cookiePrefix + v.label, Value: value, Path: "/", MaxAge: int(cookieLifetime.Seconds()),
		HttpOnly: true, Secure: p.secure, SameSite: http.SameSiteLaxMode,
	}
}

const linkMark = "link."

func seal(v *visit, stamp string) string {
	mac := hmac.New(sha256.New, v.access.CookieKey)
	mac.Write([]byte(v.target.String() + "\n" + stamp))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// byCookie accepts any good one of several cookies of the name, because others
// below the domain may have set bad ones for us.
func (p *Previews) byCookie(r *http.Request, v *visit) bool {
	if !p.fromOwnPage(r, v.target) {
		return false
	}
	for _, c := range r.CookiesNamed(cookiePrefix + v.label) {
		if token, ok := strings.CutPrefix(c.Value, linkMark); ok {
			if token != v.access.Token && p.byToken(r, v, token) {
				return true
			}
			continue
		}
		stamp, sum, _ := strings.Cut(c.Value, ".")
		expires, err := strconv.ParseInt(stamp, 10, 64)
		if err == nil && p.now().Unix() < expires && same(sum, seal(v, stamp)) {
			v.token = v.access.Token
			return true
		}
	}
	return false
}

// fromOwnPage tells whether a page of this preview, or the user, made the
// request. A cookie proves nothing when a page of another sandbox did, which
// for the browser may be the same site. Pages of the same sandbox's other ports
// may, except at the ports that the server itself serves.
func (p *Previews) fromOwnPage(r *http.Request, t target) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		typed := site == "" || site == "none" || site == "same-origin"
		return typed || r.Header.Get("Sec-Fetch-Mode") == "navigate" && safe(r.Method) && r.Header.Get("Sec-Fetch-Dest") == "document"
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	if strings.EqualFold(u.Host, r.Host) {
		return true
	}
	from, ok := p.domain.parse(u.Host)
	return ok && from.label == t.label && !engine.ReservedPort(t.port) && !engine.ReservedPort(from.port)
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// stripCookies takes ours out of what the guest sees.
func stripCookies(h http.Header) {
	var kept []string
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(part, "=")
			if part = strings.TrimSpace(part); part != "" && !ourCookie(name) {
				kept = append(kept, part)
			}
		}
	}
	h.Del("Cookie")
	if len(kept) > 0 {
		h.Set("Cookie", strings.Join(kept, "; "))
	}
}

// hostOnly takes the domain from cookies that a guest sets, so that they reach
// no other sandbox, and drops those that look like ours.
func hostOnly(h http.Header) {
	lines := h["Set-Cookie"]
	h.Del("Set-Cookie")
	for _, line := range lines {
		parts := strings.Split(line, ";")
		name, _, _ := strings.Cut(parts[0], "=")
		if ourCookie(name) {
			continue
		}
		kept := parts[:1]
		for _, part := range parts[1:] {
			attribute, _, _ := strings.Cut(part, "=")
			if !strings.EqualFold(strings.TrimSpace(attribute), "domain") {
				kept = append(kept, part)
			}
		}
		h.Add("Set-Cookie", strings.Join(kept, ";"))
	}
}
