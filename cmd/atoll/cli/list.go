package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type listOptions struct {
	labels, states []string
	name           string
	limit          int
	quiet          bool
}

func newListCommand(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List sandboxes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.list(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.labels, "label", "l", nil, "KEY=value that must match; may be repeated")
	f.StringSliceVar(&o.states, "state", nil, "states to show, as started,stopped")
	f.StringVar(&o.name, "name", "", "beginning of the name")
	f.IntVar(&o.limit, "limit", 0, "show at most so many; 0 is all")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "ids only")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func stateNames() []string {
	var names []string
	for _, s := range engine.States() {
		names = append(names, string(s))
	}
	return names
}

func (a *app) list(ctx context.Context, o listOptions) error {
	labels, err := pairs("label", o.labels)
	if err != nil {
		return err
	}
	q := engine.SandboxQuery{NamePrefix: o.name, Labels: labels, Sort: "createdAt"}
	for _, s := range o.states {
		if !engine.State(s).Valid() {
			return usagef("--state: there is no state %q", s)
		}
		q.States = append(q.States, engine.State(s))
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	all, err := listAll(ctx, c, q, o.limit)
	if err != nil {
		return err
	}
	return a.printList(all, o.quiet, c.URL())
}

// listAll reads pages until limit; 0 reads all.
func listAll(ctx context.Context, c *client.Client, q engine.SandboxQuery, limit int) ([]engine.Sandbox, error) {
	var all []engine.Sandbox
	q.Limit = 200
	for {
		page, err := c.Sandboxes().List(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if limit > 0 && len(all) >= limit {
			return all[:limit], nil
		}
		if page.Next == "" {
			return all, nil
		}
		q.Cursor = page.Next
	}
}

func (a *app) printList(all []engine.Sandbox, quiet bool, url string) error {
	if a.asJSON() {
		items := make([]wire.Item, len(all))
		for i, s := range all {
			items[i] = wire.FromItem(s, url+"/toolbox")
		}
		return a.json(items)
	}
	if quiet {
		for _, s := range all {
			fmt.Fprintln(a.out, s.ID)
		}
		return nil
	}
	now := time.Now()
	rows := [][]string{{"NAME", "STATE", "CPU", "MEMORY", "DISK", "SNAPSHOT", "AGE", "LABELS"}}
	for _, s := range all {
		rows = append(rows, []string{
			s.Name, a.state(string(s.State)), fmt.Sprint(s.Resources.CPU), mib(s.Resources.MemoryMiB),
			mib(s.Resources.DiskMiB), orElse(s.Snapshot, "-"), age(s.CreatedAt, now), labelText(s.Labels),
		})
	}
	return table(a.out, rows)
}

// newListByNameCommand is the list command of a kind of thing that is found by
// a part of its name.
func newListByNameCommand(short string, list func(ctx context.Context, name string) error) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return list(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "part of the name")
	return cmd
}
