// Package attack gathers what the attacks of one test binary came to, for
// attack.json.
package attack

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
)

// Verdict is one row of attack.json.
type Verdict struct {
	Name    string `json:"name"`
	Group   string `json:"group"`
	Class   string `json:"class"`   // of the sandbox
	Blocked bool   `json:"blocked"` // nothing got out; in the group ledger: it was seen
	Detail  string `json:"detail"`  // the story, or what went wrong
	// Event is the record that tells of it, as SANDBOX/SEQUENCE; empty when none
	// does, which fails make attack.
	Event string `json:"event"`
}

// Verdicts are those of a test binary.
type Verdicts struct {
	mu   sync.Mutex
	rows []Verdict
}

// Add keeps a verdict, and fails the test if the attack went through.
func (r *Verdicts) Add(t testing.TB, v Verdict) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, v)
	if !v.Blocked {
		t.Errorf("%s/%s: %s", v.Group, v.Name, v.Detail)
	}
}

// Report writes the file that ATOLL_ATTACK_JSON names, a row a line.
func (r *Verdicts) Report() error {
	path := os.Getenv("ATOLL_ATTACK_JSON")
	if path == "" || len(r.rows) == 0 { // a process that starts another one has none
		return nil
	}
	var lines []string
	for _, v := range r.rows {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		lines = append(lines, "  "+string(b))
	}
	return os.WriteFile(path, []byte("[\n"+strings.Join(lines, ",\n")+"\n]\n"), 0o644)
}
