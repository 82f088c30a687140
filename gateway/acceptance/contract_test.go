package acceptance

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestContract holds a real server with a real sandbox against the contract.
func TestContract(t *testing.T) {
	s := start(t)
	sb := s.create(t, `{"name":"contract"}`)
	t.Run("routes", func(t *testing.T) { s.routes(t, sb) })
	t.Run("errors", func(t *testing.T) { s.errors(t, sb) })
	t.Run("documents", s.documents)
	t.Run("page of documents", s.docs)
	t.Run("recorded requests", func(t *testing.T) { s.replay(t) })
}

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends one request with the key; headers are pairs and replace ours. An
// empty value removes a header.
func (s *server) call(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: b}
}

// object is the body, nil when it is no JSON object.
func (a answer) object() map[string]any {
	var o map[string]any
	_ = json.Unmarshal(a.body, &o)
	return o
}

func (a answer) text(field string) string {
	s, _ := a.object()[field].(string)
	return s
}

func (a answer) message() string { return a.text("message") }

// create makes a sandbox and returns its id.
func (s *server) create(t *testing.T, body string) string {
	t.Helper()
	a := s.call(t, http.MethodPost, "/api/sandbox", body)
	if a.status != http.StatusOK || a.text("state") != "started" {
		t.Fatalf("create: %d %s", a.status, a.body)
	}
	return a.text("id")
}

// until waits for what comes true soon.
func until(t *testing.T, what string, test func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !test(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after a minute", what)
		}
	}
}
