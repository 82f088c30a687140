package cli

import (
	"context"

	"github.com/spf13/cobra"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"
)

type execOptions struct {
	tty, noStdin bool
	cwd, user    string
	env          []string
}

func newExecCommand(a *app) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec [flags] NAME [--] COMMAND [ARG...]",
		Short: "Run a command in a sandbox",
		Long: "Runs a command in a sandbox with this terminal's input and output and exits\n" +
			"with its exit code. A single argument is a shell command line, more are a\n" +
			"program and its arguments.",
		Example: "  atoll exec build -- python3 -c 'print(6*7)'\n" +
			"  atoll exec build 'ls | wc -l'\n" +
			"  tar c . | atoll exec build -- tar x -C /tmp",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.sandboxNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exec(cmd.Context(), o, args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	f.BoolVarP(&o.noStdin, "no-stdin", "n", false, "the command gets no input")
	f.StringVarP(&o.cwd, "workdir", "w", "", "directory to run in")
	f.StringVarP(&o.user, "user", "u", "", "user to run as: a name or uid[:gid]")
	f.StringArrayVarP(&o.env, "env", "e", nil, "KEY=value; may be repeated")
	return cmd
}

func (a *app) exec(ctx context.Context, o execOptions, sandbox string, args []string) error {
	if args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return usagef("name a command to run")
	}
	env, err := pairs("env", o.env)
	if err != nil {
		return err
	}
	start := toolbox.ExecStart{Cwd: o.cwd, User: o.user, Env: env, TTY: o.tty}
	if len(args) == 1 {
		start.Command = args[0]
	} else {
		start.Argv = args
	}
	return a.attach(ctx, sandbox, start, o.noStdin)
}

func newShellCommand(a *app) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "shell NAME", Aliases: []string{"sh"}, Short: "Open a shell in a sandbox", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, tty := terminal(a.in)
			return a.attach(cmd.Context(), args[0], toolbox.ExecStart{Login: true, TTY: tty, User: user}, false)
		},
	}
	cmd.Flags().StringVarP(&user, "user", "u", "", "user to log in as")
	return cmd
}

// attach runs a command with our own input and output and returns its exit
// code as an error.
func (a *app) attach(ctx context.Context, sandbox string, start toolbox.ExecStart, noStdin bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	rt, err := a.toolbox(ctx, c, sandbox)
	if err != nil {
		return err
	}
	run := stream{out: a.out, err: a.err}
	if !noStdin {
		run.in = a.in
	}
	if start.TTY {
		restore, err := a.rawTerminal(&start, &run)
		if err != nil {
			return err
		}
		defer restore()
	}
	code, err := run.exec(ctx, rt, start)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}
