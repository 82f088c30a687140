package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/cmd/atoll/cli"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/mcp"
)

// mcpOptions are the flags of the stdio server.
type mcpOptions struct {
	toolsets []string
	readOnly bool
	verbose  bool
	ask      bool
}

// newMCPCommand serves agents on stdio and sets them up.
func newMCPCommand() *cobra.Command {
	var o mcpOptions
	serve := func(cmd *cobra.Command, _ []string) error { return serveMCP(cmd, o) }
	flags := func(cmd *cobra.Command) {
		cmd.Flags().StringSliceVar(&o.toolsets, "toolsets", nil, "toolsets to offer (default core)")
		cmd.Flags().BoolVar(&o.readOnly, "read-only", false, "offer only tools that change nothing")
		cmd.Flags().BoolVar(&o.ask, "ask", false, "ask the user, through an agent that can, whether to allow a host that a command was denied")
		cmd.Flags().BoolVar(&o.verbose, "verbose", false, "log every call to stderr")
	}
	cmd := &cobra.Command{
		Use:   "mcp",
		Short: "Serve agents over MCP on standard input and output",
		Long: "Serve agents over the Model Context Protocol on standard input and output.\n" +
			"Agents start this command themselves; atoll mcp init tells them to.\n\n" +
			"The server also answers MCP over HTTP at /mcp.",
		Args: cobra.NoArgs,
		RunE: serve,
	}
	stdio := &cobra.Command{Use: "stdio", Short: "The same as atoll mcp", Args: cobra.NoArgs, RunE: serve}
	flags(cmd)
	flags(stdio)
	cmd.AddCommand(stdio, newMCPInitCommand())
	return cmd
}

// serveMCP runs until the agent closes standard input. Nothing but protocol
// messages goes to standard output.
func serveMCP(cmd *cobra.Command, o mcpOptions) error {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	where, _, err := cli.Endpoint(cmd)
	if err != nil {
		log.Warn("no server yet; calls will tell", "err", err)
		where = defaultMCPURL
	}
	c, err := client.New(where, "", client.Options{UserAgent: "atoll-mcp/" + version, HTTP: &freshKey{cmd: cmd, next: http.DefaultTransport}})
	if err != nil {
		return err
	}
	s, err := mcp.New(
		mcp.Backend{Sandboxes: c.Sandboxes(), Snapshots: c.Snapshots(), Toolboxes: c.Toolboxes(), Inspector: c.Inspector(), Previews: c, Activity: c.Activity(), Denials: c.Access()},
		mcp.Options{Version: version, Log: log, Sets: o.toolsets, ReadOnly: o.readOnly, Approve: o.approver(c)})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.ServeStdio(cmd.Context(), os.Stdin, os.Stdout)
}

// approver has the server decide, by the key that this process uses.
func (o mcpOptions) approver(c *client.Client) mcp.Approve {
	if !o.ask {
		return nil
	}
	return func(ctx context.Context, p engine.Principal, id string, period time.Duration) error {
		_, err := c.Access().Approve(ctx, p, id, period)
		return err
	}
}

const defaultMCPURL = "http://127.0.0.1:7777"

// freshKey finds server and key anew for every request: agents keep this
// process for days, and the server may be made, moved or given a new key
// meanwhile.
type freshKey struct {
	cmd  *cobra.Command
	next http.RoundTripper
}

// RoundTrip signs the request. Without a key it answers as the server would.
func (f *freshKey) RoundTrip(req *http.Request) (*http.Response, error) {
	where, key, err := cli.Endpoint(f.cmd)
	if err != nil {
		return refusal(req, err), nil
	}
	out := req.Clone(req.Context())
	if u, err := url.Parse(where); err == nil && u.Host != "" {
		out.URL.Scheme, out.URL.Host = u.Scheme, u.Host
	}
	out.Header.Set("Authorization", "Bearer "+key)
	return f.next.RoundTrip(out)
}

func refusal(req *http.Request, err error) *http.Response {
	e := engine.AsError(err)
	body, _ := json.Marshal(map[string]any{
		"statusCode": http.StatusUnauthorized, "message": e.Message, "hint": e.Hint, "kind": e.Kind,
	})
	return &http.Response{
		Status: "401 Unauthorized", StatusCode: http.StatusUnauthorized, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: req,
	}
}
