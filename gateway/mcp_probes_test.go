package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`

// What the network can send to /mcp, through all that the server puts before
// it: pages of other sites, names that are not ours, invented and others'
// sessions, bodies without end.
func TestAgentsOnTheNetwork(t *testing.T) {
	ids := provider{}
	w := newWorldWith(t, func(c *core.Config) { c.Identities = ids })
	h := w.house()
	mate := w.Key(t, h.principal, "mate", nil)
	owner, err := w.Accounts().Users.User(t.Context(), w.Admin(t), h.ownerID)
	if err != nil {
		t.Fatal(err)
	}
	token := ids.token("ann", owner.Email, "", time.Now().Add(time.Hour), engine.TokenWrite)
	session := func(key string) string {
		res, body := request(t, "POST", w.url+"/mcp", key, initialize, "Accept", "application/json, text/event-stream")
		if res.StatusCode != 200 {
			t.Fatalf("initialize: %d %s", res.StatusCode, body)
		}
		return res.Header.Get("Mcp-Session-Id")
	}
	mine, mates, strangers, tokens := session(h.owner), session(mate), session(w.stranger), session(token)
	const list = `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	for _, c := range []struct {
		name, method, body, key string
		headers                 []string
		want                    int
	}{
		{"nothing odd", "POST", initialize, h.owner, nil, 200},
		{"a foreign page", "POST", initialize, h.owner, []string{"Origin", "http://evil.example"}, 403},
		{"a page in a sandboxed frame", "POST", initialize, h.owner, []string{"Origin", "null"}, 403},
		{"a page of a like name", "POST", initialize, h.owner, []string{"Origin", "http://localhost.evil.example"}, 403},
		{"a page of this machine", "POST", initialize, h.owner, []string{"Origin", "http://localhost:6274"}, 200},
		{"a name that points here", "POST", initialize, h.owner, []string{"Host", "evil.example"}, 403},
		{"a name that points here, of a page", "POST", initialize, h.owner, []string{"Host", "evil.example", "Origin", "http://evil.example"}, 403},
		{"an invented session", "POST", list, h.owner, []string{"Mcp-Session-Id", "mcp-session-00000000-0000-4000-8000-000000000000"}, 404},
		{"a changed session", "POST", list, h.owner, []string{"Mcp-Session-Id", "A" + mine[1:]}, 404},
		{"another key's session, of the same user", "POST", list, h.owner, []string{"Mcp-Session-Id", mates}, 404},
		{"a stranger's session", "POST", list, h.owner, []string{"Mcp-Session-Id", strangers}, 404},
		{"a stranger's stream", "GET", "", h.owner, []string{"Mcp-Session-Id", strangers}, 404},
		{"a stranger's end", "DELETE", "", h.owner, []string{"Mcp-Session-Id", strangers}, 404},
		{"a token's session with a key", "POST", list, h.owner, []string{"Mcp-Session-Id", tokens}, 404},
		{"a key's session with a token", "POST", list, token, []string{"Mcp-Session-Id", mine}, 404},
		{"one's own", "POST", list, h.owner, []string{"Mcp-Session-Id", mine}, 200},
		{"a token's own", "POST", list, token, []string{"Mcp-Session-Id", tokens}, 200},
		{"the stranger's own, still", "POST", list, w.stranger, []string{"Mcp-Session-Id", strangers}, 200},
		{"a body that is too large", "POST", `{"x":"` + strings.Repeat("x", 17<<20) + `"}`, h.owner, nil, 413},
		{"no key", "POST", initialize, "", nil, 401},
		{"an invented key", "POST", initialize, "atl_nobody", nil, 401},
		{"an invented token", "POST", initialize, "eyx.y.z", nil, 401},
		{"a toolset that is none", "POST", list, h.owner, []string{"Mcp-Session-Id", mine, "X-MCP-Toolsets", "nonsense"}, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, w.url+"/mcp", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Accept", "application/json, text/event-stream")
			if c.key != "" {
				req.Header.Set("Authorization", "Bearer "+c.key)
			}
			for i := 0; i < len(c.headers); i += 2 {
				req.Header.Set(c.headers[i], c.headers[i+1])
				if c.headers[i] == "Host" {
					req.Host = c.headers[i+1]
				}
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != c.want {
				body, _ := io.ReadAll(res.Body)
				t.Errorf("got %d %s, want %d", res.StatusCode, body, c.want)
			}
		})
	}
}
