package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
)

// A client that vanishes leaves a sandbox open for a lease at most.
const (
	learnLease = time.Minute
	learnRenew = 15 * time.Second
)

type learnOptions struct {
	period    time.Duration
	until     bool // interrupted
	out, name string
	wildcards bool
}

func newPolicyLearnCommand(a *app) *cobra.Command {
	var o learnOptions
	cmd := &cobra.Command{
		Use: "learn SANDBOX", Short: "Run a sandbox open for a while and write the policy that it needs",
		Long: "Opens a sandbox's network, watches what it looks up and connects to, and writes\n" +
			"the smallest policy under which it can do the same again. Then the settings of\n" +
			"before hold again, also when this command or the server is killed: a minute after\n" +
			"the command, and as soon as the server is back. Connections to ports 80 and 443\n" +
			"begin anew at both ends of that time. What no policy opens stays closed.",
		Example: "  atoll policy learn build --for 10m --out build.yaml\n" +
			"  atoll policy learn build --until-interrupted --wildcards",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.period == 0 && !o.until {
				return usagef("say how long: --for 10m, or --until-interrupted")
			}
			if o.period < 0 || o.period > engine.MaxLearning {
				return usagef("--for is 1s to %v", engine.MaxLearning)
			}
			return a.learn(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.period, "for", 0, "how long, as 10m; an interrupt ends it sooner")
	f.BoolVar(&o.until, "until-interrupted", false, "until ctrl-c")
	f.StringVar(&o.out, "out", "", "file to write the policy to, instead of standard output")
	f.StringVar(&o.name, "name", "", "name of the policy (default: the sandbox's)")
	f.BoolVar(&o.wildcards, "wildcards", false, "make a wildcard of two names or more below one")
	cmd.MarkFlagsMutuallyExclusive("for", "until-interrupted")
	return cmd
}

func (a *app) learn(ctx context.Context, sandbox string, o learnOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := a.watchLearning(ctx, c.Learner(), sandbox, o); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	l, err := c.Learner().Finish(ctx, engine.Principal{}, ref(sandbox), engine.LessonOptions{Name: o.name, Wildcards: o.wildcards})
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(l)
	}
	var text strings.Builder
	for _, n := range l.Notes {
		fmt.Fprintf(&text, "# %s\n", n)
	}
	text.WriteString(l.Policy)
	if o.out == "" {
		_, err = fmt.Fprint(a.out, text.String())
		return err
	}
	if err := os.WriteFile(o.out, []byte(text.String()), 0o644); err != nil { //nolint:gosec // it is for others to read
		return engine.Errorf(engine.KindInvalid, "%v", err)
	}
	fmt.Fprintf(a.err, "written to %s; the settings of before hold again\n", o.out)
	return nil
}

// watchLearning keeps the sandbox open until the time is over or the command is
// interrupted. It renews a lease meanwhile.
func (a *app) watchLearning(ctx context.Context, l engine.Learner, sandbox string, o learnOptions) error {
	end := time.Now().Add(o.period)
	lease := func() time.Duration {
		if o.until {
			return learnLease
		}
		return min(learnLease, max(time.Until(end), engine.MinLearning))
	}
	first, err := l.Learn(ctx, engine.Principal{}, ref(sandbox), lease(), time.Time{})
	if err != nil {
		return err
	}
	if o.until {
		fmt.Fprintf(a.err, "sandbox %s is open and watched; ctrl-c ends it\n", sandbox)
	} else {
		fmt.Fprintf(a.err, "sandbox %s is open and watched for %v; ctrl-c ends it sooner\n", sandbox, o.period)
	}
	for o.until || time.Now().Before(end) {
		wait := learnRenew
		if !o.until {
			wait = min(wait, time.Until(end))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if !o.until && !time.Now().Before(end) {
			return nil
		}
		_, err := l.Learn(ctx, engine.Principal{}, ref(sandbox), lease(), first.Since)
		switch {
		case ctx.Err() != nil:
			return nil
		case engine.KindOf(err) == engine.KindUnavailable: // the next try may come in time
			fmt.Fprintf(a.err, "not prolonged yet: %v\n", err)
		case err != nil:
			fmt.Fprintf(a.err, "%v; what was seen until then follows\n", err)
			return nil
		}
	}
	return nil
}
