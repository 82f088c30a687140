package tasks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
)

// request is the part of a message that decides.
type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name    string                     `json:"name"`
		TaskID  string                     `json:"taskId"`
		Answers map[string]json.RawMessage `json:"inputResponses"`
		Meta    struct {
			Version string `json:"io.modelcontextprotocol/protocolVersion"`
			Client  struct {
				Extensions map[string]json.RawMessage `json:"extensions"`
			} `json:"io.modelcontextprotocol/clientCapabilities"`
		} `json:"_meta"`
	} `json:"params"`
}

// knows tells whether the client has said that it knows tasks.
func (r *request) knows() bool {
	_, ok := r.Params.Meta.Client.Extensions[Extension]
	return ok
}

// Handler answers what is about tasks and lets next answer the rest. The body
// of a request is read, so it has to be bounded before.
func (t *Tasks) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A request of the newer era says so in both header and body.
		if r.Method != http.MethodPost || !mcpgo.IsModernProtocol(r.Header.Get(mcpgo.HeaderProtocolVersion)) {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "the body could not be read", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var q request
		if json.Unmarshal(body, &q) != nil || q.ID == nil || !mcpgo.IsModernProtocol(q.Params.Meta.Version) {
			next.ServeHTTP(w, r)
			return
		}
		switch q.Method {
		case "tasks/get", "tasks/update", "tasks/cancel":
			t.serve(w, r, &q)
		case "tasks/result", "tasks/list":
			refuse(w, &q, http.StatusNotFound, mcpgo.METHOD_NOT_FOUND, "there is no method "+q.Method, nil)
		case string(mcpgo.MethodToolsCall):
			t.call(w, r, &q, body, next)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// serve answers the methods of the extension.
func (t *Tasks) serve(w http.ResponseWriter, r *http.Request, q *request) {
	if !q.knows() {
		needsTasks(w, q)
		return
	}
	for name, want := range map[string]string{"Mcp-Method": q.Method, "Mcp-Name": q.Params.TaskID, mcpgo.HeaderProtocolVersion: q.Params.Meta.Version} {
		if got := r.Header.Get(name); got != want {
			refuse(w, q, http.StatusBadRequest, mcpgo.HEADER_MISMATCH, fmt.Sprintf("the header %s is %q, and the request is about %q", name, got, want), nil)
			return
		}
	}
	found := t.find(t.config.Owner(r.Context()), q.Params.TaskID)
	if found == nil {
		refuse(w, q, http.StatusOK, mcpgo.INVALID_PARAMS, "there is no such task", nil)
		return
	}
	switch q.Method {
	case "tasks/get":
		reply(w, q, found.detailed())
		return
	case "tasks/update":
		found.answer(q.Params.Answers)
	case "tasks/cancel":
		found.set(func() { found.status, found.asked = cancelled, nil })
		found.cancel()
	}
	reply(w, q, map[string]string{"resultType": "complete"})
}

// call runs a tool. When the answer takes longer than the client should wait,
// the call goes on as a task.
func (t *Tasks) call(w http.ResponseWriter, r *http.Request, q *request, body []byte, next http.Handler) {
	if !q.knows() {
		if t.config.Required(q.Params.Name) {
			needsTasks(w, q)
			return
		}
		next.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	unlink := context.AfterFunc(t.life, cancel)
	kept := r.Clone(ctx) // r is the server's again once it is answered
	run := func(body []byte) (*record, <-chan struct{}) {
		rec, done := newRecord(), make(chan struct{})
		again := kept.Clone(ctx)
		again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		t.runs.Go(func() {
			defer close(done)
			next.ServeHTTP(rec, again)
		})
		return rec, done
	}
	end := func() { unlink(); cancel() }
	rec, done := run(body)
	patience := time.NewTimer(t.config.Grace)
	defer patience.Stop()
	select {
	case <-done:
		end()
		rec.replay(w)
		return
	case <-r.Context().Done(): // nobody waits, and nobody knows of a task
		end()
		<-done
		return
	case <-patience.C:
	}
	made := t.add(t.config.Owner(r.Context()), cancel)
	if made == nil { // too many: this one is waited for
		defer end()
		defer context.AfterFunc(r.Context(), cancel)()
		<-done
		rec.replay(w)
		return
	}
	t.runs.Go(func() {
		defer end()
		made.follow(ctx, body, rec, done, run)
	})
	reply(w, q, made.brief())
}

// follow waits for a task's answer, and with it for its client's answers to
// the questions that it asks on the way.
func (t *task) follow(ctx context.Context, body []byte, rec *record, done <-chan struct{}, run func([]byte) (*record, <-chan struct{})) {
	for {
		<-done
		o, ok := rec.answer()
		asked, state := questions(o.Result)
		switch {
		case !ok:
			t.set(func() {
				t.status, t.err = failed, json.RawMessage(`{"code":-32603,"message":"the call was not answered"}`)
			})
			return
		case o.Error != nil:
			t.set(func() { t.status, t.err = failed, o.Error })
			return
		case asked == nil:
			t.set(func() { t.status, t.result = completed, o.Result })
			return
		}
		resume := make(chan struct{})
		t.set(func() { t.status, t.asked, t.state, t.resume = inputRequired, asked, state, resume })
		select {
		case <-resume:
		case <-ctx.Done():
			t.set(func() { t.status, t.asked = cancelled, nil })
			return
		}
		t.mu.Lock()
		next, err := withAnswers(body, t.answers, t.state)
		t.mu.Unlock()
		if err != nil {
			t.set(func() {
				t.status, t.err = failed, json.RawMessage(`{"code":-32603,"message":"the call cannot be repeated"}`)
			})
			return
		}
		rec, done = run(next)
	}
}

// questions returns what a result asks of the client; nil: nothing.
func questions(result json.RawMessage) (asked map[string]json.RawMessage, state string) {
	var r struct {
		Type  string                     `json:"resultType"`
		Asked map[string]json.RawMessage `json:"inputRequests"`
		State string                     `json:"requestState"`
	}
	if json.Unmarshal(result, &r) != nil || r.Type != inputRequired || len(r.Asked) == 0 {
		return nil, ""
	}
	return r.Asked, r.State
}

// withAnswers returns the call again, with the client's answers.
func withAnswers(body []byte, answers map[string]json.RawMessage, state string) ([]byte, error) {
	var message, params map[string]json.RawMessage
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(message["params"], &params); err != nil {
		return nil, err
	}
	for name, value := range map[string]any{"inputResponses": maps.Clone(answers), "requestState": state} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		params[name] = text
	}
	if state == "" {
		delete(params, "requestState")
	}
	text, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	message["params"] = text
	return json.Marshal(message)
}

func needsTasks(w http.ResponseWriter, q *request) {
	refuse(w, q, http.StatusBadRequest, mcpgo.MISSING_REQUIRED_CLIENT_CAPABILITY, "this is for clients that know "+Extension,
		map[string]any{"requiredCapabilities": map[string]any{"extensions": map[string]any{Extension: map[string]any{}}}})
}

func reply(w http.ResponseWriter, q *request, result any) {
	write(w, http.StatusOK, map[string]any{"jsonrpc": "2.0", "id": q.ID, "result": result})
}

func refuse(w http.ResponseWriter, q *request, status, code int, message string, data any) {
	e := map[string]any{"code": code, "message": message}
	if data != nil {
		e["data"] = data
	}
	write(w, status, map[string]any{"jsonrpc": "2.0", "id": q.ID, "error": e})
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
