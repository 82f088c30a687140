package cli

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

func newDownCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the server and its sandboxes, leaving nothing but data",
		Long: "Stops the server and every sandbox and takes away all processes, mounts,\n" +
			"network namespaces and cgroups. The disks of sandboxes stay in the home;\n" +
			"after atoll up they can be started again.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.down(cmd.Context()) },
	}
}

func (a *app) down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return engine.Errorf(engine.KindDenied, "taking the server down needs root").WithHint("run sudo atoll down")
	}
	if _, err := os.Stat(a.home); errors.Is(err, fs.ErrNotExist) {
		a.say("nothing to do: there is no %s", a.home)
		return nil
	}
	if err := a.stopServer(ctx); err != nil {
		return err
	}
	if a.Teardown != nil {
		log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
		if err := a.Teardown(ctx, a.home, log); err != nil {
			return err
		}
	}
	a.say("down; the data stays in %s", a.home)
	return nil
}

// stopWait is how long the server may take to end before it is killed.
const stopWait = 30 * time.Second

// stopServer ends the server's process, however it was started, and waits for
// it. Nothing to end is no error.
func (a *app) stopServer(ctx context.Context) error {
	pid, err := a.runningServer()
	if err != nil || pid == 0 {
		return errors.Join(err, a.askToEnd(ctx))
	}
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(syscall.SIGTERM)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return engine.Errorf(engine.KindInternal, "cannot stop the server's process %d", pid).Wrap(err)
	}
	if !waitGone(ctx, pid, stopWait) {
		a.say("the server does not end; killing it")
		_ = p.Kill()
		if !waitGone(ctx, pid, 5*time.Second) {
			return engine.Errorf(engine.KindTimeout, "the server's process %d does not end", pid)
		}
	}
	return remove(pidFile(a.home))
}

func (a *app) runningServer() (int, error) {
	if pid, err := serverPID(a.home); err != nil || pid != 0 {
		return pid, err
	}
	return lockHolder(filepath.Join(a.home, "lock"))
}

// lockHolder finds the process that holds the lock of a home, for a server
// that was started without a pid file. 0: nobody.
func lockHolder(path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, nil
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, nil
	}
	pid := findLock(string(locks), st)
	if pid == 0 || !serves(pid, "") {
		return 0, nil
	}
	return pid, nil
}

// askToEnd asks a server that only HTTP reaches. No answer is fine.
func (a *app) askToEnd(ctx context.Context) error {
	creds, err := readCredentials(filepath.Join(a.home, "credentials.json"))
	if err != nil {
		return remove(pidFile(a.home))
	}
	held, err := homeLocked(filepath.Join(a.home, "lock"))
	if err != nil || !held {
		return errors.Join(err, remove(pidFile(a.home)))
	}
	return engine.Errorf(engine.KindConflict, "a server uses %s but its process was not found", a.home).
		WithHint("stop the server at %s, then run atoll down again", creds.URL)
}

// homeLocked tells whether a server holds the home.
func homeLocked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // descriptors are small
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// waitGone waits until a process is no more, or only a zombie of others.
func waitGone(ctx context.Context, pid int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if _, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err != nil {
			return true
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return false
		}
	}
	return false
}
