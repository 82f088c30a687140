package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/cmd/atoll/cli"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/gateway/client"
	"github.com/atoll-sh/atoll/mcp"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// mcpOptions are the flags of the stdio server.
type mcpOptions struct {
	toolsets []string
	localDir []string
	readOnly bool
	verbose  bool
	ask      bool
}

// dirs returns the directories that the toolset local may use, absolute and
// without links: those that the user named, or the one that the agent started
// this command in. The home directory and the root are too much to be meant,
// so they have to be named.
func (o mcpOptions) dirs() ([]string, error) {
	if !slices.Contains(o.toolsets, tools.SetLocal) && !slices.Contains(o.toolsets, tools.SetAll) {
		return nil, nil
	}
	named := o.localDir
	if len(named) == 0 {
		here, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("find the working directory: %w", err)
		}
		if home, _ := os.UserHomeDir(); here == home || here == filepath.Dir(here) {
			if slices.Contains(o.toolsets, tools.SetLocal) {
				return nil, engine.Errorf(engine.KindInvalid, "the toolset local would open all of %s", here).WithHint("name the directory with --local-dir")
			}
			return nil, nil
		}
		named = []string{here}
	}
	var out []string
	for _, dir := range named {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return nil, engine.Errorf(engine.KindInvalid, "--local-dir %s cannot be used", dir).WithHint("name a directory that exists").Wrap(err)
		}
		out = append(out, abs)
	}
	return out, nil
}

// newMCPCommand serves agents on stdio and sets them up.
func newMCPCommand() *cobra.Command {
	var o mcpOptions
	serve := func(cmd *cobra.Command, _ []string) error { return serveMCP(cmd, o) }
	flags := func(cmd *cobra.Command) {
		cmd.Flags().StringSliceVar(&o.toolsets, "toolsets", nil, "toolsets to offer: "+strings.Join(tools.Sets(), ", ")+" (default core)")
		cmd.Flags().StringSliceVar(&o.localDir, "local-dir", nil, "directories that the toolset local may copy from and to (default the working directory)")
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
	dirs, err := o.dirs()
	if err != nil {
		return err
	}
	c, err := client.New(where, "", client.Options{UserAgent: "atoll-mcp/" + version, HTTP: &freshKey{cmd: cmd, next: http.DefaultTransport}})
	if err != nil {
		return err
	}
	s, err := mcp.New(
		mcp.Backend{
			Sandboxes: c.Sandboxes(), Snapshots: c.Snapshots(), Toolboxes: c.Toolboxes(), Inspector: c.Inspector(), Previews: c, Activity: c.Activity(), Denials: c.Access(),
			Policy: egress.FromNetwork, Keys: c.Keys(), Usage: c, Audit: c,
		},
		mcp.Options{Version: version, Log: log, Sets: o.toolsets, ReadOnly: o.readOnly, LocalDirs: dirs, LocalScope: keyScope(c), Approve: o.approver(c)})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.ServeStdio(cmd.Context(), os.Stdin, os.Stdout)
}

// keyScope returns what the key in use is limited to. The server itself keeps
// to it in all that a tool does; here it only shortens the list of tools, so
// without an answer nothing is left out.
func keyScope(c *client.Client) func(context.Context) engine.Scope {
	var mu sync.Mutex
	var known engine.Scope
	var asked time.Time
	return func(ctx context.Context) engine.Scope {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) < 5*time.Second {
			return known
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		k, _ := c.CurrentKey(ctx)
		known, asked = k.Scope, time.Now()
		return known
	}
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
