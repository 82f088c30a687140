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

func newSnapshotCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Aliases: []string{"snapshots"}, Short: "Make, list and delete snapshots",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("snapshot needs one of create, prepare, list, info and delete")
		},
	}
	cmd.AddCommand(newSnapshotCreateCommand(a), newSnapshotPrepareCommand(a), newSnapshotListCommand(a), newSnapshotInfoCommand(a), newSnapshotDeleteCommand(a))
	return cmd
}

type snapshotOptions struct {
	sandbox, image, username string
	entrypoint               []string
	limits                   limits
}

func newSnapshotCreateCommand(a *app) *cobra.Command {
	var o snapshotOptions
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a snapshot of a sandbox's disk or of an image",
		Example: "  atoll snapshot create ready --sandbox build\n" +
			"  atoll snapshot create debian --image debian:12.5 --memory 2",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (o.sandbox == "") == (o.image == "") {
				return usagef("one of --sandbox and --image is needed")
			}
			return a.createSnapshot(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.sandbox, "sandbox", "", "sandbox whose disk to save; a running one goes on")
	f.StringVar(&o.image, "image", "", "image to pull, with a tag or digest")
	f.StringArrayVar(&o.entrypoint, "entrypoint", nil, "program and arguments to start in sandboxes; may be repeated")
	f.StringVar(&o.username, "username", "", "user of the image's registry; the password comes from ATOLL_REGISTRY_PASSWORD")
	o.limits.flags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("sandbox", a.sandboxNames(true))
	return cmd
}

func (a *app) createSnapshot(ctx context.Context, name string, o snapshotOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	what := "saving the disk"
	make := func() (engine.Snapshot, error) { return c.Snapshots().Save(ctx, ref(o.sandbox), name) }
	if o.image != "" {
		what = "pulling " + o.image
		make = func() (engine.Snapshot, error) { return a.pull(ctx, c, name, o) }
	}
	done := a.waiting(ctx, what)
	s, err := make()
	done()
	if err != nil {
		return err
	}
	if err := a.printSnapshots([]engine.Snapshot{s}, true); err != nil {
		return err
	}
	if s.State == engine.SnapshotError || s.State == engine.SnapshotBuildFailed {
		return engine.Errorf(engine.KindInternal, "snapshot %s failed: %s", s.Name, s.Error)
	}
	return nil
}

func (a *app) pull(ctx context.Context, c *client.Client, name string, o snapshotOptions) (engine.Snapshot, error) {
	return c.Snapshots().Create(ctx, engine.CreateSnapshot{
		Name: name, Image: o.image, Entrypoint: o.entrypoint, Resources: o.limits.resources(),
		Username: o.username, Password: a.env("ATOLL_REGISTRY_PASSWORD"),
	})
}

func newSnapshotPrepareCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "prepare NAME",
		Short: "Build one of the server's own snapshots now, or renew it",
		Long: "Builds the image of one of the server's own snapshots and tells how far it is.\n" +
			"atoll-desktop is built when a sandbox is first made of it; this does it ahead\n" +
			"of time. One that is built is renewed when its recipe or base has changed.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.snapshotNames,
		RunE: func(cmd *cobra.Command, args []string) error { return a.prepareSnapshot(cmd.Context(), args[0]) },
	}
}

func (a *app) prepareSnapshot(ctx context.Context, name string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	ref := engine.SnapshotRef{IDOrName: name}
	if _, err := c.Snapshots().Prepare(ctx, ref); err != nil {
		return err
	}
	last := ""
	for {
		s, err := c.Snapshots().Snapshot(ctx, ref)
		switch {
		case err != nil:
			return err
		case s.Progress != "" && s.Progress != last:
			a.say("%s", s.Progress)
			last = s.Progress
		case s.Progress == "" && s.State == engine.SnapshotActive:
			a.say("snapshot %s is ready (%s)", s.Name, bytesText(s.SizeBytes))
			return nil
		case s.Progress == "" && s.State == engine.SnapshotError:
			return engine.Errorf(engine.KindInternal, "snapshot %s failed: %s", s.Name, s.Error)
		}
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

func newSnapshotListCommand(a *app) *cobra.Command {
	return newListByNameCommand("List snapshots", func(ctx context.Context, name string) error {
		all, err := a.allSnapshots(ctx, name)
		if err != nil {
			return err
		}
		return a.printSnapshots(all, false)
	})
}

func (a *app) allSnapshots(ctx context.Context, name string) ([]engine.Snapshot, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var all []engine.Snapshot
	for page := 1; ; page++ {
		p, err := c.Snapshots().List(ctx, engine.SnapshotQuery{Name: name, Page: page, Limit: 200})
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if len(p.Items) == 0 || len(all) >= p.Total {
			return all, nil
		}
	}
}

// printSnapshots prints a table, or JSON: one object when one is asked for.
func (a *app) printSnapshots(all []engine.Snapshot, one bool) error {
	if a.asJSON() {
		items := make([]wire.Snapshot, len(all))
		for i, s := range all {
			items[i] = wire.FromSnapshot(s)
		}
		if one {
			return a.json(items[0])
		}
		return a.json(items)
	}
	now := time.Now()
	rows := [][]string{{"NAME", "STATE", "CPU", "MEMORY", "DISK", "SIZE", "FROM", "AGE"}}
	for _, s := range all {
		from := s.Image
		if s.SourceSandbox != "" {
			from = "sandbox " + s.SourceSandbox
		}
		rows = append(rows, []string{
			s.Name, a.state(string(s.State)), fmt.Sprint(s.Resources.CPU), mib(s.Resources.MemoryMiB),
			mib(s.Resources.DiskMiB), bytesText(s.SizeBytes), orElse(from, "-"), age(s.CreatedAt, now),
		})
	}
	return table(a.out, rows)
}

func newSnapshotInfoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "info NAME", Short: "Show one snapshot", Args: cobra.ExactArgs(1), ValidArgsFunction: a.snapshotNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			s, err := c.Snapshots().Snapshot(cmd.Context(), engine.SnapshotRef{IDOrName: args[0]})
			if err != nil {
				return err
			}
			return a.printSnapshots([]engine.Snapshot{s}, true)
		},
	}
}

func newSnapshotDeleteCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete snapshots", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.snapshotNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.deleteAll(args, func(name string) error {
				return c.Snapshots().Delete(cmd.Context(), engine.SnapshotRef{IDOrName: name})
			})
		},
	}
}

func (a *app) snapshotNames(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	all, err := a.allSnapshots(ctx, prefix)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
