package mcp

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// audit tells of a call of a tool, in the words of the audit log: who called
// what with which sandbox, how it ended and how long it took.
func (s *Server) audit(ctx context.Context, t tools.Tool, values any, res tools.Result, took time.Duration) {
	if s.opt.Audit == nil {
		return
	}
	args, _ := values.(map[string]any)
	e := engine.AuditEntry{
		Action: action(t, args), TargetType: "sandbox", TargetID: res.Sandbox, Status: http.StatusOK,
		Metadata: map[string]string{"tool": t.Name, "ms": strconv.FormatInt(took.Milliseconds(), 10)},
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

// limitOf names the rate limit that a call counts towards beside that for all
// requests, in the words of the contract; empty: none.
func limitOf(t tools.Tool, values any) string {
	args, _ := values.(map[string]any)
	switch action(t, args) {
	case "create", "fork":
		return "sandbox-create"
	case "start", "stop", "pause", "archive", "delete", "snapshot":
		return "sandbox-lifecycle"
	}
	return ""
}

func action(t tools.Tool, args map[string]any) string {
	if t.Hints.ReadOnly {
		return "read"
	}
	switch t.Name {
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
