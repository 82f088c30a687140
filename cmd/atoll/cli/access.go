package cli

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
)

func newAccessCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "access", Short: "Decide about what sandboxes were denied",
		Long: "What a sandbox's network policy denies becomes a request, which waits until\n" +
			"somebody approves or denies it. The sandbox and the tools of its agent cannot.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usagef("access needs one of list, approve and deny") },
	}
	cmd.AddCommand(newAccessListCommand(a), newAccessApproveCommand(a), newAccessDenyCommand(a))
	return cmd
}

func newAccessListCommand(a *app) *cobra.Command {
	var q engine.AccessQuery
	var state string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List requests, the latest denial first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if state != "all" {
				q.State = engine.AccessState(state)
			}
			all, err := c.Access().Requests(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.printAccess(all)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Sandbox, "sandbox", "", "only those of one sandbox")
	f.StringVar(&state, "state", string(engine.AccessPending), "pending, approved, denied or all")
	f.IntVar(&q.Limit, "limit", 100, "how many, at most 1000")
	return cmd
}

// printAccess writes a table. What a sandbox asked for is a proper name or an
// address, so it needs no quotes.
func (a *app) printAccess(all []engine.AccessRequest) error {
	if a.asJSON() {
		return a.json(all)
	}
	rows := [][]string{{"ID", "SANDBOX", "TARGET", "RULE", "DENIED", "LAST", "STATE"}}
	for _, r := range all {
		name := r.SandboxName
		if name == "" {
			name = r.SandboxID
		}
		rows = append(rows, []string{r.ID, name, r.Target(), r.Rule, strconv.FormatInt(r.Count, 10), r.LastAt.Local().Format(time.DateTime), accessState(r)})
	}
	return table(a.out, rows)
}

func accessState(r engine.AccessRequest) string {
	if r.Until.IsZero() {
		return string(r.State)
	}
	return string(r.State) + " until " + r.Until.Local().Format(time.DateTime)
}

func newAccessApproveCommand(a *app) *cobra.Command {
	var period time.Duration
	var always bool
	cmd := &cobra.Command{
		Use: "approve ID…", Short: "Open what requests are about, each for its sandbox alone",
		Long: "Opens what requests are about, at once, each for its sandbox alone: a host on the\n" +
			"port that was denied, or on 80 and 443 when its name was; an address on its port.\n" +
			"A change of the sandbox's network settings ends it.",
		Example: "  atoll access approve acc-mzxw6ytboi4dknrt --for 1h",
		Args:    cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if period == 0 && !always {
				return usagef("say how long: --for 1h, or --always")
			}
			return a.decideAccess(cmd.Context(), ids, period, engine.AccessRequests.Approve)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&period, "for", 0, "how long it is open, as 1h")
	f.BoolVar(&always, "always", false, "until the sandbox's network settings change")
	cmd.MarkFlagsMutuallyExclusive("for", "always")
	return cmd
}

func newAccessDenyCommand(a *app) *cobra.Command {
	var period time.Duration
	cmd := &cobra.Command{
		Use: "deny ID…", Short: "Refuse requests, or end what was approved",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.decideAccess(cmd.Context(), ids, period, engine.AccessRequests.Deny)
		},
	}
	cmd.Flags().DurationVar(&period, "for", time.Hour, "how long the same is not asked again")
	return cmd
}

func (a *app) decideAccess(ctx context.Context, ids []string, period time.Duration, decide func(engine.AccessRequests, context.Context, engine.Principal, string, time.Duration) (engine.AccessRequest, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	done := []engine.AccessRequest{}
	for _, id := range ids {
		r, err := decide(c.Access(), ctx, engine.Principal{}, id, period)
		if err != nil {
			return errors.Join(a.printAccess(done), err)
		}
		done = append(done, r)
	}
	return a.printAccess(done)
}
