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
	"github.com/atoll-sh/atoll/gateway/client"
)

// activityOptions are the flags of atoll activity.
type activityOptions struct {
	follow, verify bool
	kinds          []string
	since          time.Duration
	limit          int
	head, html     string
}

func newActivityCommand(a *app) *cobra.Command {
	var o activityOptions
	cmd := &cobra.Command{
		Use: "activity SANDBOX", Short: "Show what a sandbox did",
		Long: "Shows the newest records of a sandbox's ledger: who asked for what, which names\n" +
			"it looked up, where it connected to, what was denied. A deleted sandbox is named\n" +
			"by its id. With --verify the ledger's hash chain is followed to its signed head;\n" +
			"keep the head that is printed, and give it back with --head to notice later that\n" +
			"the ledger was put back.",
		Example: "  atoll activity build --follow\n" +
			"  atoll activity build --kind deny,dns --since 1h\n" +
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
	f.StringSliceVar(&o.kinds, "kind", nil, "kinds to show, as call,dns,connect,deny; with commas or repeated")
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
	q := engine.ActivityQuery{Limit: o.limit, Newest: true}
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
		if _, err := fmt.Fprintf(a.out, "%s  %-9s  %s\n", r.Time.Local().Format("15:04:05.000"), r.Kind, activityText(r)); err != nil {
			return err
		}
	}
	return nil
}

// activityText is one line about a record. What came from a sandbox is quoted
// where it could mean something to a terminal.
func activityText(r engine.ActivityRecord) string {
	var parts []string
	add := func(format, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, plain(value)))
		}
	}
	add("%s", r.Operation)
	add("%s", r.Detail)
	add("%s", r.Verdict)
	add("%s", r.Host)
	if r.Remote != "" {
		add("%s", strings.TrimSpace(r.Protocol+" "+r.Remote))
	}
	if r.Sent+r.Received > 0 {
		parts = append(parts, fmt.Sprintf("sent %d received %d", r.Sent, r.Received))
	}
	if r.Lost > 0 {
		parts = append(parts, fmt.Sprintf("%d lost", r.Lost))
	}
	if r.From != nil && r.To != nil {
		parts = append(parts, fmt.Sprintf("from %s to %s", r.From.Local().Format(time.DateTime), r.To.Local().Format(time.DateTime)))
	}
	if r.Rule != "" || r.Reason != "" {
		parts = append(parts, "("+plain(strings.Trim(r.Rule+": "+r.Reason, ": "))+")")
	}
	if r.Door != "" {
		add("by %s", strings.TrimSpace(r.Door+" "+r.Key))
	}
	return strings.Join(parts, " ")
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
