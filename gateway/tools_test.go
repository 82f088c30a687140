package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// The tools that operations come to are tools of MCP, and what changes or
// enters sandboxes comes to one, so that a policy that denies the tool denies
// the operation.
func TestOperationsInWordsOfTools(t *testing.T) {
	var names []string
	for _, tool := range tools.New(tools.Backend{}, tools.Options{}).Tools() {
		names = append(names, tool.Name)
	}
	apart := strings.Fields("resize labels public network-settings secrets policy learn") // no tool does these
	for _, o := range append(api.Operations(), api.Extensions()...) {
		q := api.ToolRequest(o)
		if q.Tool != o.Key() || q.Changes != (o.Method != "GET") {
			t.Errorf("%s: got %+v", o.Key(), q)
		}
		for _, name := range q.Also {
			if !slices.Contains(names, name) {
				t.Errorf("%s comes to %s, which is no tool", o.Key(), name)
			}
		}
		rest, sandbox := strings.CutPrefix(o.Path, "/sandbox/{sandboxIdOrName}/")
		what, _, _ := strings.Cut(rest, "/")
		if sandbox && q.Changes && len(q.Also) == 0 && !slices.Contains(apart, what) {
			t.Errorf("%s changes a sandbox and comes to no tool", o.Key())
		}
	}
	for _, name := range append(auth.ToolsExec(), auth.ToolExpose) {
		if !slices.Contains(names, name) {
			t.Errorf("%s is no tool", name)
		}
	}
}
