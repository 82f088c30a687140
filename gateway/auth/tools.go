package auth

import (
	"net/http"
	"path"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// ToolExpose is the tool that opens a port of a sandbox.
const ToolExpose = "sandbox_expose"

// ToolsExec are the tools that run programs in a sandbox.
func ToolsExec() []string { return []string{"sandbox_exec", "sandbox_process"} }

// toolboxTool is a request to a toolbox in the words of a policy's tools.
func toolboxTool(r *http.Request) policies.ToolRequest {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api"), "/toolbox/")
	_, rest, _ = strings.Cut(rest, "/") // the sandbox
	rest = strings.TrimPrefix(path.Clean("/"+rest), "/toolbox")
	reads := ToolboxPermission(r) == ""
	t := policies.ToolRequest{Tool: r.Method + " /toolbox" + rest, Changes: !reads, Also: ToolsExec()}
	first, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	switch {
	case first == "files" && reads:
		t.Also = []string{"sandbox_read", "sandbox_find"}
	case first == "files":
		t.Also = []string{"sandbox_write", "sandbox_edit", "sandbox_fs"}
	case first == "proxy", first == "port", rest == "/internal/tunnel":
		t.Also = []string{ToolExpose}
	}
	return t
}

// PermitPort tells whether p may make a request to a service in a sandbox.
func PermitPort(p engine.Principal, sandbox engine.Sandbox, r *http.Request) error {
	if err := Permit(p, ToolboxPermission(r)); err != nil {
		return err
	}
	if err := engine.Reaches(p, sandbox); err != nil {
		return err
	}
	return engine.AuthorizeTool(p, policies.ToolRequest{Tool: r.Method + " /preview", Also: []string{ToolExpose}, Changes: ToolboxPermission(r) != ""})
}
