package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type sshOptions struct {
	expires time.Duration
	config  bool
}

func newSSHCommand(a *app) *cobra.Command {
	var o sshOptions
	cmd := &cobra.Command{
		Use:   "ssh [flags] NAME [ARG...]",
		Short: "Enter a sandbox with ssh",
		Long: "Gets access to a started sandbox and runs this machine's ssh, which checks\n" +
			"the server's host key. What follows the name goes to ssh: its options and a\n" +
			"command. The access is kept for the next call until it expires.",
		Example: "  atoll ssh build\n" +
			"  atoll ssh build -L 8080:localhost:3000\n" +
			"  atoll ssh --config build >>~/.ssh/config   # for scp, rsync and editors",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.sandboxNames(false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.ssh(cmd.Context(), o, args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.DurationVar(&o.expires, "expires", 24*time.Hour, "for how long new access is good")
	f.BoolVar(&o.config, "config", false, "print the entry for ~/.ssh/config instead, which holds the access")
	return cmd
}

func (a *app) ssh(ctx context.Context, o sshOptions, name string, args []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	sb, err := c.Sandboxes().Sandbox(ctx, ref(name))
	if err != nil {
		return err
	}
	if sb.State != engine.StateStarted {
		return engine.Errorf(engine.KindConflict, "sandbox %s is %s, not started", sb.Name, sb.State).WithHint("start it with atoll start %s", sb.Name)
	}
	gate, err := c.SSHGateway(ctx)
	if err != nil {
		return err
	}
	if gate.Host == "" || len(gate.HostKeys) == 0 {
		return engine.Errorf(engine.KindUnsupported, "the server has no SSH gateway").WithHint("start it with --ssh-listen, or use atoll shell")
	}
	dir, err := a.sshDir(c.URL())
	if err != nil {
		return err
	}
	access, err := sshAccess(ctx, c, sb.ID, filepath.Join(dir, sb.ID+".json"), o.expires)
	if err != nil {
		return err
	}
	entry, err := writeKnownHosts(dir, sb.Name, access.Token, gate)
	if err != nil {
		return err
	}
	if o.config {
		_, err := fmt.Fprint(a.out, entry)
		return err
	}
	return a.runSSH(ctx, filepath.Join(dir, sb.ID+".conf"), entry, append([]string{sb.Name}, args...))
}

// sshDir is where access is kept: for this user and server only.
func (a *app) sshDir(server string) (string, error) {
	cache := a.env("XDG_CACHE_HOME")
	if cache == "" {
		home := a.env("HOME")
		if home == "" {
			return "", errors.New("HOME is not set, so there is no place to keep the access")
		}
		cache = filepath.Join(home, ".cache")
	}
	sum := sha256.Sum256([]byte(server))
	dir := filepath.Join(cache, "atoll", "ssh", hex.EncodeToString(sum[:8]))
	if strings.ContainsAny(dir, "\"\n") {
		return "", fmt.Errorf("%q cannot stand in ssh's configuration", dir)
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// sshAccess takes the access that was kept, if it is still good, else asks for
// new access, which ends the old and whatever uses it.
func sshAccess(ctx context.Context, c *client.Client, sandbox, path string, validFor time.Duration) (wire.SSHAccess, error) {
	var access wire.SSHAccess
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &access) == nil {
		if v, err := c.ValidateSSH(ctx, access.Token); err == nil && v.Valid && v.SandboxID == sandbox {
			return access, nil
		}
	}
	access, err := c.GrantSSH(ctx, engine.SandboxRef{IDOrName: sandbox}, validFor)
	if err != nil {
		return access, err
	}
	b, err := json.Marshal(access)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	return access, err
}

// writeKnownHosts pins the server's keys and returns the entry of ssh's
// configuration that uses them. The token stays out of command lines, which
// others can see.
func writeKnownHosts(dir, name, token string, gate wire.SSHConfiguration) (entry string, err error) {
	var known strings.Builder
	host := gate.Host
	if gate.Port != 22 {
		host = fmt.Sprintf("[%s]:%d", gate.Host, gate.Port)
	}
	for _, key := range gate.HostKeys {
		fmt.Fprintf(&known, "%s %s\n", host, key)
	}
	path := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(path, []byte(known.String()), 0o600); err != nil {
		return "", err
	}
	return fmt.Sprintf("Host %s\n\tHostName %s\n\tPort %d\n\tUser %s\n\tUserKnownHostsFile \"%s\"\n"+
		"\tStrictHostKeyChecking yes\n\tPreferredAuthentications none\n", name, gate.Host, gate.Port, token, path), nil
}

// runSSH runs ssh with the entry before the user's own configuration.
func (a *app) runSSH(ctx context.Context, path, entry string, args []string) error {
	if home := a.env("HOME"); home != "" {
		entry += "\nMatch all\n\tInclude \"" + filepath.Join(home, ".ssh", "config") + "\"\n"
	}
	if err := os.WriteFile(path, []byte(entry), 0o600); err != nil {
		return err
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return engine.Errorf(engine.KindUnsupported, "ssh is not installed on this machine").WithHint("install OpenSSH's client, or use atoll shell").Wrap(err)
	}
	// An interrupt is for the command in the sandbox, so it does not end ssh.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, append([]string{"-F", path}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exitStatus(exit.ExitCode())
	}
	return err
}
