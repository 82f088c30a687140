package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// each calls f for every name, goes on after errors and prints what it did.
func (a *app) each(ctx context.Context, names []string, did string, f func(context.Context, engine.Sandboxes, string) (engine.Sandbox, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var errs []error
	done := []wire.Sandbox{}
	for _, name := range names {
		s, err := f(ctx, c.Sandboxes(), name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, sandboxJSON(s, c.URL()))
		if !a.asJSON() {
			fmt.Fprintf(a.out, "%s %s\n", did, name)
		}
	}
	if a.asJSON() {
		errs = append(errs, a.json(done))
	}
	return errors.Join(errs...)
}

func newStartCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "start NAME...", Short: "Start stopped sandboxes", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.sandboxNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), args, "started", func(ctx context.Context, s engine.Sandboxes, name string) (engine.Sandbox, error) {
				return s.Start(ctx, ref(name))
			})
		},
	}
}

func newStopCommand(a *app) *cobra.Command {
	var o engine.StopOptions
	cmd := &cobra.Command{
		Use: "stop NAME...", Short: "Stop sandboxes and keep their disks", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.sandboxNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), args, "stopped", func(ctx context.Context, s engine.Sandboxes, name string) (engine.Sandbox, error) {
				return s.Stop(ctx, ref(name), o)
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "kill at once")
	cmd.Flags().DurationVar(&o.Grace, "grace", 10*time.Second, "how long processes may take to end")
	return cmd
}

type deleteOptions struct {
	all     bool
	missing bool
	labels  []string
}

func newDeleteCommand(a *app) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete sandboxes and their disks",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && !o.all && len(o.labels) == 0 {
				return errors.New("name the sandboxes, or use --label or --all")
			}
			return nil
		},
		ValidArgsFunction: a.sandboxNames(true),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.delete(cmd.Context(), o, args) },
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "all sandboxes")
	cmd.Flags().StringArrayVarP(&o.labels, "label", "l", nil, "those with this KEY=value; may be repeated")
	cmd.Flags().BoolVar(&o.missing, "ignore-missing", false, "a sandbox that is not there is no error")
	return cmd
}

func (a *app) delete(ctx context.Context, o deleteOptions, names []string) error {
	if o.all || len(o.labels) > 0 {
		more, err := a.matching(ctx, o)
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	return a.each(ctx, names, "deleted", func(ctx context.Context, s engine.Sandboxes, name string) (engine.Sandbox, error) {
		sb, err := s.Delete(ctx, ref(name))
		if o.missing && engine.KindOf(err) == engine.KindNotFound {
			return engine.Sandbox{Name: name}, nil
		}
		return sb, err
	})
}

func (a *app) matching(ctx context.Context, o deleteOptions) ([]string, error) {
	labels, err := pairs("label", o.labels)
	if err != nil {
		return nil, err
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	all, err := listAll(ctx, c, engine.SandboxQuery{Labels: labels, IncludeErroredDeleted: true}, 0)
	var names []string
	for _, s := range all {
		names = append(names, s.ID)
	}
	return names, err
}

func newForkCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "fork NAME", Short: "Make a running copy of a sandbox", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changed(cmd, "forking the sandbox", func(ctx context.Context, c *client.Client) (engine.Sandbox, error) {
				return c.Snapshots().Fork(ctx, ref(args[0]), name)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the copy; its id when not given")
	return cmd
}

func newResizeCommand(a *app) *cobra.Command {
	var l limits
	cmd := &cobra.Command{
		Use: "resize NAME", Short: "Change the limits of a sandbox", Args: cobra.ExactArgs(1),
		Long:              "Changes the limits of a sandbox. A running one can get more cpu and memory;\na stopped one also less, and a larger disk.",
		ValidArgsFunction: a.sandboxNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l == (limits{}) {
				return usagef("nothing to change: use --cpu, --memory or --disk")
			}
			return a.changed(cmd, "resizing the sandbox", func(ctx context.Context, c *client.Client) (engine.Sandbox, error) {
				return c.Sandboxes().Resize(ctx, ref(args[0]), l.resources())
			})
		},
	}
	l.flags(cmd)
	return cmd
}

// changed runs one change and prints the sandbox that comes of it.
func (a *app) changed(cmd *cobra.Command, what string, f func(context.Context, *client.Client) (engine.Sandbox, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	done := a.waiting(cmd.Context(), what)
	s, err := f(cmd.Context(), c)
	done()
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(sandboxJSON(s, c.URL()))
	}
	r := s.Resources
	return table(a.out, [][]string{
		{"ID", "NAME", "STATE", "CPU", "MEMORY", "DISK"},
		{s.ID, s.Name, a.state(string(s.State)), fmt.Sprint(r.CPU), mib(r.MemoryMiB), mib(r.DiskMiB)},
	})
}
