// Package cli is the command line: one file per command, each a constructor,
// an options struct and a run function. Commands speak to a server through
// gateway/client and know nothing of how it works; what needs the server's own
// code (serve, mcp, tearing a host down) is handed in by package main.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/atoll-sh/atoll/engine"
)

// Options are what package main adds.
type Options struct {
	Version  string
	Commands []*cobra.Command // further commands
	// Teardown takes everything that a server with this home made off the
	// host, but keeps the home. The server's process has ended. nil: nothing
	// to do.
	Teardown func(ctx context.Context, home string, log *slog.Logger) error
	// Doctor examines this host when no server answers. nil: not offered.
	Doctor func(ctx context.Context) (engine.Report, error)
}

// Main runs the command that the process was started for and returns its exit
// code: 0, 1 for an error, 2 for a wrong use, or that of the command run in a
// sandbox.
func Main(o Options) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process
	a := &app{Options: o, in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv}
	root := a.root()
	err := root.ExecuteContext(ctx)
	return a.exitCode(err)
}

// Root is the tree of all commands, for what describes them.
func Root(o Options) *cobra.Command {
	return (&app{Options: o, in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv}).root()
}

// app is what all commands share.
type app struct {
	Options
	in       io.Reader
	out, err io.Writer
	env      func(string) string

	url    string
	home   string
	format string
}

const (
	defaultURL  = "http://127.0.0.1:7777"
	defaultHome = "/var/lib/atoll"
)

func (a *app) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "atoll",
		Short:         "Computers for agents",
		Long:          "Atoll gives agents their own computers: sandboxes that start in milliseconds.\n\nStart with: atoll up",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       a.Version,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return errors.Join(a.checkFormat(), a.absoluteHome())
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&a.url, "url", "", "URL of the server (ATOLL_URL; default "+defaultURL+")")
	f.StringVar(&a.home, "home", orElse(a.env("ATOLL_HOME"), defaultHome), "the server's directory, for its key and for up and down (ATOLL_HOME)")
	f.StringVarP(&a.format, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	cmd.SetOut(a.out)
	cmd.SetErr(a.err)
	cmd.AddCommand(a.commands()...)
	cmd.AddCommand(a.Commands...)
	checkArgs(cmd)
	return cmd
}

// commands lists our own commands.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		newUpCommand(a),
		newDownCommand(a),
		newCreateCommand(a),
		newListCommand(a),
		newInfoCommand(a),
		newStartCommand(a),
		newStopCommand(a),
		newDeleteCommand(a),
		newExecCommand(a),
		newShellCommand(a),
		newSSHCommand(a),
		newCopyCommand(a),
		newLogsCommand(a),
		newPreviewCommand(a),
		newSnapshotCommand(a),
		newSecretCommand(a),
		newWebhookCommand(a),
		newForkCommand(a),
		newResizeCommand(a),
		newKeyCommand(a),
		newOrgCommand(a),
		newUserCommand(a),
		newPolicyCommand(a),
		newNetworkCommand(a),
		newAccessCommand(a),
		newActivityCommand(a),
		newDoctorCommand(a),
		newSkillsCommand(a),
		newVersionCommand(a),
	}
}

func (a *app) absoluteHome() (err error) {
	a.home, err = filepath.Abs(a.home)
	return err
}

func (a *app) checkFormat() error {
	if a.format != "table" && a.format != "json" {
		return usage(fmt.Errorf("--output must be table or json, not %q", a.format))
	}
	return nil
}

// usageError is a wrong use of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// checkArgs makes every complaint about arguments a usage error.
func checkArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error { return usage(check(c, args)) }
	}
	for _, c := range cmd.Commands() {
		checkArgs(c)
	}
}

// exitStatus passes the exit code of a command in a sandbox on, without a word.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitCode reports err to people and returns the process's exit code.
func (a *app) exitCode(err error) int {
	var status exitStatus
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &wrong), strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(a.err, "atoll: %v\n", err)
		fmt.Fprintln(a.err, "hint: atoll help tells how it is used")
		return 2
	}
	a.report(err)
	return 1
}

// report prints an error for people; joined errors each get their lines.
func (a *app) report(err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			a.report(e)
		}
		return
	}
	var known *engine.Error
	if !errors.As(err, &known) {
		fmt.Fprintf(a.err, "atoll: %v\n", err)
		return
	}
	fmt.Fprintf(a.err, "atoll: %s\n", known.Message)
	if known.Hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", known.Hint)
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// terminal returns the descriptor of a stream that is a terminal.
func terminal(stream any) (int, bool) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd := int(f.Fd()) //nolint:gosec // descriptors are small
	return fd, term.IsTerminal(fd)
}
