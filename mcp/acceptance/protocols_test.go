package acceptance

import (
	"fmt"
	"net/http"
)

type obj = map[string]any

// Anthropic messages: Claude Code.

func anthropicResults(request obj) (all []string) {
	each(request["messages"], func(m obj) {
		each(m["content"], func(b obj) {
			if b["type"] == "tool_result" {
				all = append(all, texts(b["content"]))
			}
		})
	})
	return all
}

func answerAnthropic(w http.ResponseWriter, stream bool, step int, c *call) {
	block, stop := obj{"type": "text", "text": farewell}, "end_turn"
	delta := obj{"type": "text_delta", "text": farewell}
	start := obj{"type": "text", "text": ""}
	if c != nil {
		id := fmt.Sprintf("toolu_%d", step)
		block, stop = obj{"type": "tool_use", "id": id, "name": c.name, "input": c.args}, "tool_use"
		start = obj{"type": "tool_use", "id": id, "name": c.name, "input": obj{}}
		delta = obj{"type": "input_json_delta", "partial_json": c.json()}
	}
	usage := obj{"input_tokens": 1, "output_tokens": 1}
	message := obj{"id": fmt.Sprintf("msg_%d", step), "type": "message", "role": "assistant", "model": "mock", "content": []any{}, "stop_reason": nil, "stop_sequence": nil, "usage": usage}
	if !stream {
		message["content"], message["stop_reason"] = []any{block}, stop
		reply(w, message)
		return
	}
	events(w,
		obj{"type": "message_start", "message": message},
		obj{"type": "content_block_start", "index": 0, "content_block": start},
		obj{"type": "content_block_delta", "index": 0, "delta": delta},
		obj{"type": "content_block_stop", "index": 0},
		obj{"type": "message_delta", "delta": obj{"stop_reason": stop, "stop_sequence": nil}, "usage": obj{"output_tokens": 1}},
		obj{"type": "message_stop"})
}

// OpenAI chat completions: OpenCode, Copilot CLI.

func chatResults(request obj) (all []string) {
	each(request["messages"], func(m obj) {
		if m["role"] == "tool" {
			all = append(all, texts(m["content"]))
		}
	})
	return all
}

func answerChat(w http.ResponseWriter, stream bool, step int, c *call) {
	message, stop := obj{"role": "assistant", "content": farewell}, "stop"
	if c != nil {
		message = obj{"role": "assistant", "content": nil, "tool_calls": []any{obj{
			"index": 0, "id": fmt.Sprintf("call_%d", step), "type": "function",
			"function": obj{"name": c.name, "arguments": c.json()},
		}}}
		stop = "tool_calls"
	}
	whole := func(kind, key string, value obj, finish any) obj {
		return obj{
			"id": fmt.Sprintf("chat_%d", step), "object": kind, "created": 1, "model": "mock",
			"choices": []any{obj{"index": 0, key: value, "finish_reason": finish}},
			"usage":   obj{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
		}
	}
	if !stream {
		reply(w, whole("chat.completion", "message", message, stop))
		return
	}
	events(w, whole("chat.completion.chunk", "delta", message, nil), whole("chat.completion.chunk", "delta", obj{}, stop))
	fmt.Fprint(w, "data: [DONE]\n\n")
}

// OpenAI responses: Codex.

func responsesResults(request obj) (all []string) {
	each(request["input"], func(item obj) {
		if item["type"] == "function_call_output" {
			all = append(all, texts(item["output"]))
		}
	})
	return all
}

func answerResponses(w http.ResponseWriter, stream bool, step int, c *call) {
	item := obj{
		"type": "message", "id": fmt.Sprintf("item_%d", step), "role": "assistant", "status": "completed",
		"content": []any{obj{"type": "output_text", "text": farewell, "annotations": []any{}}},
	}
	if c != nil {
		item = obj{"type": "function_call", "id": fmt.Sprintf("fc_%d", step), "call_id": fmt.Sprintf("call_%d", step), "name": c.name, "arguments": c.json(), "status": "completed"}
		if c.namespace != "" {
			item["namespace"] = c.namespace
		}
	}
	done := obj{
		"id": fmt.Sprintf("resp_%d", step), "object": "response", "created_at": 1, "model": "mock", "status": "completed", "output": []any{item},
		"usage": obj{"input_tokens": 1, "input_tokens_details": obj{"cached_tokens": 0}, "output_tokens": 1, "output_tokens_details": obj{"reasoning_tokens": 0}, "total_tokens": 2},
	}
	if !stream {
		reply(w, done)
		return
	}
	events(w,
		obj{"type": "response.created", "response": obj{"id": done["id"]}},
		obj{"type": "response.output_item.done", "output_index": 0, "item": item},
		obj{"type": "response.completed", "response": done})
}

// Gemini.

func geminiResults(request obj) (all []string) {
	each(request["contents"], func(m obj) {
		each(m["parts"], func(p obj) {
			if f, ok := p["functionResponse"].(obj); ok {
				response, _ := f["response"].(obj)
				if s, ok := response["output"].(string); ok {
					all = append(all, s)
					return
				}
				all = append(all, texts(f["response"]))
			}
		})
	})
	return all
}

func answerGemini(w http.ResponseWriter, stream bool, _ int, c *call) {
	part := obj{"text": farewell}
	if c != nil {
		part = obj{"functionCall": obj{"name": c.name, "args": c.args}}
	}
	answer := obj{
		"candidates":    []any{obj{"content": obj{"role": "model", "parts": []any{part}}, "finishReason": "STOP", "index": 0}},
		"usageMetadata": obj{"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}, "modelVersion": "mock",
	}
	if !stream {
		reply(w, answer)
		return
	}
	events(w, answer)
}
