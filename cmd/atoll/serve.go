package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/config"
	"github.com/atoll-sh/atoll/engine/probe"
	"github.com/atoll-sh/atoll/gateway/auth"
)

// newServeCommand is `atoll serve`.
func newServeCommand() *cobra.Command {
	var file string
	flags := config.Default()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server in the foreground",
		Long: "Runs the gateway, the engine and a runner in one process until it is told to stop.\n" +
			"Sandboxes go on when it ends; the next start adopts them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, os.Environ())
			if err != nil {
				return err
			}
			overlay(cmd, &cfg, flags)
			_, limits := auth.ParseLimits(cfg.RateLimits)
			if limits != nil {
				limits = fmt.Errorf("rate_limits: %w", limits)
			}
			if err := errors.Join(cfg.Validate(), limits); err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return serve(ctx, cfg, newLogger(cfg.LogLevel))
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file (YAML)")
	f.StringVar(&flags.Listen, "listen", flags.Listen, "host:port of the API")
	f.StringVar(&flags.PublicURL, "public-url", "", "URL that clients reach the server by")
	f.StringVar(&flags.PreviewDomain, "preview-domain", "", "name below which ports of sandboxes are seen; empty is the public URL's host, or localhost")
	f.StringVar(&flags.PreviewURLs, "preview-urls", flags.PreviewURLs, "form of preview URLs: host, or path where there are no names below the domain")
	f.StringVar(&flags.TLSCert, "tls-cert", "", "PEM file of a certificate; read again when it changes")
	f.StringVar(&flags.TLSKey, "tls-key", "", "PEM file of its key")
	f.StringVar(&flags.ACMEHost, "acme-host", "", "names to get certificates for by ACME, separated by commas")
	f.StringVar(&flags.ACMEEmail, "acme-email", "", "address for the ACME authority's notices")
	f.StringVar(&flags.ACMEDirectory, "acme-directory", "", "URL of the ACME authority; empty is Let's Encrypt")
	f.StringVar(&flags.SSHListen, "ssh-listen", "", "host:port of the SSH gateway, or off; empty is "+config.DefaultSSH+", if that is free")
	f.StringVar(&flags.SSHHost, "ssh-host", "", "host or host:port that clients reach the SSH gateway by")
	f.StringVar(&flags.OIDCIssuer, "oidc-issuer", "", "URL of an identity provider whose access tokens are taken beside API keys")
	f.StringVar(&flags.OIDCAudience, "oidc-audience", "", "how tokens name this server, separated by commas; empty is the public URL, with and without /mcp")
	f.StringVar(&flags.OIDCScopeClaim, "oidc-scope-claim", flags.OIDCScopeClaim, "claim that says what a token may do")
	f.StringVar(&flags.OIDCOrganizationClaim, "oidc-organization-claim", flags.OIDCOrganizationClaim, "claim that binds a token to an organization")
	f.StringVar(&flags.OIDCScopes, "oidc-scopes", "", "scopes that every token has, for providers that cannot grant "+strings.Join(engine.TokenScopes(), ", "))
	f.BoolVar(&flags.OIDCSignUp, "oidc-sign-up", false, "make a user of everybody whom the identity provider vouches for")
	f.StringVar(&flags.DatabaseURL, "database-url", "", "postgres://…; empty keeps SQLite in the home")
	f.StringVar(&flags.NATSURL, "nats-url", "", "join a cluster; empty runs in one process")
	f.StringVar(&flags.Containerd, "containerd", "", "socket of a containerd to use; empty starts our own")
	f.StringVar(&flags.Runtime, "runtime", flags.Runtime, "OCI runtime: runc, crun or a path")
	f.IntVar(&flags.PoolSize, "pool-size", flags.PoolSize, "warm sandboxes to keep ready; -1 chooses by cores, 0 is off")
	f.Int64Var(&flags.DiskGiB, "disk-gib", 0, "largest size of the storage pool; 0 chooses by free space")
	f.StringVar(&flags.PolicyHosts, "policy-hosts", "", "hosts for variables of policies, NAME=host,host …; empty asks the default snapshot's tools")
	f.StringVar(&flags.Resolvers, "resolvers", "", "DNS servers for sandboxes, ip:port,…; empty takes the host's")
	f.StringVar(&flags.RateLimits, "rate-limits", "", "NAME=REQUESTS/SECONDS,… with names of authenticated, sandbox-create, sandbox-lifecycle, anonymous, failed-auth")
	f.StringVar(&flags.LogLevel, "log-level", flags.LogLevel, "debug, info, warn or error")
	return cmd
}

// overlay copies the flags that were given over the configuration.
func overlay(cmd *cobra.Command, cfg *config.Config, flags config.Config) {
	set := map[string]func(){
		"listen":                  func() { cfg.Listen = flags.Listen },
		"ssh-listen":              func() { cfg.SSHListen = flags.SSHListen },
		"ssh-host":                func() { cfg.SSHHost = flags.SSHHost },
		"public-url":              func() { cfg.PublicURL = flags.PublicURL },
		"preview-domain":          func() { cfg.PreviewDomain = flags.PreviewDomain },
		"preview-urls":            func() { cfg.PreviewURLs = flags.PreviewURLs },
		"tls-cert":                func() { cfg.TLSCert = flags.TLSCert },
		"tls-key":                 func() { cfg.TLSKey = flags.TLSKey },
		"acme-host":               func() { cfg.ACMEHost = flags.ACMEHost },
		"acme-email":              func() { cfg.ACMEEmail = flags.ACMEEmail },
		"acme-directory":          func() { cfg.ACMEDirectory = flags.ACMEDirectory },
		"oidc-issuer":             func() { cfg.OIDCIssuer = flags.OIDCIssuer },
		"oidc-audience":           func() { cfg.OIDCAudience = flags.OIDCAudience },
		"oidc-scope-claim":        func() { cfg.OIDCScopeClaim = flags.OIDCScopeClaim },
		"oidc-organization-claim": func() { cfg.OIDCOrganizationClaim = flags.OIDCOrganizationClaim },
		"oidc-scopes":             func() { cfg.OIDCScopes = flags.OIDCScopes },
		"oidc-sign-up":            func() { cfg.OIDCSignUp = flags.OIDCSignUp },
		"database-url":            func() { cfg.DatabaseURL = flags.DatabaseURL },
		"nats-url":                func() { cfg.NATSURL = flags.NATSURL },
		"containerd":              func() { cfg.Containerd = flags.Containerd },
		"runtime":                 func() { cfg.Runtime = flags.Runtime },
		"pool-size":               func() { cfg.PoolSize = flags.PoolSize },
		"disk-gib":                func() { cfg.DiskGiB = flags.DiskGiB },
		"policy-hosts":            func() { cfg.PolicyHosts = flags.PolicyHosts },
		"resolvers":               func() { cfg.Resolvers = flags.Resolvers },
		"rate-limits":             func() { cfg.RateLimits = flags.RateLimits },
		"log-level":               func() { cfg.LogLevel = flags.LogLevel },
	}
	for name, apply := range set {
		if cmd.Flags().Changed(name) {
			apply()
		}
	}
	if home := cmd.Flag("home"); home != nil && home.Changed {
		cfg.Home = home.Value.String()
	}
	if abs, err := filepath.Abs(cfg.Home); err == nil {
		cfg.Home = abs
	}
}

func newLogger(level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level))
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

// shutdownGrace is how long open requests may take to end.
const shutdownGrace = 10 * time.Second

// serve runs a server until ctx ends. Sandboxes are left running.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	s, err := openServer(ctx, cfg, log, end)
	if err != nil {
		return err
	}
	log.Info("serving", "url", s.url, "home", cfg.Home)
	<-ctx.Done()
	log.Info("stopping; sandboxes go on")
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	return s.close(closeCtx)
}

// examine is `atoll doctor` on a host where no server answers.
func examine(ctx context.Context) (engine.Report, error) {
	cfg, err := config.Load("", os.Environ())
	if err != nil {
		return engine.Report{}, err
	}
	return probe.Host(ctx, probe.Options{Home: cfg.Home, Runtime: cfg.Runtime}), nil
}

// teardown is `atoll down` after the server's process has ended: it opens the
// home, stops the sandboxes and takes everything off this host.
func teardown(ctx context.Context, home string, log *slog.Logger) error {
	if _, err := os.Stat(filepath.Join(home, "server.json")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	cfg, err := config.Load("", os.Environ())
	if err != nil {
		return err
	}
	cfg.Home, cfg.PoolSize = home, 0
	h, err := openHost(ctx, cfg, log, watchers{})
	if err != nil {
		return err
	}
	return h.destroy(ctx)
}
