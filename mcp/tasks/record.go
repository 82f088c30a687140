package tasks

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// record keeps the answer to a call that may become a task. Notifications of
// the call do not pass through it: they go to the client's stream, as long as
// there is one.
type record struct {
	header http.Header

	mu   sync.Mutex
	code int
	body bytes.Buffer
}

func newRecord() *record { return &record{header: http.Header{}} }

// Header implements http.ResponseWriter.
func (r *record) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *record) WriteHeader(code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.code == 0 {
		r.code = code
	}
}

// Write implements http.ResponseWriter.
func (r *record) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.Write(p)
}

// Flush implements http.Flusher, which event streams need.
func (r *record) Flush() {}

// replay writes the answer as it was given.
func (r *record) replay(w http.ResponseWriter) {
	for k, v := range r.header {
		w.Header()[k] = v
	}
	if r.code != 0 {
		w.WriteHeader(r.code)
	}
	_, _ = w.Write(r.body.Bytes())
}

// outcome is a JSON-RPC answer, as far as tasks have to know it.
type outcome struct {
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// answer finds the answer in what was written: the last message of a stream,
// or the body.
func (r *record) answer() (o outcome, ok bool) {
	text := r.body.Bytes()
	if strings.HasPrefix(r.header.Get("Content-Type"), "text/event-stream") {
		var last []byte
		for line := range bytes.Lines(text) {
			if data, found := bytes.CutPrefix(line, []byte("data: ")); found {
				last = data
			}
		}
		text = last
	}
	err := json.Unmarshal(text, &o)
	return o, err == nil && (o.Result != nil || o.Error != nil)
}
