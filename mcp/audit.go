package mcp

import (
	"context"
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// audit tells of a call of a tool that changes something, in the words of the
// audit log.
func (s *Server) audit(ctx context.Context, t tools.Tool, values any, res tools.Result) {
	if s.opt.Audit == nil || t.Hints.ReadOnly {
		return
	}
	args, _ := values.(map[string]any)
	e := engine.AuditEntry{
		Action: action(t.Name, args), TargetType: "sandbox", TargetID: res.Sandbox, Status: http.StatusOK,
		Metadata: map[string]string{"tool": t.Name},
	}
	if res.IsError {
		e.Status = http.StatusBadRequest
		e.Error, _, _ = strings.Cut(res.Text, "\n")
	}
	if e.TargetID == "" {
		e.TargetID, _ = args["id"].(string)
	}
	if t.Name == "snapshot_delete" {
		e.TargetType = "snapshot"
		e.TargetID, _ = args["name"].(string)
	}
	s.opt.Audit(ctx, e.Actor(principalOf(ctx)))
}

func action(tool string, args map[string]any) string {
	switch tool {
	case "sandbox_create", "create_sandbox":
		return "create"
	case "sandbox_delete", "destroy_sandbox", "snapshot_delete":
		return "delete"
	case "sandbox_snapshot":
		if args["fork"] != nil {
			return "fork"
		}
		return "snapshot"
	case "sandbox_control":
		switch name, _ := args["action"].(string); name {
		case "start", "stop", "pause", "archive":
			return name
		case "resume":
			return "start"
		}
	}
	return "update"
}
