package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// model stands in for a language model: it speaks the four protocols that
// agents use and follows a plan, one tool call per turn. It keeps what a real
// model would have been shown.
type model struct {
	*httptest.Server
	plan []turn

	mu   sync.Mutex
	seen []string // results of the calls so far, as the newest request has them
	last string   // that request, for a failed run
}

// turn is one call. Its arguments may depend on the result before it.
type turn struct {
	tool string
	args func(before string) map[string]any
}

func newModel(t *testing.T, plan []turn) *model {
	m := &model{plan: plan}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// results returns what came back for each call of the plan.
func (m *model) results() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// protocol is how one vendor's requests are read and answered.
type protocol struct {
	results func(request map[string]any) []string
	answer  func(w http.ResponseWriter, stream bool, step int, c *call)
}

// call is what the model wants done; nil: it says that it is done.
type call struct {
	namespace, name string
	args            map[string]any
}

func (c *call) json() string {
	text, err := json.Marshal(c.args)
	if err != nil {
		panic(err) // arguments of a plan are plain values
	}
	return string(text)
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var p protocol
	stream := false
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/messages"):
		p = protocol{anthropicResults, answerAnthropic}
	case strings.HasSuffix(path, "/chat/completions"):
		p = protocol{chatResults, answerChat}
	case strings.HasSuffix(path, "/responses"):
		p = protocol{responsesResults, answerResponses}
	case strings.HasSuffix(path, "enerateContent"):
		p, stream = protocol{geminiResults, answerGemini}, strings.HasSuffix(path, ":streamGenerateContent")
	case strings.HasSuffix(path, "/models"):
		reply(w, map[string]any{"object": "list", "data": []any{map[string]any{"id": "mock", "object": "model"}}})
		return
	case strings.Contains(path, "ount"): // count_tokens, countTokens
		reply(w, map[string]any{"input_tokens": 1, "totalTokens": 1})
		return
	default:
		http.NotFound(w, r)
		return
	}
	var request map[string]any
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if s, ok := request["stream"].(bool); ok {
		stream = s
	}
	step, c := m.next(p.results(request), request["tools"])
	p.answer(w, stream, step, c)
}

// next takes the results so far and chooses the next call. Requests without
// our tools are for titles and the like.
func (m *model) next(results []string, tools any) (int, *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	step := len(results)
	if _, _, ok := find(tools, "", "sandbox_exec"); !ok {
		return step, nil
	}
	m.seen = results
	if step >= len(m.plan) {
		return step, nil
	}
	before := ""
	if step > 0 {
		before = results[step-1]
	}
	t := m.plan[step]
	namespace, name, ok := find(tools, "", t.tool)
	if !ok {
		m.last = fmt.Sprint("no tool like ", t.tool, " in ", tools)
		return step, nil
	}
	return step, &call{namespace, name, t.args(before)}
}

// find looks for a tool whose name ends like ours; agents put a prefix before
// it, or a namespace around it.
func find(v any, namespace, want string) (ns, name string, ok bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if ns, name, ok = find(e, namespace, want); ok {
				return ns, name, ok
			}
		}
	case map[string]any:
		own, _ := v["name"].(string)
		if strings.HasSuffix(own, want) {
			return namespace, own, true
		}
		if v["type"] == "namespace" {
			namespace = own
		}
		for _, key := range []string{"function", "tools", "functionDeclarations"} {
			if ns, name, ok = find(v[key], namespace, want); ok {
				return ns, name, ok
			}
		}
	}
	return "", "", false
}

// texts joins the texts of a result, which is a string or a list of parts.
func texts(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var parts []string
		for _, e := range v {
			if m, ok := e.(map[string]any); ok {
				if s, ok := m["text"].(string); ok {
					parts = append(parts, s)
				}
			}
		}
		return strings.Join(parts, "\n")
	}
	text, _ := json.Marshal(v)
	return string(text)
}

// each calls do for the objects in a list.
func each(v any, do func(map[string]any)) {
	list, _ := v.([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			do(m)
		}
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// events writes server-sent events. Those with a type carry it as their name.
func events(w http.ResponseWriter, all ...map[string]any) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range all {
		text, _ := json.Marshal(e)
		if name, ok := e["type"].(string); ok {
			fmt.Fprintf(w, "event: %s\n", name)
		}
		fmt.Fprintf(w, "data: %s\n\n", text)
	}
}

const farewell = "All steps are done."
