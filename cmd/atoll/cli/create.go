package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
)

type createOptions struct {
	name, snapshot, image, user, class, target string
	policy                                     string
	env, labels, secrets                       []string
	limits                                     limits
	network                                    networkOptions
	public, cold, timing                       bool
	ephemeral                                  bool
	autoStop, autoArchive, autoDelete, ttl     time.Duration
}

// limits are the flags for resources.
type limits struct {
	cpu, memory, disk float64
	gpu               int
	pids              int64
}

func (l *limits) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Float64Var(&l.cpu, "cpu", 0, "cores")
	f.Float64Var(&l.memory, "memory", 0, "memory in GiB")
	f.Float64Var(&l.disk, "disk", 0, "disk in GiB")
	f.Int64Var(&l.pids, "pids", 0, "limit of processes")
}

func (l limits) resources() engine.Resources {
	return engine.Resources{
		CPU: l.cpu, MemoryMiB: int64(l.memory * 1024), DiskMiB: int64(l.disk * 1024), GPU: l.gpu, PIDs: l.pids,
	}
}

func newCreateCommand(a *app) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Create a sandbox",
		Example: "  atoll create --name build --cpu 2 --memory 4\n" +
			"  atoll create --image debian:12.5 --env CI=true --label team=a --timing",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if o.name != "" {
					return usagef("the name is given twice")
				}
				o.name = args[0]
			}
			return a.create(cmd, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name, unique among your sandboxes; its id when not given")
	f.StringVar(&o.snapshot, "snapshot", "", "snapshot to create from; the server's default when not given")
	f.StringVar(&o.image, "image", "", "image to create from, instead of a snapshot")
	f.StringVar(&o.user, "user", "", "user that commands run as")
	f.StringVar(&o.class, "class", "", "isolation: container, gvisor or linux-vm")
	f.StringVar(&o.target, "target", "", "region")
	f.StringArrayVarP(&o.env, "env", "e", nil, "KEY=value for all commands; may be repeated")
	f.StringArrayVar(&o.secrets, "secret", nil, "KEY=name of a secret, whose placeholder the variable holds; may be repeated")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "KEY=value; may be repeated")
	o.limits.flags(cmd)
	f.IntVar(&o.limits.gpu, "gpu", 0, "GPUs")
	f.BoolVar(&o.public, "public", false, "previews need no key")
	f.StringVar(&o.policy, "policy", "", "policy to be under; the key's or the snapshot's when not given")
	_ = cmd.RegisterFlagCompletionFunc("policy", a.policyNames)
	o.network.flags(cmd)
	f.DurationVar(&o.autoStop, "auto-stop", 15*time.Minute, "stop after this long without activity; 0 is never")
	f.DurationVar(&o.autoArchive, "auto-archive", 7*24*time.Hour, "archive after this long stopped")
	f.DurationVar(&o.autoDelete, "auto-delete", -time.Minute, "delete after this long stopped; negative is never")
	f.DurationVar(&o.ttl, "ttl", 0, "delete after this long; 0 is never")
	f.BoolVar(&o.ephemeral, "ephemeral", false, "delete as soon as it stops")
	f.BoolVar(&o.cold, "cold", false, "do not claim a ready one")
	f.BoolVar(&o.timing, "timing", false, "show what each stage took")
	cmd.MarkFlagsMutuallyExclusive("snapshot", "image")
	cmd.MarkFlagsMutuallyExclusive("ephemeral", "auto-delete")
	return cmd
}

func (a *app) create(cmd *cobra.Command, o createOptions) error {
	req, err := o.request(cmd)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	done := a.waiting(cmd.Context(), "creating the sandbox")
	s, err := c.Sandboxes().Create(cmd.Context(), req)
	done()
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(sandboxJSON(s, c.URL()))
	}
	if err := table(a.out, [][]string{{"ID", "NAME", "STATE"}, {s.ID, s.Name, a.state(string(s.State))}}); err != nil {
		return err
	}
	if o.timing {
		waterfall(a.out, s.Timing, s.Warm)
	}
	return nil
}

func (o createOptions) request(cmd *cobra.Command) (engine.CreateSandbox, error) {
	env, err := pairs("env", o.env)
	if err != nil {
		return engine.CreateSandbox{}, err
	}
	labels, err := pairs("label", o.labels)
	if err != nil {
		return engine.CreateSandbox{}, err
	}
	secrets, err := pairs("secret", o.secrets)
	if err != nil {
		return engine.CreateSandbox{}, err
	}
	req := engine.CreateSandbox{
		Name: o.name, Snapshot: o.snapshot, Image: o.image, User: o.user, Env: env, Secrets: secrets, Labels: labels, Public: o.public,
		Target: o.target, Class: engine.Class(o.class), Resources: o.limits.resources(), Cold: o.cold,
		Network: o.network.policy(), Policy: o.policy,
	}
	for _, flag := range []string{"auto-stop", "auto-archive", "auto-delete", "ttl", "ephemeral"} {
		if cmd.Flags().Changed(flag) {
			req.Lifecycle = o.lifecycle()
		}
	}
	return req, nil
}

func (o createOptions) lifecycle() *engine.Lifecycle {
	l := &engine.Lifecycle{AutoStop: o.autoStop, AutoArchive: o.autoArchive, AutoDelete: o.autoDelete, TTL: o.ttl}
	if o.ephemeral {
		l.AutoDelete = 0
	}
	return l
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// waiting shows on a terminal that work goes on, after a while. The function
// it returns ends that and wipes the line.
func (a *app) waiting(ctx context.Context, what string) func() {
	if _, ok := terminal(a.err); !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.spin(ctx, what)
	}()
	return func() { cancel(); <-done }
}

func (a *app) spin(ctx context.Context, what string) {
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if time.Since(began) > 500*time.Millisecond {
				fmt.Fprint(a.err, "\r\x1b[K")
			}
			return
		case now := <-tick.C:
			fmt.Fprintf(a.err, "\r\x1b[K%s … %s", what, span(now.Sub(began)))
		}
	}
}
