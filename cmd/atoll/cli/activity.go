package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity/tree"
	"github.com/atoll-sh/atoll/gateway/client"
)

// activityOptions are the flags of atoll activity.
type activityOptions struct {
	follow, flat, verify bool
	kinds                []string
	call                 string
	since                time.Duration
	limit                int
	head, html           string
}

func newActivityCommand(a *app) *cobra.Command {
	var o activityOptions
	cmd := &cobra.Command{
		Use: "activity SANDBOX", Short: "Show what a sandbox did",
		Long: "Shows the newest records of a sandbox's ledger: who asked for what, and below each\n" +
			"call the processes that it led to, with the files that they wrote, the names that\n" +
			"they looked up, where they connected to and what was denied. A deleted sandbox is\n" +
			"named by its id. With --verify the ledger's hash chain is followed to its signed head;\n" +
			"keep the head that is printed, and give it back with --head to notice later that\n" +
			"the ledger was put back.",
		Example: "  atoll activity build --follow\n" +
			"  atoll activity build --kind deny,dns --since 1h\n" +
			"  atoll activity build --call 01J9ZK3V6Q8T5W2R7Y4M1N0PXC\n" +
			"  atoll activity build --verify --head 120:9f86d0…",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.activity(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until interrupted")
	f.BoolVar(&o.verify, "verify", false, "check that the ledger is what was written")
	f.BoolVar(&o.flat, "flat", false, "a line for each record as it came, as with --follow")
	f.StringSliceVar(&o.kinds, "kind", nil, "kinds to show, as call,exec,file,dns,connect,deny; with commas or repeated")
	f.StringVar(&o.call, "call", "", "only what came of this call")
	f.DurationVar(&o.since, "since", 0, "only what is newer, as 1h")
	f.IntVar(&o.limit, "limit", 100, "how many records, at most 1000")
	f.StringVar(&o.head, "head", "", "with --verify: a head from before, as SEQUENCE:HASH")
	f.StringVar(&o.html, "html", "", "write a report for people to this file")
	cmd.MarkFlagsMutuallyExclusive("follow", "verify", "html")
	return cmd
}

func (a *app) activity(ctx context.Context, name string, o activityOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	switch {
	case o.verify:
		return a.verifyActivity(ctx, c, name, o.head)
	case o.head != "":
		return usagef("--head goes with --verify")
	case o.html != "":
		page, err := c.ActivityReport(ctx, ref(name))
		if err != nil {
			return err
		}
		return os.WriteFile(o.html, page, 0o600)
	}
	q := engine.ActivityQuery{Limit: o.limit, Newest: true, Call: o.call}
	if o.since > 0 {
		q.Since = time.Now().Add(-o.since)
	}
	for _, k := range o.kinds {
		q.Kinds = append(q.Kinds, engine.ActivityKind(k))
	}
	for {
		page, err := c.Activity().Records(ctx, ref(name), q)
		if o.follow && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !o.follow && !o.flat && !a.asJSON() {
			a.printTree(page.Items)
			return nil
		}
		if err := a.printActivity(page.Items); err != nil || !o.follow {
			return err
		}
		q.After, q.Newest, q.Wait = max(q.After, page.Next), false, 20*time.Second
	}
}

// printActivity writes a line for each record: text, or JSON.
func (a *app) printActivity(items []engine.ActivityRecord) error {
	for _, r := range items {
		if a.asJSON() {
			if err := json.NewEncoder(a.out).Encode(r); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%s  %-9s  %s\n", clock(r.Time), r.Kind, activityText(r)); err != nil {
			return err
		}
	}
	return nil
}

// activityText is one line about a record. What came from a sandbox is quoted
// where it could mean something to a terminal.
func activityText(r engine.ActivityRecord) string {
	text := plain(tree.Line(r))
	if r.PID > 0 {
		text += fmt.Sprintf("  [process %d]", r.PID)
	}
	return text
}

// printTree writes calls with their processes below them.
func (a *app) printTree(items []engine.ActivityRecord) {
	for _, e := range tree.Of(items) {
		if e.Record != nil {
			fmt.Fprintf(a.out, "%s  %-9s  %s\n", clock(e.Record.Time), e.Record.Kind, activityText(*e.Record))
			continue
		}
		head := "          …  "
		what := "a call that is not among these records"
		if r := e.Call.Record; r != nil {
			head, what = clock(r.Time)+"  ", plain(tree.Line(*r))
		}
		fmt.Fprintf(a.out, "%s%s  (call %s)\n", head, what, plain(e.Call.ID))
		for _, r := range e.Call.Records {
			fmt.Fprintf(a.out, "%s%s %s\n", below(0), r.Kind, plain(tree.Line(r)))
		}
		e.Call.Walk(a.printProcess)
	}
}

func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }

// below is the margin of what lies so deep below a call.
func below(depth int) string { return strings.Repeat(" ", 14+2*min(depth, 20)) }

func (a *app) printProcess(p *tree.Process, depth int) {
	var lines []string
	for _, r := range p.Programs {
		lines = append(lines, plain(tree.Line(r)))
	}
	if len(lines) == 0 {
		lines = []string{"(what its parent runs)"}
	}
	if p.Exit != nil {
		lines[len(lines)-1] += "  → " + tree.Outcome(*p.Exit)
	}
	for i, l := range lines {
		if i > 0 {
			l = "then " + l
		}
		fmt.Fprintf(a.out, "%s%d  %s\n", below(depth), p.PID, l)
	}
	for _, r := range p.Records {
		fmt.Fprintf(a.out, "%s    %s %s\n", below(depth), r.Kind, plain(tree.Line(r)))
	}
}

// plain quotes text that holds more than printable characters.
func plain(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return strconv.Quote(s)
		}
	}
	return s
}

var errLedger = errors.New("the ledger is not what was written")

func (a *app) verifyActivity(ctx context.Context, c *client.Client, name, head string) error {
	var known *engine.ActivityHead
	if head != "" {
		number, hash, ok := strings.Cut(head, ":")
		n, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || n == 0 || len(hash) != 64 {
			return usagef("--head %q is not SEQUENCE:HASH as --verify prints it", head)
		}
		known = &engine.ActivityHead{Sequence: n, Hash: hash}
	}
	p, err := c.Activity().Verify(ctx, ref(name), known)
	if err != nil {
		return err
	}
	if a.asJSON() {
		err = a.json(p)
	} else if p.Fault == nil {
		fmt.Fprintf(a.out, "The ledger is whole: %d records from %d on, %d gaps, %d lost.\nhead %d:%s\nkey  %s\n", p.Records, p.First, p.Gaps, p.Lost, p.Head.Sequence, p.Head.Hash, p.PublicKey)
	} else {
		fmt.Fprintf(a.out, "record %d %s:%d: %s\n", p.Fault.Sequence, p.Fault.Segment, p.Fault.Line, p.Fault.Problem)
	}
	if err == nil && p.Fault != nil {
		err = errLedger
	}
	return err
}
