package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
)

type upOptions struct {
	snapshot string
	wait     time.Duration
	serve    []string
}

func newUpCommand(a *app) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up [-- SERVE-FLAGS...]",
		Short: "Start the server in the background and run a first sandbox",
		Long: "Starts the server unless it runs, waits until it is ready and has its default\n" +
			"snapshot, then creates a sandbox, runs Python in it and tells how to go on.\n" +
			"It may be run again at any time. Flags after -- go to atoll serve.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return fmt.Errorf("unknown argument %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.serve = args
			return a.up(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.snapshot, "snapshot", "atoll-small", "snapshot to wait for and to create from")
	cmd.Flags().DurationVar(&o.wait, "wait", 30*time.Minute, "how long the snapshot may take to build")
	return cmd
}

func (a *app) up(ctx context.Context, o upOptions) error {
	where := orElse(orElse(a.url, a.env("ATOLL_URL")), a.fileURL())
	if err := a.ensureServer(ctx, where, o.serve); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	a.say("server   %s", c.URL())
	if err := a.waitSnapshot(ctx, c, o); err != nil {
		return err
	}
	s, err := a.first(ctx, c, o.snapshot)
	if err != nil {
		return err
	}
	a.howToGoOn(c.URL(), s.Name)
	return nil
}

func (a *app) say(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }

// ensureServer starts a server unless one answers, and waits until it is ready.
func (a *app) ensureServer(ctx context.Context, where string, flags []string) error {
	probe, err := client.New(where, "", client.Options{})
	if err != nil {
		return err
	}
	if answers(ctx, probe) {
		return waitReady(ctx, probe, nil)
	}
	d, err := a.startDaemon(where, flags)
	if err != nil {
		return err
	}
	defer d.release()
	a.say("starting the server; its log is %s", d.log)
	return waitReady(ctx, probe, d)
}

// answers tells whether any server listens there, ready or not.
func answers(ctx context.Context, c *client.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := c.Ready(ctx)
	return err == nil || strings.HasPrefix(engine.AsError(err).Message, "not ready")
}

const readyWait = 2 * time.Minute

// waitReady waits until the server is ready; d is nil when we did not start it.
func waitReady(ctx context.Context, c *client.Client, d *daemon) error {
	deadline := time.Now().Add(readyWait)
	for {
		err := c.Ready(ctx)
		if err == nil {
			return nil
		}
		if d.ended() {
			return engine.Errorf(engine.KindUnavailable, "the server ended at start").
				WithHint("the end of its log:\n%s", d.lastLines())
		}
		if time.Now().After(deadline) {
			return engine.Errorf(engine.KindTimeout, "the server is not ready after %s: %s", readyWait, engine.AsError(err).Message).
				WithHint("%s", d.lookAtLog())
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return engine.AsError(ctx.Err())
	}
}

// snapshotAppears is how long a new server may take to name its snapshots.
const snapshotAppears = 15 * time.Second

// waitSnapshot waits until the default snapshot is built, and tells of it.
func (a *app) waitSnapshot(ctx context.Context, c *client.Client, o upOptions) error {
	began, last := time.Now(), time.Time{}
	for {
		s, err := c.Snapshots().Snapshot(ctx, engine.SnapshotRef{IDOrName: o.snapshot})
		took := time.Since(began)
		switch {
		case engine.KindOf(err) == engine.KindNotFound && took < snapshotAppears:
		case err != nil:
			return err
		case s.State == engine.SnapshotActive:
			a.say("snapshot %s is ready (%s)", s.Name, bytesText(s.SizeBytes))
			return nil
		case s.State == engine.SnapshotError || s.State == engine.SnapshotBuildFailed:
			return engine.Errorf(engine.KindInternal, "snapshot %s failed: %s", s.Name, s.Error).
				WithHint("mend that, then run atoll down and atoll up")
		case time.Since(last) > 10*time.Second:
			a.say("snapshot %s is %s, for %s now; the first time takes minutes", s.Name, s.State, span(took))
			last = time.Now()
		}
		if took > o.wait {
			return engine.Errorf(engine.KindTimeout, "snapshot %s is not ready after %s", o.snapshot, o.wait)
		}
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

// firstLabel marks the sandbox that up makes, so that the next run replaces it.
const firstLabel = "atoll.up"

const program = `import platform, os
print(f"Hello from Python {platform.python_version()} in sandbox {platform.node()}, user {os.environ.get('USER', os.getuid())}")
print("6 * 7 =", 6 * 7)`

// first makes a sandbox, runs Python in it and shows what happened.
func (a *app) first(ctx context.Context, c *client.Client, snapshot string) (engine.Sandbox, error) {
	labels := map[string]string{firstLabel: "true"}
	old, err := listAll(ctx, c, engine.SandboxQuery{Labels: labels, IncludeErroredDeleted: true}, 0)
	if err != nil {
		return engine.Sandbox{}, err
	}
	for _, s := range old {
		if _, err := c.Sandboxes().Delete(ctx, ref(s.ID)); err != nil && engine.KindOf(err) != engine.KindNotFound {
			return engine.Sandbox{}, err
		}
	}
	began := time.Now()
	s, err := c.Sandboxes().Create(ctx, engine.CreateSandbox{Name: "hello", Labels: labels, Snapshot: snapshot})
	if engine.KindOf(err) == engine.KindConflict { // somebody else's hello
		s, err = c.Sandboxes().Create(ctx, engine.CreateSandbox{Labels: labels, Snapshot: snapshot})
	}
	if err != nil {
		return s, err
	}
	a.say("\nsandbox  %s (%s) in %s", s.Name, s.ID, millis(time.Since(began)))
	waterfall(a.out, s.Timing, s.Warm)
	a.say("\n$ atoll exec %s -- python3 -c '…'", s.Name)
	return s, a.python(ctx, c, s)
}

func (a *app) python(ctx context.Context, c *client.Client, s engine.Sandbox) error {
	rt, err := a.toolbox(ctx, c, s.ID)
	if err != nil {
		return err
	}
	began := time.Now()
	run := stream{out: a.out, err: a.err}
	code, err := run.exec(ctx, rt, toolbox.ExecStart{Argv: []string{"python3", "-c", program}})
	if err != nil {
		return err
	}
	if code != 0 {
		return engine.Errorf(engine.KindInternal, "python3 in sandbox %s ended with %d", s.Name, code)
	}
	a.say("exit code 0 after %s", millis(time.Since(began)))
	return nil
}

func (a *app) howToGoOn(url, name string) {
	key := `$(sed -n 's/.*"apiKey": *"\([^"]*\)".*/\1/p' ` + filepath.Join(a.home, "credentials.json") + ")"
	if a.env("ATOLL_API_KEY") != "" {
		key = "$ATOLL_API_KEY"
	}
	a.say(`
Connect an agent:
  atoll mcp init claude-code      (or claude, cursor, windsurf, vscode, codex, gemini)

Use the API, or any client of the Daytona API:
  export DAYTONA_API_URL=%s/api
  export DAYTONA_API_KEY=%s

Go on:
  atoll shell %s      atoll list      atoll --help`, url, key, name)
}
