package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// answers are a client's answers to what a tool asked.
type answers = mcp.InputResponses

// dialog is a tool that asks the client before it answers. The modern era
// answers by repeating the call; for the older one mcp-go asks by itself.
type dialog struct {
	name   string
	schema string
	state  bool // sign what goes to the client and check what comes back
	// ask adds the questions of a round, from 1 on. It adds none when the
	// round before was answered in full.
	ask  func(b *server.InputRequestBuilder, round int, req mcp.CallToolRequest)
	done func(a answers) string
}

func inputs() []fixture {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	var all []fixture
	for _, d := range dialogs() {
		all = append(all, fixture{d.name, d.schema, d.handler(seal(key))})
	}
	return all
}

func (d dialog) handler(s seal) server.ToolHandlerFunc {
	return func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		round := 1
		if state := req.Params.RequestState; d.state && state != "" {
			var err error
			if round, err = s.open(d.name, state); err != nil {
				return nil, err
			}
		}
		for ; ; round++ {
			b := server.NewInputRequestBuilder("")
			d.ask(b, round, req)
			if d.state {
				b.RequestState(s.close(d.name, round))
			}
			r := b.ToolResult()
			if len(r.InputRequests) == 0 {
				return mcp.NewToolResultText(d.done(req.Params.InputResponses)), nil
			}
			if !answered(r.InputRequests, req.Params.InputResponses) {
				return r, nil
			}
		}
	}
}

// answered tells whether every question has an answer of the right shape.
func answered(asked mcp.InputRequests, got answers) bool {
	for id, q := range asked {
		ok := false
		switch q.Method {
		case mcp.MethodElicitationCreate:
			r := server.ElicitationResponse(got, id)
			ok = r != nil && r.Action != ""
		case mcp.MethodSamplingCreateMessage:
			ok = server.SamplingResponse(got, id) != nil
		default:
			ok = server.RootsResponse(got, id) != nil
		}
		if !ok {
			return false
		}
	}
	return true
}

// seal signs the round of a dialog, so that clients cannot skip any.
type seal []byte

func (s seal) close(name string, round int) string {
	m := hmac.New(sha256.New, s)
	fmt.Fprintf(m, "%s %d", name, round)
	return fmt.Sprintf("%d.%s", round, hex.EncodeToString(m.Sum(nil)))
}

func (s seal) open(name, state string) (round int, err error) {
	if _, err = fmt.Sscanf(state, "%d.", &round); err != nil || !hmac.Equal([]byte(state), []byte(s.close(name, round))) {
		return 0, errors.New("requestState was not made by this server, or has been changed")
	}
	return round, nil
}

// form is the schema of an object whose properties all have to be given.
func form(properties map[string]any) map[string]any {
	var required []string
	for name := range properties {
		required = append(required, name)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

func field(name, kind string) map[string]any {
	return form(map[string]any{name: map[string]any{"type": kind}})
}

func elicit(id, message string, schema any) func(*server.InputRequestBuilder, int, mcp.CallToolRequest) {
	return func(b *server.InputRequestBuilder, round int, _ mcp.CallToolRequest) {
		if round == 1 {
			b.Elicit(id, mcp.ElicitationParams{Message: message, RequestedSchema: schema})
		}
	}
}

func sample(b *server.InputRequestBuilder, id, prompt string, most int) {
	b.Sample(id, mcp.CreateMessageParams{
		Messages:  []mcp.SamplingMessage{{Role: mcp.RoleUser, Content: mcp.NewTextContent(prompt)}},
		MaxTokens: most,
	})
}

func always(text string) func(answers) string { return func(answers) string { return text } }

// outcome tells how the elicitation id went.
func outcome(before, id string) func(answers) string {
	return func(a answers) string {
		r := server.ElicitationResponse(a, id)
		content, _ := json.Marshal(r.Content)
		return fmt.Sprintf("%s: action=%s, content=%s", before, r.Action, content)
	}
}

// sampled is the model's text.
func sampled(before, id string) func(answers) string {
	return func(a answers) string {
		text := ""
		switch c := server.SamplingResponse(a, id).Content.(type) {
		case mcp.TextContent:
			text = c.Text
		case map[string]any:
			text, _ = c["text"].(string)
		}
		return before + text
	}
}

func dialogs() []dialog {
	return []dialog{
		{
			name: "test_sampling", schema: `{"type":"object","properties":{"prompt":{"type":"string"}},"required":["prompt"]}`,
			ask: func(b *server.InputRequestBuilder, round int, req mcp.CallToolRequest) {
				if round == 1 {
					sample(b, "answer", req.GetString("prompt", ""), 100)
				}
			},
			done: sampled("LLM response: ", "answer"),
		},
		{
			name: "test_elicitation", schema: `{"type":"object","properties":{"message":{"type":"string"}},"required":["message"]}`,
			ask: func(b *server.InputRequestBuilder, round int, req mcp.CallToolRequest) {
				text := func(what string) map[string]any { return map[string]any{"type": "string", "description": what} }
				elicit("user", req.GetString("message", ""), form(map[string]any{"username": text("User's response"), "email": text("User's email address")}))(b, round, req)
			},
			done: outcome("User response", "user"),
		},
		{name: "test_elicitation_sep1034_defaults", ask: elicit("form", "Check the defaults", withDefaults()), done: outcome("Elicitation completed", "form")},
		{name: "test_elicitation_sep1330_enums", ask: elicit("form", "Choose", withChoices()), done: outcome("Elicitation completed", "form")},
		{name: "test_streaming_elicitation", ask: elicit("user_name", "What is your name?", field("name", "string")), done: outcome("Done", "user_name")},
		{
			name: "test_input_required_result_elicitation", ask: elicit("user_name", "What is your name?", field("name", "string")),
			done: func(a answers) string {
				content, _ := server.ElicitationResponse(a, "user_name").Content.(map[string]any)
				return fmt.Sprintf("Hello, %v!", content["name"])
			},
		},
		{
			name: "test_input_required_result_sampling",
			ask: func(b *server.InputRequestBuilder, round int, _ mcp.CallToolRequest) {
				if round == 1 {
					sample(b, "capital_question", "What is the capital of France?", 100)
				}
			},
			done: sampled("", "capital_question"),
		},
		{
			name: "test_input_required_result_list_roots",
			ask: func(b *server.InputRequestBuilder, round int, _ mcp.CallToolRequest) {
				if round == 1 {
					b.Roots("client_roots")
				}
			},
			done: func(a answers) string {
				var uris []string
				for _, r := range server.RootsResponse(a, "client_roots").Roots {
					uris = append(uris, r.URI)
				}
				return "Roots: " + strings.Join(uris, ", ")
			},
		},
		{name: "test_input_required_result_request_state", state: true, ask: elicit("confirm", "Please confirm", field("ok", "boolean")), done: always("state-ok")},
		{name: "test_input_required_result_tampered_state", state: true, ask: elicit("confirm", "Please confirm", field("ok", "boolean")), done: always("state-ok")},
		{
			name: "test_input_required_result_multiple_inputs", state: true,
			ask: func(b *server.InputRequestBuilder, round int, req mcp.CallToolRequest) {
				if round == 1 {
					elicit("user_name", "What is your name?", field("name", "string"))(b, round, req)
					sample(b, "greeting", "Generate a greeting", 50)
					b.Roots("client_roots")
				}
			},
			done: always("All three arrived."),
		},
		{
			name: "test_input_required_result_multi_round", state: true,
			ask: func(b *server.InputRequestBuilder, round int, _ mcp.CallToolRequest) {
				switch round {
				case 1:
					b.Elicit("step1", mcp.ElicitationParams{Message: "Step 1: What is your name?", RequestedSchema: field("name", "string")})
				case 2:
					b.Elicit("step2", mcp.ElicitationParams{Message: "Step 2: What is your favorite color?", RequestedSchema: field("color", "string")})
				}
			},
			done: always("Both steps are done."),
		},
		{name: "test_input_required_result_capabilities", ask: askWhatItCan, done: always("Done.")},
	}
}

// askWhatItCan asks only what the client has declared to answer.
func askWhatItCan(b *server.InputRequestBuilder, round int, req mcp.CallToolRequest) {
	can := req.Params.Meta.ClientCapabilities()
	if can == nil || round > 1 {
		return
	}
	if can.Elicitation != nil {
		b.Elicit("user_name", mcp.ElicitationParams{Message: "What is your name?", RequestedSchema: field("name", "string")})
	}
	if can.Sampling != nil {
		sample(b, "greeting", "Generate a greeting", 50)
	}
	if can.Roots != nil {
		b.Roots("client_roots")
	}
}

func withDefaults() map[string]any {
	return map[string]any{"type": "object", "properties": map[string]any{
		"name":     map[string]any{"type": "string", "default": "John Doe"},
		"age":      map[string]any{"type": "integer", "default": 30},
		"score":    map[string]any{"type": "number", "default": 95.5},
		"status":   map[string]any{"type": "string", "enum": []string{"active", "inactive", "pending"}, "default": "active"},
		"verified": map[string]any{"type": "boolean", "default": true},
	}}
}

func withChoices() map[string]any {
	plain := []string{"option1", "option2", "option3"}
	titled := []map[string]any{
		{"const": "value1", "title": "First"}, {"const": "value2", "title": "Second"}, {"const": "value3", "title": "Third"},
	}
	return map[string]any{"type": "object", "properties": map[string]any{
		"untitledSingle": map[string]any{"type": "string", "enum": plain},
		"titledSingle":   map[string]any{"type": "string", "oneOf": titled},
		"legacyEnum":     map[string]any{"type": "string", "enum": []string{"opt1", "opt2", "opt3"}, "enumNames": []string{"Option One", "Option Two", "Option Three"}},
		"untitledMulti":  map[string]any{"type": "array", "items": map[string]any{"type": "string", "enum": plain}},
		"titledMulti":    map[string]any{"type": "array", "items": map[string]any{"anyOf": titled}},
	}}
}

func promptWithInput(ctx context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	r := server.ElicitationResponse(req.Params.InputResponses, "user_context")
	if r == nil || r.Action == "" {
		return server.NewInputRequestBuilder("").Elicit("user_context", mcp.ElicitationParams{
			Message: "What context should the prompt use?", RequestedSchema: field("context", "string"),
		}).PromptResult(), nil
	}
	content, _ := r.Content.(map[string]any)
	return fixedPrompt(mcp.NewTextContent(fmt.Sprintf("Context: %v", content["context"])))(ctx, req)
}

// needsSampling refuses calls of test_missing_capability by modern clients that
// cannot sample. A handler cannot: neither the status nor the code is its own.
func needsSampling(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "the body could not be read", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var m struct {
			ID     json.RawMessage
			Method string
			Params struct {
				Name string
				Meta *mcp.Meta `json:"_meta"`
			}
		}
		_ = json.Unmarshal(body, &m)
		if m.Method != string(mcp.MethodToolsCall) || m.Params.Name != "test_missing_capability" || !mcp.IsModernProtocol(m.Params.Meta.ProtocolVersion()) {
			next.ServeHTTP(w, r)
			return
		}
		if can := m.Params.Meta.ClientCapabilities(); can == nil || can.Sampling != nil {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": m.ID, "error": map[string]any{
			"code": mcp.MISSING_REQUIRED_CLIENT_CAPABILITY, "message": "the client cannot sample",
			"data": map[string]any{"requiredCapabilities": map[string]any{"sampling": map[string]any{}}},
		}})
	})
}
