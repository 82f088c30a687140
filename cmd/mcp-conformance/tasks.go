package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// taskGrace is how long a fixture may take before it becomes a task.
const taskGrace = 200 * time.Millisecond

// needsTask tells of the fixture that cannot be called without tasks.
func needsTask(tool string) bool { return tool == "failing_job" }

// longWork is tools that take long, or ask and then take long.
func longWork() []fixture {
	filename := dialog{
		name: "confirm_delete", schema: `{"type":"object","properties":{"filename":{"type":"string"}}}`,
		ask: elicit("confirm", "Delete the file?", field("confirm", "boolean")), done: always("Deleted."),
	}
	two := dialog{
		name: "multi_input",
		ask: func(b *server.InputRequestBuilder, round int, req mcp.CallToolRequest) {
			elicit("first", "What is your name?", field("name", "string"))(b, round, req)
			elicit("second", "Are you sure?", field("confirm", "boolean"))(b, round, req)
		},
		done: always("Both answers are here."),
	}
	escalates := dialog{
		name: "test_tool_with_task", ask: elicit("user_name", "What is your name?", field("name", "string")),
		done: func(a answers) string {
			content, _ := server.ElicitationResponse(a, "user_name").Content.(map[string]any)
			return fmt.Sprintf("Worked for %v.", content["name"])
		},
	}
	return []fixture{
		{"greet", `{"type":"object","properties":{"name":{"type":"string"}}}`, func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return mcp.NewToolResultText(fmt.Sprintf("Hello, %s!", req.GetString("name", ""))), nil
		}},
		{"slow_compute", `{"type":"object","properties":{"seconds":{"type":"number"},"label":{"type":"string"}}}`, func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if err := rest(ctx, time.Duration(req.GetFloat("seconds", 0)*float64(time.Second))); err != nil {
				return nil, err
			}
			return mcp.NewToolResultText("Computed " + req.GetString("label", "") + "."), nil
		}},
		{"failing_job", "", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return mcp.NewToolResultError("The job failed."), rest(ctx, time.Second)
		}},
		{"protocol_error_job", "", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return nil, errors.Join(rest(ctx, time.Second), errors.New("the job broke"))
		}},
		{filename.name, filename.schema, slowly(filename.handler(nil), true)},
		{two.name, two.schema, slowly(two.handler(nil), true)},
		{escalates.name, escalates.schema, slowly(escalates.handler(nil), false)},
	}
}

// slowly takes longer than taskGrace: before it asks, or once it has answers.
func slowly(call server.ToolHandlerFunc, first bool) server.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if first == (len(req.Params.InputResponses) == 0) {
			if err := rest(ctx, 3*taskGrace); err != nil {
				return nil, err
			}
		}
		return call(ctx, req)
	}
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
