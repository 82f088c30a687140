package api

import (
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/policies"
)

// ToolRequest is an operation in the words of a policy's tools: its method and
// path, and the tools of MCP that come to the same.
func ToolRequest(o Operation) policies.ToolRequest {
	return policies.ToolRequest{Tool: o.Key(), Also: toolsLike(o), Changes: o.Method != http.MethodGet}
}

// toolsLike names the tools that do what an operation does.
func toolsLike(o Operation) []string {
	switch o.Key() {
	case "POST /sandbox":
		return []string{"sandbox_create"}
	case "GET /sandbox", "GET /sandbox/paginated", "GET /sandbox/{sandboxIdOrName}", "GET /sandbox/{sandboxIdOrName}/stats":
		return []string{"sandbox_list"}
	case "DELETE /sandbox/{sandboxIdOrName}":
		return []string{"sandbox_delete"}
	case "POST /snapshots", "DELETE /snapshots/{id}", "GET /snapshots", "GET /snapshots/{id}":
		return []string{"sandbox_snapshot"}
	case "POST /sandbox/{sandboxId}/last-activity":
		return []string{"sandbox_control"}
	}
	rest, ok := strings.CutPrefix(o.Path, "/sandbox/{sandboxIdOrName}/")
	if !ok {
		return nil
	}
	what, _, _ := strings.Cut(rest, "/")
	switch what {
	case "start", "stop", "pause", "archive", "recover", "autostop", "autopause", "autoarchive", "autodelete", "ttl":
		return []string{"sandbox_control"}
	case "snapshot", "fork", "backup":
		return []string{"sandbox_snapshot"}
	case "ports":
		return []string{auth.ToolExpose}
	case "ssh-access":
		return auth.ToolsExec()
	case "activity":
		return []string{"sandbox_activity"}
	}
	return nil
}
