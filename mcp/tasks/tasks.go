// Package tasks is the extension io.modelcontextprotocol/tasks, in front of a
// server that does not know it: a call that takes long is answered with a task,
// which the client asks for later, answers questions of, or cancels.
//
// The server alone decides: whatever is not answered within Grace becomes a
// task, if the client knows tasks. Other clients wait as they always did.
package tasks

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"
)

// Extension is the name by which clients and servers say that they know tasks.
const Extension = "io.modelcontextprotocol/tasks"

// Config says how to serve tasks. Owner is required.
type Config struct {
	// Owner names who a request speaks for. Others' tasks do not exist.
	Owner func(ctx context.Context) string
	// Required tells of a tool that cannot do without a task. nil: none is so.
	Required func(tool string) bool
	Grace    time.Duration // how long a call may take before it becomes a task
	TTL      time.Duration // how long a task is kept at least; 0: an hour
	Poll     time.Duration // how often clients should ask; 0: a second
	Most     int           // tasks that are kept of one owner; 0: 200
}

// Tasks is the calls that take long. Close ends them.
type Tasks struct {
	config Config
	life   context.Context
	stop   context.CancelFunc
	runs   sync.WaitGroup

	mu     sync.Mutex
	all    map[string]*task
	closed bool
}

// New returns no tasks yet.
func New(c Config) *Tasks {
	if c.Required == nil {
		c.Required = func(string) bool { return false }
	}
	if c.TTL == 0 {
		c.TTL = time.Hour
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Most == 0 {
		c.Most = 200
	}
	t := &Tasks{config: c, all: map[string]*task{}}
	t.life, t.stop = context.WithCancel(context.Background())
	return t
}

// Close cancels what runs and waits for it.
func (t *Tasks) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.runs.Wait()
}

// The states of a task.
const (
	working       = "working"
	inputRequired = "input_required"
	completed     = "completed"
	failed        = "failed"
	cancelled     = "cancelled"
)

// task is one call. What it says on the wire is its view.
type task struct {
	id, owner string
	ttl, poll time.Duration
	cancel    context.CancelFunc

	mu      sync.Mutex
	status  string
	created time.Time
	updated time.Time
	result  json.RawMessage
	err     json.RawMessage
	state   string                     // requestState to send back with the answers
	asked   map[string]json.RawMessage // questions without an answer
	answers map[string]json.RawMessage
	resume  chan struct{} // closed when all questions are answered
}

// view is a task as clients see it.
type view struct {
	ResultType string                     `json:"resultType"`
	ID         string                     `json:"taskId"`
	Status     string                     `json:"status"`
	Created    string                     `json:"createdAt"`
	Updated    string                     `json:"lastUpdatedAt"`
	TTL        int64                      `json:"ttlMs"`
	Poll       int64                      `json:"pollIntervalMs"`
	Asked      map[string]json.RawMessage `json:"inputRequests,omitempty"`
	Result     json.RawMessage            `json:"result,omitempty"`
	Error      json.RawMessage            `json:"error,omitempty"`
}

const stamp = "2006-01-02T15:04:05.000Z07:00"

// brief is what a client gets instead of an answer.
func (t *task) brief() view {
	v := t.detailed()
	v.ResultType, v.Asked, v.Result, v.Error = "task", nil, nil, nil
	return v
}

func (t *task) detailed() view {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := view{
		ResultType: "complete", ID: t.id, Status: t.status, Created: t.created.Format(stamp), Updated: t.updated.Format(stamp),
		TTL: t.ttl.Milliseconds(), Poll: t.poll.Milliseconds(), Result: t.result, Error: t.err,
	}
	if t.status == inputRequired {
		v.Asked = make(map[string]json.RawMessage, len(t.asked))
		for id, q := range t.asked {
			v.Asked[id] = q
		}
	}
	return v
}

func (t *task) terminalLocked() bool {
	return t.status == completed || t.status == failed || t.status == cancelled
}

// set changes a task that has not ended.
func (t *task) set(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.terminalLocked() {
		change()
		t.updated = time.Now().UTC()
	}
}

// answer takes answers to questions that are open, and goes on when there are
// none left. Others are ignored.
func (t *task) answer(given map[string]json.RawMessage) {
	t.set(func() {
		if t.status != inputRequired {
			return
		}
		for id, a := range given {
			if _, ok := t.asked[id]; ok {
				t.answers[id] = a
				delete(t.asked, id)
			}
		}
		if len(t.asked) == 0 {
			t.status = working
			close(t.resume)
		}
	})
}

// add makes a task durable for its time, or returns nil when there are too
// many.
func (t *Tasks) add(owner string, cancel context.CancelFunc) *task {
	now := time.Now().UTC()
	made := &task{
		id: rand.Text(), owner: owner, ttl: t.config.TTL, poll: t.config.Poll, cancel: cancel,
		status: working, created: now, updated: now, answers: map[string]json.RawMessage{},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	count := 0
	for id, old := range t.all {
		old.mu.Lock()
		over := old.terminalLocked() && now.Sub(old.created) > old.ttl && now.Sub(old.updated) > old.ttl
		old.mu.Unlock()
		if over {
			delete(t.all, id)
		} else if old.owner == owner {
			count++
		}
	}
	if count >= t.config.Most || t.closed {
		return nil
	}
	t.all[made.id] = made
	return made
}

// find returns the owner's task, or nil.
func (t *Tasks) find(owner, id string) *task {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.all[id]; found != nil && found.owner == owner {
		return found
	}
	return nil
}
