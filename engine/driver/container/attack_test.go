package container

import (
	"encoding/json"
	"testing"

	"github.com/atoll-sh/atoll/engine/enginetest/attack"
)

// attacks are the rows of attack.json.
var attacks attack.Verdicts

// TestAttacksUnseenCalls tries the ways past the hooks that the records of
// processes stand on. They are refused, so there is nothing to record.
func TestAttacksUnseenCalls(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	code, out := r.exec(t, h, toolboxPath, "syscalls")
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil {
		t.Fatalf("got exit %d: %s", code, out)
	}
	for _, a := range []struct{ name, call, want, story string }{
		{"io_uring", "io_uring_setup", "operation not permitted", "file work by io_uring, which makes no system calls"},
		{"foreign-calls", "x32-getpid", "killed", "file work by the system calls of 32-bit programs"},
	} {
		v := attack.Verdict{Name: a.name, Group: "ledger", Class: "container", Blocked: got[a.call] == a.want, Detail: a.story + ": refused by the system call filter"}
		if !v.Blocked {
			v.Detail = "NOT REFUSED: " + a.story + ": " + got[a.call]
		}
		attacks.Add(t, v)
	}
}
