package auth

import (
	"net/http"
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
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api"), "/toolbox/")
	_, path, _ = strings.Cut(path, "/") // the sandbox
	path = "/" + strings.TrimPrefix(strings.TrimPrefix(path, "/"), "toolbox/")
	reads := ToolboxPermission(r) == ""
	t := policies.ToolRequest{Tool: r.Method + " /toolbox" + path, Changes: !reads, Also: ToolsExec()}
	switch {
	case strings.HasPrefix(path, "/files") && reads:
		t.Also = []string{"sandbox_read", "sandbox_find"}
	case strings.HasPrefix(path, "/files"):
		t.Also = []string{"sandbox_write", "sandbox_edit", "sandbox_fs"}
	case strings.HasPrefix(path, "/proxy"), strings.HasPrefix(path, "/port"), path == "/internal/tunnel":
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
