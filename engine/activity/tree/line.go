package tree

import (
	"fmt"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Line says in one line what a record is about, without its time, kind and
// call. Text of the sandbox is in it as it came.
func Line(r engine.ActivityRecord) string {
	var parts []string
	add := func(format string, values ...any) { parts = append(parts, fmt.Sprintf(format, values...)) }
	for _, text := range []string{r.Operation, r.Detail, r.Verdict, r.Host} {
		if text != "" {
			add("%s", text)
		}
	}
	if len(r.Addresses) > 0 && r.Operation == engine.Proxied {
		add("at %s, asked for", strings.Join(r.Addresses, " "))
	} else if len(r.Addresses) > 0 {
		add("%s", strings.Join(r.Addresses, " "))
	}
	if r.Remote != "" && r.Inbound {
		add("%s", strings.TrimSpace(r.Protocol+" from "+r.Remote))
	} else if r.Remote != "" {
		add("%s", strings.TrimSpace(r.Protocol+" "+r.Remote))
	}
	if r.Sent+r.Received > 0 {
		add("sent %d received %d", r.Sent, r.Received)
	}
	if r.Kind == engine.ActivityExit {
		add("%s", Outcome(r))
	}
	if r.Lost > 0 {
		add("%d lost", r.Lost)
	}
	if r.From != nil && r.To != nil {
		add("from %s to %s", r.From.Local().Format(time.DateTime), r.To.Local().Format(time.DateTime))
	}
	if r.Count > 1 {
		add("×%d", r.Count)
	}
	if r.Rule != "" || r.Reason != "" {
		add("(%s)", strings.Trim(r.Rule+": "+r.Reason, ": "))
	}
	if r.Door != "" {
		add("by %s", strings.TrimSpace(r.Door+" "+r.Key))
	}
	return strings.Join(parts, " ")
}

// Outcome says how a process ended.
func Outcome(exit engine.ActivityRecord) string {
	took := (time.Duration(exit.Duration) * time.Millisecond).String()
	if exit.Signal != "" {
		return fmt.Sprintf("ended by %s after %s", exit.Signal, took)
	}
	return fmt.Sprintf("exit %d after %s", exit.Code, took)
}
