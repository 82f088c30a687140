package egress

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// Bounds of what is replaced.
const (
	maxSwapHead  = 256 << 10 // bytes that values may add to head and URL of a request
	maxSwapBody  = 1 << 20   // a request's body of a known length beyond it stays as it is
	maxSwapKept  = 64 << 10  // a longer response flows, without a length
	maxSwapGrown = 8 << 20   // of such a body, when values are in it
	minRedacted  = 8         // bytes of a value below which it is not looked for in responses
)

// pair is one text and what takes its place. name is that of the secret, or what
// stands for it.
type pair struct{ old, fresh, name string }

// swap puts values into one request and takes them out of its response.
type swap struct {
	bindings []secret.Binding
	redacted []pair // what may not come back, in its usual spellings
	bodies   chan struct{}
	leave    func() // gives its place among bodies back; nil: it has none
	// tell is told what was done, once or more; nil: nobody is. It may be called
	// by several goroutines.
	tell func(operation, name string)
}

// newSwap must be closed after its request.
func newSwap(bindings []secret.Binding, bodies chan struct{}) *swap {
	s := &swap{bindings: bindings, bodies: bodies}
	for _, b := range bindings {
		s.redact(b.Value.Reveal(), b.Placeholder, cmp.Or(b.Name, b.Placeholder))
	}
	return s
}

func (s *swap) close() {
	if s.leave != nil {
		s.leave()
	}
}

// redact adds a text that must not come back.
func (s *swap) redact(text, placeholder, name string) {
	if len(text) < minRedacted {
		return
	}
	spellings := []string{
		text, url.QueryEscape(text), url.PathEscape(text), inJSON(text),
		base64.RawStdEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)),
	}
	for _, t := range spellings {
		if !slices.ContainsFunc(s.redacted, func(p pair) bool { return p.old == t }) {
			s.redacted = append(s.redacted, pair{t, placeholder, name})
		}
	}
	// The longer one first, where one holds the other.
	slices.SortStableFunc(s.redacted, func(a, b pair) int { return cmp.Compare(len(b.old), len(a.old)) })
}

func inJSON(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string always encodes
	out := strings.TrimSuffix(b.String(), "\n")
	return out[1 : len(out)-1]
}

// values are the placeholders and, spelled as spell says, their values.
func (s *swap) values(spell func(string) string) []pair {
	var out []pair
	for _, b := range s.bindings {
		out = append(out, pair{b.Placeholder, spell(b.Value.Reveal()), cmp.Or(b.Name, b.Placeholder)})
	}
	return out
}

func plainly(text string) string { return text }

// replace replaces pairs in one pass: what took a place is not looked at again.
func replace(text string, pairs []pair) string {
	if !slices.ContainsFunc(pairs, func(p pair) bool { return strings.Contains(text, p.old) }) {
		return text
	}
	var list []string
	for _, p := range pairs {
		list = append(list, p.old, p.fresh)
	}
	return strings.NewReplacer(list...).Replace(text)
}

// replace is like the function, and tells of what was in the text.
func (s *swap) replace(text string, pairs []pair, operation string) string {
	out := replace(text, pairs)
	if s.tell == nil {
		return out
	}
	if out != text {
		for _, p := range pairs {
			if strings.Contains(text, p.old) {
				s.tell(operation, p.name)
			}
		}
	}
	if operation == engine.SecretSent {
		s.strangers([]byte(out))
	}
	return out
}

// strangers tells of placeholders that are left: of secrets that are for other
// hosts, or of nobody here.
func (s *swap) strangers(text []byte) {
	placeholders(text, func(placeholder string) { s.tell(engine.SecretWithheld, placeholder) })
}

// flowing is a body in which pairs are replaced as it flows.
func (s *swap) flowing(from io.ReadCloser, pairs []pair, operation string) *stream {
	out := &stream{from: from, pairs: pairs}
	if s.tell != nil {
		out.met = func(p pair) { s.tell(operation, p.name) }
	}
	if s.tell != nil && operation == engine.SecretSent {
		out.said = s.strangers
	}
	return out
}

// grown is how long a text gets when pairs are replaced in it.
func grown(text string, pairs []pair) int {
	n := len(text)
	for _, p := range pairs {
		n += strings.Count(text, p.old) * max(len(p.fresh)-len(p.old), 0)
	}
	return n
}

// request puts values into a request. On error the request must not be sent.
func (s *swap) request(r *http.Request) error {
	if err := s.head(r); err != nil || len(s.bindings) == 0 {
		return err
	}
	r.Header.Del("Expect") // the body is read here first
	// What comes back packed could not be looked through.
	r.Header.Set("Accept-Encoding", "identity")
	return s.body(r)
}

func (s *swap) head(r *http.Request) error {
	raw := s.values(plainly)
	room := maxSwapHead
	take := func(text string, pairs []pair) (string, error) {
		if room -= grown(text, pairs) - len(text); room < 0 {
			return "", engine.Errorf(engine.KindExhausted, "the secrets make the request too large")
		}
		return s.replace(text, pairs, engine.SecretSent), nil
	}
	for name, list := range r.Header {
		for i, text := range list {
			fresh, err := take(text, raw)
			if err == nil && strings.HasSuffix(name, "Authorization") {
				fresh, err = s.basic(fresh, take)
			}
			if err != nil {
				return err
			}
			if fresh != text && !httpguts.ValidHeaderFieldValue(fresh) {
				return engine.Errorf(engine.KindInvalid, "a secret's value cannot stand in a header")
			}
			list[i] = fresh
		}
	}
	path, err := take(r.URL.EscapedPath(), s.values(url.PathEscape))
	if err != nil {
		return err
	}
	if path != r.URL.EscapedPath() {
		if r.URL.Path, err = url.PathUnescape(path); err != nil {
			return engine.Errorf(engine.KindInvalid, "the path cannot be read")
		}
		r.URL.RawPath = path
	}
	r.URL.RawQuery, err = take(r.URL.RawQuery, s.values(url.QueryEscape))
	return err
}

// basic looks into credentials of the Basic scheme, which clients make of the
// user and password of an address.
func (s *swap) basic(text string, take func(string, []pair) (string, error)) (string, error) {
	scheme, coded, ok := strings.Cut(text, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return text, nil
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(coded))
	if err != nil {
		return text, nil
	}
	fresh, err := take(string(plain), s.values(plainly))
	if err != nil || fresh == string(plain) {
		return text, err
	}
	out := base64.StdEncoding.EncodeToString([]byte(fresh))
	s.redacted = slices.Insert(s.redacted, 0, pair{out, coded, s.nameIn(string(plain))})
	return scheme + " " + out, nil
}

// nameIn names the first secret whose placeholder is in a text.
func (s *swap) nameIn(text string) string {
	for _, p := range s.values(plainly) {
		if strings.Contains(text, p.old) {
			return p.name
		}
	}
	return ""
}

// body puts values into a textual body. One of a known length keeps being of a
// known length; one without is replaced as it flows.
func (s *swap) body(r *http.Request) error {
	kind := r.Header.Get("Content-Type")
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || !textual(kind) || packed(r.Header) {
		return nil
	}
	pairs := s.values(spelling(kind))
	if r.ContentLength < 0 {
		r.Body = s.flowing(r.Body, pairs, engine.SecretSent)
		return nil
	}
	if r.ContentLength > maxSwapBody {
		return nil
	}
	var err error
	if s.leave, err = enter(r.Context(), s.bodies); err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxSwapBody))
	r.Body.Close()
	if err != nil {
		return engine.Errorf(engine.KindInvalid, "the request's body ended early")
	}
	if grown(string(b), pairs) > maxSwapGrown {
		return engine.Errorf(engine.KindExhausted, "the secrets make the request too large")
	}
	b = []byte(s.replace(string(b), pairs, engine.SecretSent))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	r.Header.Set("Content-Length", strconv.Itoa(len(b)))
	return nil
}

// response takes values out of a response.
func (s *swap) response(r *http.Response) error {
	s.clean(r.Header)
	if r.StatusCode == http.StatusSwitchingProtocols || len(s.redacted) == 0 {
		return nil
	}
	bare := r.StatusCode == http.StatusNoContent || r.StatusCode == http.StatusNotModified
	if bare || !textual(r.Header.Get("Content-Type")) || packed(r.Header) || r.Request.Method == http.MethodHead || r.ContentLength == 0 {
		r.Body = &ending{ReadCloser: r.Body, end: func() { s.clean(r.Trailer) }}
		return nil
	}
	if r.ContentLength > 0 && r.ContentLength <= maxSwapKept {
		b, err := io.ReadAll(io.LimitReader(r.Body, maxSwapKept+1)) // to its very end, where trailers are
		r.Body.Close()
		if err != nil {
			return err
		}
		s.clean(r.Trailer)
		b = []byte(s.replace(string(b), s.redacted, engine.SecretRedacted))
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return nil
	}
	r.ContentLength = -1
	r.Header.Del("Content-Length")
	r.Body = &ending{ReadCloser: s.flowing(r.Body, s.redacted, engine.SecretRedacted), end: func() { s.clean(r.Trailer) }}
	return nil
}

// clean takes values out of headers.
func (s *swap) clean(h http.Header) {
	for _, list := range h {
		for i := range list {
			list[i] = s.replace(list[i], s.redacted, engine.SecretRedacted)
		}
	}
}

// textual tells whether a body of this type is looked through. One without a
// type is.
func textual(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if contentType == "" || err != nil {
		return true
	}
	if strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml") {
		return true
	}
	switch kind {
	case "application/json", "application/xml", "application/x-www-form-urlencoded", "application/javascript",
		"application/graphql", "application/x-ndjson", "application/jsonl", "application/yaml", "application/toml":
		return true
	}
	return false
}

// spelling is how a value is written in a body of this type.
func spelling(contentType string) func(string) string {
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case kind == "application/x-www-form-urlencoded":
		return url.QueryEscape
	case strings.HasSuffix(kind, "json") || kind == "application/jsonl" || kind == "application/graphql":
		return inJSON
	}
	return plainly
}

func packed(h http.Header) bool {
	e := h.Get("Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}
