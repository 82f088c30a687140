package tools

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

func (k *kit) activityTools() []Tool {
	return []Tool{{
		Name: "sandbox_activity", Set: SetActivity, Title: "What it did",
		Description: "Tell what a sandbox did: commands, files, hosts it reached and what its policy denied, from the server's ledger.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"kinds":{"type":"array","items":{"type":"string","enum":["call","dns","connect","deny","close","cut","exec","exit","file","privilege","lifecycle","loss","gap"]}},"after":{"type":"integer","minimum":0},"limit":{"type":"integer","minimum":1,"maximum":200}},"required":["id"],"additionalProperties":false}`,
		Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.activity,
	}}
}

// The most entries of each part of the summary.
const (
	maxCommands = 12
	maxNames    = 12
	maxDetail   = 160 // bytes of one line
)

func (k *kit) activity(ctx context.Context, a Args) (Result, error) {
	if k.Activity == nil {
		return Result{}, unsupported("Look at the files and processes inside the sandbox instead", "this server keeps no ledger")
	}
	q := engine.ActivityQuery{Limit: a.Int("limit", 200), After: uint64(a.Int("after", 0)), Newest: !a.Has("after")}
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
	commands, files, denials []string
	hosts                    map[string]int
	notes                    []string
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
	var b strings.Builder
	fmt.Fprintf(&b, "%d records: %d commands, %d files, %d hosts, %d denials.\n", len(page.Items), len(s.commands), len(s.files), len(s.hosts), len(s.denials))
	section(&b, "Denied", s.denials, maxNames)
	section(&b, "Commands", s.commands, maxCommands)
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
	if page.More {
		fmt.Fprintf(&b, "There is more; narrow it with kinds, or go on with {\"after\":%d}.\n", page.Next)
	}
	return strings.TrimRight(b.String(), "\n")
}

func (s *story) add(r engine.ActivityRecord) {
	switch {
	case r.Kind == engine.ActivityDeny, r.Kind == engine.ActivityCut, r.Verdict == "deny":
		where := r.Host
		if where == "" {
			where = r.Remote
		}
		s.denials = append(s.denials, fmt.Sprintf("%s %s (%s)", r.Kind, quoted(where), strings.Trim(r.Rule+": "+r.Reason, ": ")))
	case r.Kind == engine.ActivityExec, r.Kind == engine.ActivityCall && (strings.HasPrefix(r.Operation, "exec") || r.Operation == "code.run"):
		text := quoted(r.Detail)
		if r.Detail == "" {
			text = r.Operation
		}
		s.commands = append(s.commands, r.Time.UTC().Format("15:04:05 ")+text)
	case r.Kind == engine.ActivityFile, r.Kind == engine.ActivityCall && strings.HasPrefix(r.Operation, "file."):
		s.files = append(s.files, strings.TrimSpace(r.Operation+" "+quoted(r.Detail)))
	case r.Kind == engine.ActivityDNS:
		s.hosts[quoted(r.Host)]++
	case r.Kind == engine.ActivityConnect:
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
