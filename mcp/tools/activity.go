package tools

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity/tree"
)

func (k *kit) activityTools() []Tool {
	return []Tool{{
		Name: "sandbox_activity", Set: SetActivity, Title: "What it did",
		Description: "Tell what a sandbox did: calls with the processes they led to, files written, hosts reached and what was denied, from the server's ledger.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"kinds":{"type":"array","items":{"type":"string","enum":["call","dns","connect","deny","close","cut","secret","policy","exec","exit","file","privilege","lifecycle","loss","gap"]}},"call":{"type":"string"},"after":{"type":"integer","minimum":0},"limit":{"type":"integer","minimum":1,"maximum":200}},"required":["id"],"additionalProperties":false}`,
		Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.activity,
	}}
}

// The most entries of each part of the summary, and its bytes in all.
const (
	maxCalls     = 10
	maxProcesses = 6 // of one call
	maxNames     = 12
	maxDetail    = 120 // bytes of one line
	maxSummary   = 8800
)

func (k *kit) activity(ctx context.Context, a Args) (Result, error) {
	if k.Activity == nil {
		return Result{}, unsupported("Look at the files and processes inside the sandbox instead", "this server keeps no ledger")
	}
	q := engine.ActivityQuery{Limit: a.Int("limit", 200), After: uint64(a.Int("after", 0)), Newest: !a.Has("after"), Call: a.Str("call")}
	for _, name := range a.List("kinds") {
		q.Kinds = append(q.Kinds, engine.ActivityKind(name))
	}
	page, err := k.Activity.Records(ctx, a.ref(), q)
	if err != nil {
		return Result{}, err
	}
	return Result{Text: summary(page), Meta: map[string]any{"atoll/activity": map[string]any{"next": page.Next, "more": page.More, "records": len(page.Items)}}}, nil
}

// story is what records tell, by subject.
type story struct {
	files, denials []string
	calls          []string
	processes      int
	hosts          map[string]int
	notes          []string
}

// summary says first what matters most. Text that came from the sandbox is
// quoted, so that it reads as data.
func summary(page engine.ActivityPage) string {
	if len(page.Items) == 0 {
		return "Nothing was recorded."
	}
	s := story{hosts: map[string]int{}}
	for _, r := range page.Items {
		s.add(r)
	}
	for _, e := range tree.Of(page.Items) {
		if e.Call != nil {
			s.call(e.Call)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d records: %d calls, %d processes, %d files, %d hosts, %d denials.\n", len(page.Items), len(s.calls), s.processes, len(s.files), len(s.hosts), len(s.denials))
	section(&b, "Denied", s.denials, maxNames)
	section(&b, "Calls", s.calls, maxCalls)
	section(&b, "Files", s.files, maxNames)
	hosts := slices.SortedFunc(maps.Keys(s.hosts), func(x, y string) int {
		if s.hosts[x] != s.hosts[y] {
			return s.hosts[y] - s.hosts[x]
		}
		return strings.Compare(x, y)
	})
	for i, h := range hosts {
		hosts[i] = fmt.Sprintf("%s ×%d", h, s.hosts[h])
	}
	slices.Reverse(hosts) // the last are shown
	section(&b, "Hosts", hosts, maxNames)
	section(&b, "Notes", s.notes, maxNames)
	text := b.String()
	if len(text) > maxSummary {
		text = strings.ToValidUTF8(text[:maxSummary], "") + "…\nThis was cut; narrow it with kinds or call.\n"
	}
	if page.More {
		text += fmt.Sprintf("There is more; narrow it with kinds or call, or go on with {\"after\":%d}.\n", page.Next)
	}
	return strings.TrimRight(text, "\n")
}

// call tells of one call in a line, and of its first processes in one each.
func (s *story) call(c *tree.Call) {
	var b strings.Builder
	if r := c.Record; r != nil {
		b.WriteString(strings.TrimSpace(r.Time.UTC().Format("15:04:05 ") + r.Operation + " "))
		if r.Detail != "" {
			b.WriteString(" " + quoted(r.Detail))
		}
	} else {
		b.WriteString("an earlier call")
	}
	fmt.Fprintf(&b, " (call %.40q)", c.ID)
	shown := 0
	c.Walk(func(p *tree.Process, _ int) {
		s.processes++
		if len(p.Programs) == 0 {
			return
		}
		if shown++; shown > maxProcesses {
			return
		}
		fmt.Fprintf(&b, "\n  - ran %s", quoted(p.Programs[len(p.Programs)-1].Detail))
		if p.Exit != nil {
			b.WriteString(", " + tree.Outcome(*p.Exit))
		}
	})
	if n := shown - maxProcesses; n > 0 {
		fmt.Fprintf(&b, "\n  - and %d more programs", n)
	}
	s.calls = append(s.calls, b.String())
}

func (s *story) add(r engine.ActivityRecord) {
	switch {
	case r.Kind == engine.ActivityPolicy:
		s.notes = append(s.notes, strings.TrimSpace("network policy "+r.Operation+" "+quoted(r.Detail)+" "+r.Reason))
	case r.Kind == engine.ActivityDeny, r.Kind == engine.ActivityCut, r.Verdict == "deny":
		where := r.Host
		if r.Kind == engine.ActivitySecret {
			where = strings.TrimSpace(r.Operation + " " + r.Detail + " " + r.Host)
		}
		for _, other := range []string{r.Remote, strings.TrimSpace(r.Operation + " " + r.Detail)} {
			if where == "" {
				where = other
			}
		}
		text := fmt.Sprintf("%s %s (%s)", r.Kind, quoted(where), strings.Trim(r.Rule+": "+r.Reason, ": "))
		if r.Count > 1 {
			text += fmt.Sprintf(" ×%d", r.Count)
		}
		s.denials = append(s.denials, text)
	case r.Kind == engine.ActivitySecret:
		s.notes = append(s.notes, fmt.Sprintf("secret %s %s, host %s", quoted(r.Detail), r.Operation, quoted(r.Host)))
	case r.Kind == engine.ActivityFile, r.Kind == engine.ActivityCall && strings.HasPrefix(r.Operation, "file."):
		if text := strings.TrimSpace(r.Operation + " " + quoted(r.Detail)); !slices.Contains(s.files, text) {
			s.files = append(s.files, text)
		}
	case r.Kind == engine.ActivityPrivilege:
		s.notes = append(s.notes, strings.TrimSpace("gained rights by "+r.Operation+" "+quoted(r.Detail)))
	case r.Kind == engine.ActivityDNS:
		s.hosts[quoted(r.Host)]++
	case r.Kind == engine.ActivityConnect:
		if r.Operation == engine.Proxied && s.hosts[quoted(r.Host)] > 0 {
			return // the flow itself was counted
		}
		if r.Host != "" {
			s.hosts[quoted(r.Host)]++
		} else if r.Remote != "" {
			s.hosts[r.Remote]++
		}
	case r.Kind == engine.ActivityLoss:
		s.notes = append(s.notes, fmt.Sprintf("%d records were lost", r.Lost))
	case r.Kind == engine.ActivityGap:
		s.notes = append(s.notes, "nobody looked for a while: "+r.Reason)
	case r.Kind == engine.ActivityLifecycle:
		s.notes = append(s.notes, strings.TrimSpace(r.Operation+" "+r.Detail))
	}
}

func quoted(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail] + "…"
	}
	return fmt.Sprintf("%q", strings.ToValidUTF8(s, "�"))
}

// section writes the last entries of a list.
func section(b *strings.Builder, title string, entries []string, most int) {
	if len(entries) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", title)
	if n := len(entries) - most; n > 0 {
		fmt.Fprintf(b, "- %d earlier ones\n", n)
		entries = entries[n:]
	}
	for _, e := range entries {
		fmt.Fprintf(b, "- %s\n", e)
	}
}
