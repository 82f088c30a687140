package mcp

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
	"github.com/atoll-sh/atoll/policies"
)

// Tools that the policy of a key denies are not listed, and say by which rule
// when they are called all the same.
func TestToolsOfABoundKey(t *testing.T) {
	b := mcptest.New(t)
	s, err := newServer(tools.New(b.Services(), tools.Options{}).Tools(), Options{Principal: func(r *http.Request) (engine.Principal, bool) {
		return engine.Principal{
			OrganizationID: "org", KeyID: "k", Permissions: engine.Permissions(), Policy: "agent",
			Tools: &policies.Tools{Allow: []string{"sandbox_*"}, Deny: []string{"sandbox_delete", "sandbox_expose"}},
		}, true
	}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	defer web.Close()
	defer s.Close()
	for _, era := range []string{legacy, modern} {
		a := newAgent(t, web.URL+"/mcp", "key", era)
		names := map[string]bool{}
		for _, tool := range a.request("tools/list", nil).Result.Tools {
			names[tool.Name] = true
		}
		if !names["sandbox_create"] || names["sandbox_delete"] || names["sandbox_expose"] {
			t.Errorf("%s: listed %v", era, names)
		}
		if got := a.call("sandbox_create", map[string]any{"name": "box-" + era, "policy": "build"}, nil); got.Result.IsError || !strings.Contains(got.text(), "under policy build") {
			t.Errorf("%s: got %s", era, got.text())
		}
		got := a.call("sandbox_delete", map[string]any{"id": "box-" + era}, nil)
		if !got.Result.IsError || !strings.Contains(got.text(), "tools/deny of policy agent") {
			t.Errorf("%s: got %+v", era, got)
		}
	}
}
