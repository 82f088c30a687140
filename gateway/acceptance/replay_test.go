package acceptance

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// recorded is one block of testdata/recorded.txt.
type recorded struct {
	client, method, path string
	headers              []string // pairs
	body                 string
	statuses             []int
	shape                string // of a success; empty: not looked at
	later                bool
	keep                 map[string]string // variable → field of the answer
}

// clientHeaders are what each client adds to all of its requests.
func clientHeaders(client string) []string {
	switch client {
	case "cli":
		return []string{"User-Agent", "api-client-go/v0.205.1", "X-Daytona-Source", "cli"}
	case "mcp":
		return []string{"User-Agent", "api-client-go/v0.205.1", "X-Daytona-Source", "daytona-mcp", "X-Daytona-CLI-Version", "v0.0.0-dev"}
	}
	return []string{"User-Agent", "sdk-typescript-legacy/0.218.0", "X-Daytona-Source", "sdk-typescript-legacy", "X-Daytona-SDK-Version", "0.218.0"}
}

var (
	headerLine = regexp.MustCompile(`^[a-z0-9-]+: `)
	keepWord   = regexp.MustCompile(`^([A-Z0-9]+)=(\w+)$`)
)

func readRecorded(t *testing.T) []recorded {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "recorded.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	client, lines := "ts", []string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		name, isClient := strings.CutPrefix(line, "client ")
		switch {
		case len(lines) == 0 && (line == "" || strings.HasPrefix(line, "#")):
		case len(lines) == 0 && isClient:
			client = name
		case strings.HasPrefix(line, "=> "):
			all = append(all, parseRecorded(t, client, lines, strings.Fields(line)[1:]))
			lines = nil
		default:
			lines = append(lines, line)
		}
	}
	if len(lines) > 0 {
		t.Fatalf("%v: without an end", lines)
	}
	return all
}

func parseRecorded(t *testing.T, client string, lines, want []string) recorded {
	t.Helper()
	r := recorded{client: client, keep: map[string]string{}}
	r.method, r.path, _ = strings.Cut(lines[0], " ")
	lines = lines[1:]
	newline := "\n"
	for len(lines) > 0 && (lines[0] == "form" || headerLine.MatchString(lines[0])) {
		name, value, _ := strings.Cut(lines[0], ": ")
		if name == "form" {
			name, value = "content-type", "application/x-www-form-urlencoded"
		}
		if strings.HasPrefix(value, "multipart/form-data;") {
			newline = "\r\n"
		}
		r.headers, lines = append(r.headers, name, value), lines[1:]
	}
	r.body = strings.Join(lines, newline)
	if newline != "\n" {
		r.body += newline
	}
	for _, word := range want {
		m := keepWord.FindStringSubmatch(word)
		switch {
		case word == "later":
			r.later = true
		case m != nil:
			r.keep[m[1]] = m[2]
		case len(r.statuses) == 0:
			for code := range strings.SplitSeq(word, "|") {
				n, err := strconv.Atoi(code)
				if err != nil {
					t.Fatalf("%s %s: %v", r.method, r.path, err)
				}
				r.statuses = append(r.statuses, n)
			}
		default:
			r.shape = strings.TrimSpace(r.shape + " " + word)
		}
	}
	return r
}

// replay sends every request in order and keeps what later ones need.
func (s *server) replay(t *testing.T) {
	control, box := s.document(t, "/api/openapi.json"), s.document(t, "/api/toolbox-openapi.json")
	vars := map[string]string{"IMAGE": serveImage(s.T)}
	for _, r := range readRecorded(t) {
		path, body, absent := r.fill(vars)
		if absent != "" {
			t.Logf("%s %s: left out, because nothing gave %s", r.method, r.path, absent)
			continue
		}
		switch r.method {
		case "WS":
			s.replayStream(t, r, path, body)
			continue
		case "WAIT":
			s.replayWait(t, r, path)
			continue
		}
		a := s.call(t, r.method, path, body, append(clientHeaders(r.client), r.headers...)...)
		if r.judge(t, a) {
			plain, _, _ := strings.Cut(path, "?")
			if below, ok := strings.CutPrefix(plain, "/api"); ok && !control.described(t, r.method, below, a) {
				t.Errorf("%s %s: the server's document does not describe it", r.method, r.path)
			}
			if below, ok := strings.CutPrefix(plain, "/toolbox/"); ok {
				_, below, _ = strings.Cut(below, "/")
				if !box.described(t, r.method, "/"+below, a) {
					t.Errorf("%s %s: the toolbox's document does not describe it", r.method, r.path)
				}
			}
			for name, field := range r.keep {
				vars[name] = a.text(field)
			}
		}
	}
}

// fill puts variables in; absent names one that has no value.
func (r recorded) fill(vars map[string]string) (path, body, absent string) {
	put := func(text string) string {
		return regexp.MustCompile(`\{[A-Z0-9]+\}`).ReplaceAllStringFunc(text, func(name string) string {
			v, ok := vars[strings.Trim(name, "{}")]
			if !ok || v == "" {
				absent = name
			}
			return v
		})
	}
	path, body = put(r.path), put(r.body)
	for i, h := range r.headers {
		r.headers[i] = put(h)
	}
	return path, body, absent
}

// judge checks an answer and tells whether it is a success.
func (r recorded) judge(t *testing.T, a answer) bool {
	t.Helper()
	switch {
	case r.later && a.status != http.StatusNotImplemented:
		t.Errorf("%s: %s %s: got %d %.300s: it is there now, so change its block", r.client, r.method, r.path, a.status, a.body)
		return false
	case r.later:
		return false
	case !slices.Contains(r.statuses, a.status):
		t.Errorf("%s: %s %s %s: got %d %.400s, want %v", r.client, r.method, r.path, r.body, a.status, a.body, r.statuses)
		return false
	case a.status >= http.StatusBadRequest:
		return false
	}
	if r.shape != "" {
		if err := fit(decode(t, string(a.body)), r.shape, r.shape); err != nil {
			t.Errorf("%s: %s %s: %v in %.400s", r.client, r.method, r.path, err, a.body)
		}
	}
	return true
}

// replayWait polls as clients do, for a state or for a 404.
func (s *server) replayWait(t *testing.T, r recorded, path string) {
	until(t, r.path+" "+r.shape, func() bool {
		a := s.call(t, http.MethodGet, path, "", clientHeaders(r.client)...)
		return slices.Contains(r.statuses, a.status) && (r.shape == "" || a.text("state") == r.shape)
	})
}

// replayStream opens a WebSocket, sends the body and reads until the text comes.
func (s *server) replayStream(t *testing.T, r recorded, path, body string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	header, offered := http.Header{"Authorization": {"Bearer " + apiKey}}, []string{}
	for i := 0; i+1 < len(r.headers); i += 2 {
		offered = strings.Split(r.headers[i+1], ",")
	}
	pairs := clientHeaders(r.client)
	for i := 0; i+1 < len(pairs); i += 2 {
		header.Set(pairs[i], pairs[i+1])
	}
	c, _, err := websocket.Dial(ctx, "ws://"+s.addr+path, &websocket.DialOptions{HTTPHeader: header, Subprotocols: offered})
	if err != nil {
		t.Errorf("%s: %v", r.path, err)
		return
	}
	defer c.CloseNow()
	if len(offered) > 0 && !slices.Contains(offered, c.Subprotocol()) {
		t.Errorf("%s: chose the sub-protocol %q of %v", r.path, c.Subprotocol(), offered)
	}
	kind := websocket.MessageBinary
	if json.Valid([]byte(body)) {
		kind = websocket.MessageText
	}
	if body != "" {
		if err := c.Write(ctx, kind, []byte(body)); err != nil {
			t.Errorf("%s: %v", r.path, err)
		}
	}
	seen := ""
	for !strings.Contains(seen, r.shape) {
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Errorf("%s: %v after %q, want %q", r.path, err, seen, r.shape)
			return
		}
		seen += string(b)
	}
}
