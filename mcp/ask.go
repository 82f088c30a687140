package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/engine"
)

// Approve opens what a request for access is about. It fails for a principal
// that may not do so.
type Approve func(ctx context.Context, p engine.Principal, id string, period time.Duration) error

const (
	askPatience = 30 * time.Second // for which a result waits for its user
	askPeriod   = time.Hour        // for which a yes holds
	mostAsked   = 256              // of one connection; then a sandbox is only playing
	askPrefix   = "atoll-ask-"     // of the ids of our requests
	askAllow    = "allow for an hour"
	askKeep     = "keep it closed"
)

// ask lets the user of the agent decide about a request that waits, once, and
// returns what became of it. Only a yes of the form counts, and only as far as
// the key that the agent has may approve. Clients of the era without requests
// by servers, and those that did not say that they can ask, are not asked.
func (s *Server) ask(ctx context.Context, r engine.AccessRequest) engine.AccessState {
	q := questionsOf(ctx)
	if q == nil || !q.able(ctx) || !q.first(r.ID) {
		return r.State
	}
	choice, answered := q.put(ctx, fmt.Sprintf("Sandbox %s was denied %s by its network policy (rule %s). Allow it for this sandbox?", r.SandboxName, r.Target(), r.Rule))
	switch {
	case !answered:
		return r.State
	case choice != askAllow:
		return engine.AccessDenied
	}
	if err := s.opt.Approve(ctx, principalOf(ctx), r.ID, askPeriod); err != nil {
		s.log.Warn("the user's yes does not count", "request", r.ID, "err", err)
		return r.State
	}
	return engine.AccessApproved
}

// questions are those to the user of one stdio client.
type questions struct {
	session *server.InProcessSession
	write   func(message any) error

	mu      sync.Mutex
	n       int
	asked   map[string]bool // requests for access
	waiting map[string]chan json.RawMessage
}

func newQuestions(session *server.InProcessSession, write func(any) error) *questions {
	return &questions{session: session, write: write, asked: map[string]bool{}, waiting: map[string]chan json.RawMessage{}}
}

type questionsKey struct{}

func questionsOf(ctx context.Context) *questions {
	q, _ := ctx.Value(questionsKey{}).(*questions)
	return q
}

// able tells whether the client may be asked by way of a form.
func (q *questions) able(ctx context.Context) bool {
	can := q.session.GetClientCapabilities().Elicitation
	return can != nil && (can.Form != nil || can.URL == nil) && !mcpgo.IsModernProtocol(server.RequestProtocolVersion(ctx))
}

// first tells whether a request for access was not asked about yet: a no is
// final, and nobody is asked again and again.
func (q *questions) first(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked[id] || len(q.asked) >= mostAsked {
		return false
	}
	q.asked[id] = true
	return true
}

// put asks and waits for the answer. It reports false when there is none.
func (q *questions) put(ctx context.Context, message string) (choice string, answered bool) {
	answer := make(chan json.RawMessage, 1)
	q.mu.Lock()
	q.n++
	id := fmt.Sprint(askPrefix, q.n)
	q.waiting[id] = answer
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.waiting, id)
	}()
	err := q.write(map[string]any{"jsonrpc": "2.0", "id": id, "method": mcpgo.MethodElicitationCreate, "params": mcpgo.ElicitationParams{
		Message: message,
		RequestedSchema: map[string]any{
			"type": "object", "required": []string{"decision"},
			"properties": map[string]any{"decision": map[string]any{"type": "string", "title": "Decision", "enum": []string{askAllow, askKeep}}},
		},
	}})
	if err != nil {
		return "", false
	}
	timer := time.NewTimer(askPatience)
	defer timer.Stop()
	select {
	case raw := <-answer:
		var r struct {
			Action  string
			Content struct{ Decision string }
		}
		if json.Unmarshal(raw, &r) != nil {
			return "", false
		}
		if r.Action != "accept" {
			return "", r.Action == "decline" || r.Action == "cancel"
		}
		return r.Content.Decision, true
	case <-ctx.Done():
	case <-timer.C:
	}
	_ = q.write(map[string]any{"jsonrpc": "2.0", "method": mcpgo.MethodNotificationCancelled, "params": map[string]any{"requestId": id}})
	return "", false
}

// answered takes a message that answers one of ours, and tells whether it was
// one. An error counts as no answer.
func (q *questions) answered(id any, line []byte) bool {
	name, ok := id.(string)
	if !ok || !strings.HasPrefix(name, askPrefix) {
		return false
	}
	var m struct{ Result json.RawMessage }
	_ = json.Unmarshal(line, &m)
	q.mu.Lock()
	defer q.mu.Unlock()
	if answer := q.waiting[name]; answer != nil {
		delete(q.waiting, name)
		answer <- m.Result
	}
	return true
}
