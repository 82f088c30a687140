// Command mcp-conformance serves the fixtures that the Model Context Protocol's
// conformance suite asks for, through the same HTTP stack as atoll: guards,
// sessions and streams. It exists for that suite alone.
package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		stop()
		os.Exit(1)
	}
}

type options struct {
	listen  string
	key     string
	verbose bool
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:          "mcp-conformance",
		Short:        "Serve the conformance suite's fixtures through Atoll's MCP stack",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(c *cobra.Command, _ []string) error { return run(c.Context(), o) },
	}
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:3901", "address; port 0 takes a free one")
	c.Flags().StringVar(&o.key, "key", "", "ask for this bearer key; the suite sends none")
	c.Flags().BoolVar(&o.verbose, "verbose", false, "log requests")
	return c
}

// run serves until ctx ends. The first line on standard output is the URL.
func run(ctx context.Context, o options) error {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	agents := mcp.Wrap(newFixtures(log), mcp.Options{Version: version, Log: log, Principal: principal(o.key), TaskGrace: taskGrace, NeedsTask: needsTask})
	defer agents.Close()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/mcp", needsSampling(agents.Handler()))
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(listener) }()
	fmt.Printf("http://%s/mcp\n", listener.Addr())

	select {
	case err = <-failed:
	case <-ctx.Done():
		err = errors.Join(agents.Close(), web.Close())
		<-failed
	}
	return err
}

// principal lets everybody in who knows the key, or everybody.
func principal(key string) func(*http.Request) (engine.Principal, bool) {
	return func(r *http.Request) (engine.Principal, bool) {
		sent := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		ok := key == "" || subtle.ConstantTimeCompare([]byte(sent), []byte(key)) == 1
		return engine.Principal{OrganizationID: engine.DefaultOrganization, KeyID: "suite"}, ok
	}
}
