package mcp

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// What a key, a request and the server leave is what all of them leave.
func TestScopesMeet(t *testing.T) {
	named := func(name, set string, readOnly bool) tools.Tool {
		return tools.Tool{Name: name, Set: set, Schema: noArgs, Hints: tools.Hints{ReadOnly: readOnly}, Handler: func(context.Context, tools.Args) (tools.Result, error) {
			return tools.Text("ran"), nil
		}}
	}
	list := []tools.Tool{named("look", tools.SetCore, true), named("change", tools.SetCore, false), named("told", tools.SetActivity, true)}
	all := []string{"change", "look", "told"}
	for what, c := range map[string]struct {
		key    engine.Scope
		header http.Header
		opt    Options
		want   []string
	}{
		"nothing":                         {want: []string{"change", "look"}},
		"all":                             {header: http.Header{"X-Mcp-Toolsets": {"all"}}, want: all},
		"a key that reads":                {key: engine.Scope{ReadOnly: true}, want: []string{"look"}},
		"a key for one tool":              {key: engine.Scope{Tools: []string{"change"}}, want: []string{"change"}},
		"a key for another set":           {key: engine.Scope{Tools: []string{tools.SetActivity}}, want: []string{"told"}},
		"a key for a set, core asked for": {key: engine.Scope{Tools: []string{tools.SetActivity}}, header: http.Header{"X-Mcp-Toolsets": {"core"}}},
		"a key for a tool, all asked for": {key: engine.Scope{Tools: []string{"change"}}, header: http.Header{"X-Mcp-Toolsets": {"all"}}, want: []string{"change"}},
		"a key for a tool, reading":       {key: engine.Scope{Tools: []string{"change", "told"}}, header: http.Header{"X-Mcp-Readonly": {"1"}}, want: []string{"told"}},
		"a key for a tool, server reads":  {key: engine.Scope{Tools: []string{"change", "told"}}, opt: Options{ReadOnly: true}, want: []string{"told"}},
		"a server of one set":             {key: engine.Scope{Tools: []string{"change", "told"}}, opt: Options{Sets: []string{tools.SetCore}}, want: []string{"change"}},
	} {
		t.Run(what, func(t *testing.T) {
			_, web := openAs(t, list, c.opt, c.key)
			a := newAgent(t, web.URL+"/mcp", "org", modern)
			res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, c.header)
			var got []string
			for _, tool := range decode(t, res).Result.Tools {
				got = append(got, tool.Name)
			}
			res.Body.Close()
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("listed (-want +got):\n%s", d)
			}
			for _, name := range all {
				h := http.Header{"Mcp-Name": {name}}
				for k, v := range c.header {
					h[k] = v
				}
				res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": map[string]any{"name": name}}, h)
				ran := decode(t, res).text() == "ran"
				res.Body.Close()
				want := false
				for _, w := range c.want {
					want = want || w == name
				}
				if ran != want {
					t.Errorf("%s: ran %v", name, ran)
				}
			}
		})
	}
}

// On stdio the key that calls go out with says what the agent is offered.
func TestStdioKeepsToTheKey(t *testing.T) {
	s, err := newServer(testTools(), Options{LocalScope: func(context.Context) engine.Scope { return engine.Scope{Tools: []string{"sleep"}} }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out strings.Builder
	in := `{"jsonrpc":"2.0","id":1,"method":"tools/list"}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"count","arguments":{}}}` + "\n"
	if err := s.ServeStdio(t.Context(), strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, `"name":"sleep"`) || strings.Contains(got, `"name":"count"`) || !strings.Contains(got, "-32602") {
		t.Errorf("got %s", got)
	}
}
