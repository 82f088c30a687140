package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/cmd/atoll/cli"
	"github.com/atoll-sh/atoll/mcp/clients"
)

// initOptions are the flags of atoll mcp init.
type initOptions struct {
	scope, transport, name                  string
	all, dryRun, remove, print, json, check bool
	agents                                  []string
}

func newMCPInitCommand() *cobra.Command {
	var o initOptions
	var names []string
	for _, a := range clients.Agents() {
		names = append(names, a.Name)
	}
	cmd := &cobra.Command{
		Use:   "init [agent ...]",
		Short: "Tell agents about this server",
		Long: "Write this server into the configuration of agents. Only our entry changes; everything else,\n" +
			"comments included, stays as it is, and a backup is kept. No key is written.\n\n" +
			"Agents: " + strings.Join(names, ", ") + ".\nWithout an agent it shows which are installed.",
		Example:   "  atoll mcp init claude-code\n  atoll mcp init --all --dry-run\n  atoll mcp init cursor --remove",
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			return initAgents(cmd, append(args, o.agents...), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.scope, "scope", "user", "user (all projects) or project (this directory)")
	f.StringVar(&o.transport, "transport", "stdio", "stdio (the agent starts atoll mcp) or http (it calls the server)")
	f.StringVar(&o.name, "name", "atoll", "name of the entry")
	f.StringSliceVar(&o.agents, "agent", nil, "agents, beside those that are arguments; with commas or repeated")
	f.BoolVar(&o.all, "all", false, "all agents that are installed")
	f.BoolVar(&o.dryRun, "dry-run", false, "show the change as a diff and write nothing")
	f.BoolVar(&o.remove, "remove", false, "take the entry out")
	f.BoolVar(&o.print, "print", false, "print what belongs into the file")
	f.BoolVar(&o.json, "json", false, "print the outcome as JSON")
	f.BoolVar(&o.check, "check", false, "connect as the agent will")
	return cmd
}

// outcome is what was done for one agent.
type outcome struct {
	Agent  string `json:"agent"`
	Title  string `json:"title"`
	Path   string `json:"path,omitempty"`
	Action string `json:"action"` // added, updated, removed, unchanged, would-add, would-update, would-remove, failed
	Backup string `json:"backup,omitempty"`
	Diff   string `json:"diff,omitempty"`
	Check  string `json:"check,omitempty"`
	Error  string `json:"error,omitempty"`
}

func initAgents(cmd *cobra.Command, args []string, o initOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	env, err := clientEnv()
	if err != nil {
		return err
	}
	if len(args) == 0 && !o.all {
		return listAgents(cmd.OutOrStdout(), env, o.asJSON(cmd))
	}
	agents, err := chosen(args, o.all, env)
	if err != nil {
		return err
	}
	server, err := serverEntry(cmd, o)
	if err != nil {
		return err
	}
	if o.print {
		return printEntries(cmd.OutOrStdout(), agents, server, env, clients.Scope(o.scope))
	}
	var all []outcome
	var errs []error
	for _, a := range agents {
		done := initAgent(cmd, a, env, server, o)
		if done.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", a.Name, done.Error))
		}
		all = append(all, done)
	}
	if o.asJSON(cmd) {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		errs = append(errs, enc.Encode(all))
	} else {
		printOutcomes(cmd.OutOrStdout(), all)
		adviseKey(cmd, o)
	}
	return errors.Join(errs...)
}

func (o initOptions) validate() error {
	switch {
	case o.scope != string(clients.User) && o.scope != string(clients.Project):
		return fmt.Errorf("--scope must be user or project, not %q", o.scope)
	case o.transport != string(clients.Stdio) && o.transport != string(clients.HTTP):
		return fmt.Errorf("--transport must be stdio or http, not %q", o.transport)
	case o.name == "" || strings.ContainsAny(o.name, " \t\r\n/\\\"'."):
		return fmt.Errorf("--name must be a plain word, not %q", o.name)
	case o.print && (o.remove || o.dryRun):
		return errors.New("--print excludes --remove and --dry-run")
	}
	return nil
}

func (o initOptions) asJSON(cmd *cobra.Command) bool {
	format, _ := cmd.Flags().GetString("output")
	return o.json || format == "json"
}

func clientEnv() (clients.Env, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return clients.Env{}, fmt.Errorf("find the home directory: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return clients.Env{}, fmt.Errorf("find the current directory: %w", err)
	}
	return clients.Env{
		OS: runtime.GOOS, Home: home, Dir: dir, Lookup: os.Getenv,
		ConfigHome: os.Getenv("XDG_CONFIG_HOME"), AppData: os.Getenv("APPDATA"),
	}, nil
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func chosen(names []string, all bool, env clients.Env) ([]clients.Agent, error) {
	var out []clients.Agent
	for _, n := range names {
		a, err := clients.Find(n)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	if !all {
		return out, nil
	}
	for _, a := range clients.Agents() {
		if a.Installed(env, exists) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no agent is installed here; name one, as: atoll mcp init claude-code")
	}
	return out, nil
}

// serverEntry is how agents reach this server: by this program's absolute
// path, because programs with windows have a short PATH.
func serverEntry(cmd *cobra.Command, o initOptions) (clients.Server, error) {
	s := clients.Server{Name: o.name, Transport: clients.Transport(o.transport), KeyEnv: "ATOLL_API_KEY"}
	asked, _ := cmd.Flags().GetString("url")
	if asked == "" {
		asked = os.Getenv("ATOLL_URL")
	}
	if s.Transport == clients.HTTP {
		if asked == "" {
			asked = defaultMCPURL
			if found, _, err := cli.Endpoint(cmd); err == nil {
				asked = found
			}
		}
		s.URL = strings.TrimSuffix(strings.TrimSuffix(asked, "/"), "/api") + "/mcp"
		return s, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return s, fmt.Errorf("find this program: %w", err)
	}
	s.Command, s.Args = exe, []string{"mcp"}
	if asked != "" && asked != defaultMCPURL {
		s.Args = append(s.Args, "--url", asked)
	}
	if f := cmd.Flags().Lookup("home"); f != nil && (f.Changed || os.Getenv("ATOLL_HOME") != "") {
		home, err := filepath.Abs(f.Value.String())
		if err != nil {
			return s, err
		}
		s.Args = append(s.Args, "--home", home)
	}
	return s, nil
}

func initAgent(cmd *cobra.Command, a clients.Agent, env clients.Env, s clients.Server, o initOptions) outcome {
	done := outcome{Agent: a.Name, Title: a.Title, Action: "failed"}
	change, err := clients.Plan(a, env, clients.Scope(o.scope), s, o.remove)
	done.Path = change.Path
	if err != nil {
		done.Error = err.Error()
		return done
	}
	done.Diff = change.Diff()
	done.Action = verb(change, s.Name, o.remove)
	if o.dryRun {
		if done.Action != "unchanged" {
			done.Action = map[string]string{"added": "would-add", "updated": "would-update", "removed": "would-remove"}[done.Action]
		}
		return done
	}
	if done.Backup, err = change.Apply(time.Now()); err != nil {
		done.Action, done.Error = "failed", err.Error()
		return done
	}
	if o.check && !o.remove {
		if done.Check, err = checkServer(cmd.Context(), s); err != nil {
			done.Error = "the check failed: " + err.Error()
		}
	}
	return done
}

func verb(c clients.Change, name string, remove bool) string {
	had, _ := c.Agent.Remove(c.Before, name)
	switch {
	case c.Nothing():
		return "unchanged"
	case remove:
		return "removed"
	case string(had) != string(c.Before):
		return "updated"
	}
	return "added"
}

func printOutcomes(w io.Writer, all []outcome) {
	for _, d := range all {
		switch {
		case strings.HasPrefix(d.Action, "would-"):
			fmt.Fprintf(w, "%s\n", d.Diff)
		case d.Action == "failed":
			fmt.Fprintf(w, "✘ %s: %s\n", d.Title, d.Error)
			continue
		default:
			fmt.Fprintf(w, "✔ %s: %s in %s\n", d.Title, d.Action, d.Path)
		}
		if d.Backup != "" {
			fmt.Fprintf(w, "  backup: %s\n", d.Backup)
		}
		if d.Check != "" {
			fmt.Fprintf(w, "  check: %s\n", d.Check)
		}
	}
}

// adviseKey tells when the agent will not find the key that this call used.
func adviseKey(cmd *cobra.Command, o initOptions) {
	if o.remove {
		return
	}
	if o.transport == string(clients.HTTP) {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: start the agent with ATOLL_API_KEY in its environment; the file names the variable, not the key")
		return
	}
	if os.Getenv("ATOLL_API_KEY") != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), `note: the key is in ATOLL_API_KEY here; agents may not pass that on. Put {"url":"…","apiKey":"…"} into ~/.config/atoll/credentials.json`)
	}
}

func printEntries(w io.Writer, agents []clients.Agent, s clients.Server, env clients.Env, scope clients.Scope) error {
	for _, a := range agents {
		path, err := a.Path(env, scope)
		if err != nil {
			return err
		}
		text, err := a.Print(s)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "# %s: %s\n%s", a.Title, path, text)
	}
	return nil
}

func listAgents(w io.Writer, env clients.Env, asJSON bool) error {
	type row struct {
		Agent     string `json:"agent"`
		Title     string `json:"title"`
		Installed bool   `json:"installed"`
		Path      string `json:"path"`
	}
	var rows []row
	for _, a := range clients.Agents() {
		path, err := a.Path(env, clients.User)
		if err != nil {
			return err
		}
		rows = append(rows, row{a.Name, a.Title, a.Installed(env, exists), path})
	}
	if asJSON {
		return json.NewEncoder(w).Encode(rows)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "AGENT\tINSTALLED\tFILE")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", r.Agent, map[bool]string{true: "yes", false: "-"}[r.Installed], r.Path)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nSet one up with: atoll mcp init AGENT, or all that are installed with --all")
	return err
}

// checkServer connects as the agent will, lists the tools and calls one.
func checkServer(ctx context.Context, s clients.Server) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := connect(s)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		return "", err
	}
	var init mcpgo.InitializeRequest
	init.Params.ProtocolVersion = mcpgo.LATEST_PROTOCOL_VERSION
	init.Params.ClientInfo = mcpgo.Implementation{Name: "atoll-check", Version: version}
	if _, err := c.Initialize(ctx, init); err != nil {
		return "", fmt.Errorf("initialize: %w", err)
	}
	list, err := c.ListTools(ctx, mcpgo.ListToolsRequest{})
	if err != nil {
		return "", fmt.Errorf("list tools: %w", err)
	}
	var call mcpgo.CallToolRequest
	call.Params.Name = "sandbox_list"
	res, err := c.CallTool(ctx, call)
	if err != nil {
		return "", fmt.Errorf("call sandbox_list: %w", err)
	}
	if text, ok := mcpgo.AsTextContent(append(res.Content, mcpgo.NewTextContent(""))[0]); res.IsError && ok {
		return "", errors.New(text.Text)
	}
	return fmt.Sprintf("connected, %d tools", len(list.Tools)), nil
}

func connect(s clients.Server) (*client.Client, error) {
	if s.Transport == clients.HTTP {
		return client.NewStreamableHttpClient(s.URL, transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + os.Getenv(s.KeyEnv)}))
	}
	return client.NewClient(transport.NewStdio(s.Command, nil, s.Args...)), nil
}
