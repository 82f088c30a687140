package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/mcp/reqstream"
	"github.com/atoll-sh/atoll/mcp/tasks"
)

const version = "1.0.0"

// The smallest PNG and WAV there are.
const (
	pixel   = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
	silence = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
)

// fixture is one tool that the suite calls by name.
type fixture struct {
	name   string
	schema string // empty: no arguments
	call   server.ToolHandlerFunc
}

// newFixtures returns a server with everything the suite may ask for. What the
// tools answer, and the names, are given by the suite.
func newFixtures(log *slog.Logger) *server.MCPServer {
	s := server.NewMCPServer("atoll-conformance", version,
		server.WithToolCapabilities(true),
		server.WithResourceCapabilities(true, true),
		server.WithPromptCapabilities(true),
		server.WithCompletions(),
		server.WithPromptCompletionProvider(completions{}),
		server.WithLogging(),
		server.WithElicitation(),
		server.WithExtensions(map[string]any{tasks.Extension: map[string]any{}}),
		server.WithCacheHints(60_000, mcp.CacheScopePrivate),
		server.WithLogger(log),
	)
	s.EnableSampling()
	for _, f := range concat(contents(), notifications(), schemas(), changes(s), inputs(), longWork()) {
		if f.schema == "" {
			f.schema = `{"type":"object"}`
		}
		s.AddTool(mcp.NewToolWithRawSchema(f.name, "A fixture of the conformance suite", []byte(f.schema)), f.call)
	}
	addResources(s)
	addPrompts(s)
	return s
}

func concat(lists ...[]fixture) (all []fixture) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// says makes a tool that always answers the same.
func says(name string, content ...mcp.Content) fixture {
	return fixture{name: name, call: func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: content}, nil
	}}
}

func contents() []fixture {
	return []fixture{
		says("test_simple_text", mcp.NewTextContent("This is a simple text response for testing.")),
		says("test_image_content", mcp.NewImageContent(pixel, "image/png")),
		says("test_audio_content", mcp.NewAudioContent(silence, "audio/wav")),
		says("test_embedded_resource", embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")),
		says("test_multiple_content_types",
			mcp.NewTextContent("Multiple content types test:"),
			mcp.NewImageContent(pixel, "image/png"),
			embedded("test://mixed-content-resource", "application/json", `{"test":"data","value":123}`)),
		{name: "test_error_handling", call: func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return mcp.NewToolResultError("This tool intentionally returns an error for testing"), nil
		}},
		says("test_missing_capability", mcp.NewTextContent("The client can sample.")), // see needsSampling
	}
}

func embedded(uri, mime, text string) mcp.Content {
	return mcp.NewEmbeddedResource(mcp.TextResourceContents{URI: uri, MIMEType: mime, Text: text})
}

func notifications() []fixture {
	return []fixture{
		{name: "test_tool_with_logging", call: logging},
		{name: "test_logging_tool", call: logging},
		{name: "test_tool_with_progress", call: func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			for _, done := range []int{0, 50, 100} {
				if m := req.Params.Meta; m != nil && m.ProgressToken != nil {
					if _, err := reqstream.Notify(ctx, string(mcp.MethodNotificationProgress),
						map[string]any{"progressToken": m.ProgressToken, "progress": done, "total": 100}); err != nil {
						return nil, err
					}
				}
				time.Sleep(50 * time.Millisecond)
			}
			return mcp.NewToolResultText("Done."), nil
		}},
	}
}

// logging sends three messages. The modern era wants none unless the request
// names a level.
func logging(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	silent := mcp.IsModernProtocol(server.RequestProtocolVersion(ctx)) && req.Params.Meta.LogLevel() == ""
	for _, text := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
		if !silent {
			if _, err := reqstream.Notify(ctx, "notifications/message",
				map[string]any{"level": "info", "logger": "fixtures", "data": text}); err != nil {
				return nil, err
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return mcp.NewToolResultText("Done."), nil
}

func schemas() []fixture {
	dialect := says("json_schema_2020_12_tool", mcp.NewTextContent("Done."))
	dialect.schema = `{
		"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
		"$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
		"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
		"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],
		"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},
		"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}`
	headers := says("test_headers", mcp.NewTextContent("Done."))
	headers.schema = `{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}},"required":["region"]}`
	return []fixture{dialect, headers}
}

// changes are tools that change the lists while somebody listens.
func changes(s *server.MCPServer) []fixture {
	extra := says("test_extra", mcp.NewTextContent("Done."))
	return []fixture{
		{name: "test_trigger_tool_change", call: func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			s.AddTool(mcp.NewToolWithRawSchema(extra.name, "Comes and goes", []byte(`{"type":"object"}`)), extra.call)
			s.DeleteTools(extra.name)
			return mcp.NewToolResultText("Changed."), nil
		}},
		{name: "test_trigger_prompt_change", call: func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			s.AddPrompt(newPrompt("test_extra"), fixedPrompt(mcp.NewTextContent("Hello.")))
			s.DeletePrompts("test_extra")
			return mcp.NewToolResultText("Changed."), nil
		}},
	}
}

func addResources(s *server.MCPServer) {
	for _, r := range []mcp.ResourceContents{
		mcp.TextResourceContents{URI: "test://static-text", MIMEType: "text/plain", Text: "This is the content of the static text resource."},
		mcp.BlobResourceContents{URI: "test://static-binary", MIMEType: "image/png", Blob: pixel},
		mcp.TextResourceContents{URI: "test://watched-resource", MIMEType: "text/plain", Text: "Watch me."},
	} {
		uri, mime := "", ""
		switch r := r.(type) {
		case mcp.TextResourceContents:
			uri, mime = r.URI, r.MIMEType
		case mcp.BlobResourceContents:
			uri, mime = r.URI, r.MIMEType
		}
		s.AddResource(mcp.NewResource(uri, strings.TrimPrefix(uri, "test://"), mcp.WithMIMEType(mime)),
			func(context.Context, mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
				return []mcp.ResourceContents{r}, nil
			})
	}
	s.AddResourceTemplate(mcp.NewResourceTemplate("test://template/{id}/data", "template", mcp.WithTemplateMIMEType("application/json")),
		func(_ context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			id := strings.TrimSuffix(strings.TrimPrefix(req.Params.URI, "test://template/"), "/data")
			return []mcp.ResourceContents{mcp.TextResourceContents{
				URI: req.Params.URI, MIMEType: "application/json",
				Text: fmt.Sprintf(`{"id":%q,"templateTest":true,"data":%q}`, id, "Data for ID: "+id),
			}}, nil
		})
}

func addPrompts(s *server.MCPServer) {
	s.AddPrompt(newPrompt("test_simple_prompt"), fixedPrompt(mcp.NewTextContent("This is a simple prompt for testing.")))
	s.AddPrompt(newPrompt("test_prompt_with_image"), fixedPrompt(mcp.NewImageContent(pixel, "image/png"), mcp.NewTextContent("Please analyze the image above.")))
	s.AddPrompt(newPrompt("test_prompt_with_arguments",
		mcp.WithArgument("arg1", mcp.RequiredArgument()), mcp.WithArgument("arg2", mcp.RequiredArgument())),
		func(ctx context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			a := req.Params.Arguments
			return fixedPrompt(mcp.NewTextContent(fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", a["arg1"], a["arg2"])))(ctx, req)
		})
	s.AddPrompt(newPrompt("test_prompt_with_embedded_resource", mcp.WithArgument("resourceUri", mcp.RequiredArgument())),
		func(ctx context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return fixedPrompt(embedded(req.Params.Arguments["resourceUri"], "text/plain", "Embedded resource content for testing."),
				mcp.NewTextContent("Please process the embedded resource above."))(ctx, req)
		})
	s.AddPrompt(newPrompt("test_input_required_result_prompt"), promptWithInput)
}

func newPrompt(name string, opts ...mcp.PromptOption) mcp.Prompt {
	return mcp.NewPrompt(name, append(opts, mcp.WithPromptDescription("A fixture of the conformance suite"))...)
}

func fixedPrompt(content ...mcp.Content) server.PromptHandlerFunc {
	return func(context.Context, mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		var r mcp.GetPromptResult
		for _, c := range content {
			r.Messages = append(r.Messages, mcp.PromptMessage{Role: mcp.RoleUser, Content: c})
		}
		return &r, nil
	}
}

// completions completes arguments with names of cities.
type completions struct{}

func (completions) CompletePromptArgument(_ context.Context, _ string, a mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	c := &mcp.Completion{Values: []string{}}
	for _, city := range []string{"paris", "park", "party"} {
		if strings.HasPrefix(city, a.Value) {
			c.Values = append(c.Values, city)
		}
	}
	c.Total = len(c.Values)
	return c, nil
}
