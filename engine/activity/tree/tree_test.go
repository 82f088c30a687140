package tree

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

func TestOf(t *testing.T) {
	items := []engine.ActivityRecord{
		{Kind: engine.ActivityLifecycle, Operation: "started"},
		{Kind: engine.ActivityExec, Call: "A", Process: "1", Parent: "0", PID: 1, Detail: "sh -c x"}, // before its call
		{Kind: engine.ActivityCall, Call: "A", Operation: "exec", Detail: "x"},
		{Kind: engine.ActivityFile, Call: "A", Process: "2", Parent: "1", PID: 2, Operation: "create", Detail: "/x"}, // a fork
		{Kind: engine.ActivityDNS, Call: "A", Host: "example.com"},
		{Kind: engine.ActivityExec, Call: "A", Process: "3", Parent: "2", PID: 3, Detail: "id"},
		{Kind: engine.ActivityExec, Call: "B", Process: "1", Parent: "0", PID: 1, Detail: "y"}, // one shell, two calls
		{Kind: engine.ActivityExit, Call: "A", Process: "3", Parent: "2", PID: 3, Code: 1, Duration: 5},
		{Kind: engine.ActivityFile, Process: "9", PID: 9, Detail: "/y"},
		{Kind: engine.ActivityExec, Call: "A", Process: "5", Parent: "4", PID: 5, Detail: "left alone"}, // its parent is unknown
	}
	var got []string
	for _, e := range Of(items) {
		if e.Record != nil {
			got = append(got, "- "+Line(*e.Record))
			continue
		}
		what := "unknown"
		if e.Call.Record != nil {
			what = Line(*e.Call.Record)
		}
		got = append(got, e.Call.ID+" "+what+fmt.Sprintf(" +%d", len(e.Call.Records)))
		e.Call.Walk(func(p *Process, depth int) {
			line := strings.Repeat("  ", depth+1) + fmt.Sprint(p.PID)
			for _, r := range append(p.Programs, p.Records...) {
				line += " " + Line(r)
			}
			if p.Exit != nil {
				line += ", " + Outcome(*p.Exit)
			}
			got = append(got, line)
		})
	}
	want := []string{
		"- started",
		"A exec x +1",
		"  1 sh -c x",
		"    2 create /x",
		"      3 id, exit 1 after 5ms",
		"  5 left alone",
		"B unknown +0",
		"  1 y",
		"- /y",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLine(t *testing.T) {
	from, to := time.Unix(0, 0), time.Unix(60, 0)
	for _, c := range []struct {
		r    engine.ActivityRecord
		want string
	}{
		{engine.ActivityRecord{Kind: engine.ActivityDeny, Protocol: "tcp", Remote: "192.0.2.1:80", Rule: "default", Reason: "no rule"}, "tcp 192.0.2.1:80 (default: no rule)"},
		{engine.ActivityRecord{Kind: engine.ActivityConnect, Inbound: true, Protocol: "tcp", Remote: "192.0.2.1:80"}, "tcp from 192.0.2.1:80"},
		{engine.ActivityRecord{Kind: engine.ActivityClose, Protocol: "tcp", Remote: "192.0.2.1:80", Sent: 1, Received: 2}, "tcp 192.0.2.1:80 sent 1 received 2"},
		{engine.ActivityRecord{Kind: engine.ActivityCall, Operation: "exec", Detail: "ls", Door: "api", Key: "atl_…x"}, "exec ls by api atl_…x"},
		{engine.ActivityRecord{Kind: engine.ActivityExit, Signal: "SIGKILL", Code: 137, Duration: 1500}, "ended by SIGKILL after 1.5s"},
		{engine.ActivityRecord{Kind: engine.ActivityDeny, Inbound: true, Reason: "unasked", Count: 7}, "×7 (unasked)"},
		{engine.ActivityRecord{Kind: engine.ActivityConnect, Operation: engine.Proxied, Detail: "unread", Host: "a.example", Addresses: []string{"192.0.2.1"}, Protocol: "tcp", Remote: "192.0.2.9:443"}, "proxied unread a.example at 192.0.2.1, asked for tcp 192.0.2.9:443"},
		{engine.ActivityRecord{Kind: engine.ActivitySecret, Operation: engine.SecretWithheld, Detail: "key", Verdict: "deny", Host: "a.example", Reason: "why"}, "withheld key deny a.example (why)"},
		{engine.ActivityRecord{Kind: engine.ActivityPolicy, Operation: engine.PolicyApplied, Detail: "deny all else"}, "applied deny all else"},
		{engine.ActivityRecord{Kind: engine.ActivityLoss, Lost: 3, Reason: "too many"}, "3 lost (too many)"},
		{engine.ActivityRecord{Kind: engine.ActivityGap, From: &from, To: &to}, "from " + from.Local().Format(time.DateTime) + " to " + to.Local().Format(time.DateTime)},
	} {
		if got := Line(c.r); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
