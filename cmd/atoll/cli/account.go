package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name())
	}
	cmd := &cobra.Command{
		Use: use, Aliases: []string{use + "s"}, Short: short, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("%s needs one of %s", use, strings.Join(names, ", "))
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

func newKeyCommand(a *app) *cobra.Command {
	return group("key", "Make, list and delete API keys", newKeyCreateCommand(a), newKeyListCommand(a), newKeyDeleteCommand(a))
}

type keyOptions struct {
	permissions        []string
	readOnly, all      bool
	tools, labels      []string
	expires            time.Duration
	organization, user string
	policy             string
}

func newKeyCreateCommand(a *app) *cobra.Command {
	var o keyOptions
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an API key; it is shown once",
		Example: "  atoll key create ci --permission write:sandboxes,delete:sandboxes --expires 720h\n" +
			"  atoll key create dashboard --read-only\n" +
			"  atoll key create reviewer --tools core --label team=review",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.expires < 0 {
				return usagef("--expires must not be negative")
			}
			return a.createKey(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.permissions, "permission", nil, "what the key may do beside reading; may be repeated")
	f.BoolVar(&o.readOnly, "read-only", false, "the key may only read")
	f.StringSliceVar(&o.tools, "tools", nil, "MCP tools and toolsets that the key is limited to")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "KEY=value; sandboxes without it do not exist for the key; may be repeated")
	f.BoolVar(&o.all, "all", false, "the key may do whatever its user may")
	f.StringVar(&o.policy, "policy", "", "policy to bind the key to: it makes and reaches sandboxes under it alone, and calls the tools that it allows")
	_ = cmd.RegisterFlagCompletionFunc("policy", a.policyNames)
	f.DurationVar(&o.expires, "expires", 0, "for how long the key works, as 720h; 0 is for ever")
	f.StringVar(&o.organization, "organization", "", "id of another organization of the user")
	f.StringVar(&o.user, "user", "", "id of another user; for administrators")
	_ = cmd.RegisterFlagCompletionFunc("permission", cobra.FixedCompletions(engine.Permissions(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// check refuses flags that exclude each other or leave open what the key may.
func (o keyOptions) check() error {
	limited := len(o.tools) > 0 || len(o.labels) > 0
	switch {
	case o.all && (o.readOnly || limited || len(o.permissions) > 0):
		return usagef("--all excludes --permission, --read-only, --tools and --label")
	case o.readOnly && len(o.permissions) > 0:
		return usagef("--read-only excludes --permission")
	case !o.all && !o.readOnly && !limited && len(o.permissions) == 0:
		return usagef("one of --permission, --read-only, --tools, --label and --all is needed")
	}
	return nil
}

// request is what the flags ask for. A key for some tools or sandboxes may work
// with sandboxes unless it is told what else.
func (o keyOptions) request(name string) (engine.CreateKey, error) {
	req := engine.CreateKey{Name: name, OrganizationID: o.organization, UserID: o.user, Policy: o.policy}
	labels, err := pairs("label", o.labels)
	if err != nil {
		return req, err
	}
	req.Scope = engine.Scope{Tools: o.tools, Labels: labels, ReadOnly: o.readOnly}
	switch {
	case o.all:
	case o.readOnly:
		req.Permissions = []string{}
	case len(o.permissions) > 0:
		req.Permissions = o.permissions
	default:
		req.Permissions = []string{engine.WriteSandboxes, engine.DeleteSandboxes}
	}
	if o.expires > 0 {
		req.ExpiresAt = time.Now().Add(o.expires).UTC()
	}
	return req, nil
}

func (a *app) createKey(ctx context.Context, name string, o keyOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	req, err := o.request(name)
	if err != nil {
		return err
	}
	k, secret, err := c.Keys().Create(ctx, engine.Principal{}, req)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(wire.FromNewKey(k, secret))
	}
	return a.printSecret(secret)
}

// printSecret leaves standard output to the secret alone, for scripts.
func (a *app) printSecret(secret string) error {
	fmt.Fprintln(a.err, "The key is shown this once:")
	_, err := fmt.Fprintln(a.out, secret)
	return err
}

func newKeyListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List API keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Keys().List(cmd.Context(), engine.Principal{})
			if err != nil {
				return err
			}
			return a.printKeys(all)
		},
	}
}

func (a *app) printKeys(all []engine.APIKey) error {
	if a.asJSON() {
		items := make([]wire.APIKey, len(all))
		for i, k := range all {
			items[i] = wire.FromKey(k)
		}
		return a.json(items)
	}
	now := time.Now()
	rows := [][]string{{"NAME", "KEY", "MAY", "ONLY", "POLICY", "USED", "EXPIRES", "AGE"}}
	for _, k := range all {
		may := orElse(strings.Join(k.Permissions, ","), "read")
		if k.Unrestricted {
			may = "all"
		}
		rows = append(rows, []string{k.Name, k.Prefix + "…" + k.Suffix, may, scopeText(k.Scope), orElse(k.Policy, "-"), age(k.LastUsedAt, now), until(k.ExpiresAt, now), age(k.CreatedAt, now)})
	}
	return table(a.out, rows)
}

// until tells when something ends.
func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case !t.After(now):
		return "expired"
	}
	return "in " + span(t.Sub(now))
}

// scopeText says what a key is limited to.
func scopeText(s engine.Scope) string {
	var parts []string
	if s.ReadOnly {
		parts = append(parts, "reading")
	}
	if len(s.Tools) > 0 {
		parts = append(parts, "tools "+strings.Join(s.Tools, ","))
	}
	if len(s.Labels) > 0 {
		parts = append(parts, labelText(s.Labels))
	}
	return orElse(strings.Join(parts, " "), "-")
}

func newKeyDeleteCommand(a *app) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Revoke API keys at once", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.deleteAll(args, func(name string) error {
				return c.Keys().Revoke(cmd.Context(), engine.Principal{}, user, name)
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "id of the user whose keys they are; yours when left out")
	return cmd
}

// deleteAll goes on after a failure, and tells of each.
func (a *app) deleteAll(names []string, remove func(name string) error) error {
	var errs []error
	for _, name := range names {
		if err := remove(name); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(a.out, "deleted %s\n", name)
	}
	return errors.Join(errs...)
}

func newOrgCommand(a *app) *cobra.Command {
	create := &cobra.Command{
		Use: "create NAME", Short: "Make an organization; key create --organization makes a key in it", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			o, err := c.CreateOrganization(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printOrganizations([]engine.Organization{o})
		},
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List organizations", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Organizations(cmd.Context())
			if err != nil {
				return err
			}
			return a.printOrganizations(all)
		},
	}
	remove := &cobra.Command{
		Use: "delete ID...", Aliases: []string{"rm"}, Short: "Delete empty organizations with their keys", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.deleteAll(args, func(id string) error { return c.DeleteOrganization(cmd.Context(), id) })
		},
	}
	return group("org", "Make, list and delete organizations", create, list, remove)
}

func (a *app) printOrganizations(all []engine.Organization) error {
	now := time.Now()
	if a.asJSON() {
		items := make([]wire.Organization, len(all))
		for i, o := range all {
			items[i] = wire.FromOrganization(o, o.DefaultRegion, now)
		}
		return a.json(items)
	}
	rows := [][]string{{"ID", "NAME", "STATE", "AGE"}}
	for _, o := range all {
		state := "active"
		if o.Suspended(now) {
			state = "suspended"
		}
		rows = append(rows, []string{o.ID, o.Name, state, age(o.CreatedAt, now)})
	}
	return table(a.out, rows)
}

func newUserCommand(a *app) *cobra.Command {
	var req engine.CreateUser
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a user with an organization and a key, which is shown once", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			return a.createUser(cmd.Context(), req)
		},
	}
	create.Flags().StringVar(&req.Email, "email", "", "address, by which the user can be invited")
	create.Flags().BoolVar(&req.Admin, "admin", false, "the user administrates the server")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List users", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Users().Users(cmd.Context(), engine.Principal{})
			if err != nil {
				return err
			}
			return a.printUsers(all)
		},
	}
	return group("user", "Make and list users; for administrators", create, list)
}

func (a *app) createUser(ctx context.Context, req engine.CreateUser) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	made, err := c.Users().CreateUser(ctx, engine.Principal{}, req)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(wire.NewUser{User: wire.FromUser(made.User), OrganizationID: made.Organization.ID, APIKey: made.Secret})
	}
	return a.printSecret(made.Secret)
}

func (a *app) printUsers(all []engine.User) error {
	if a.asJSON() {
		items := make([]wire.User, len(all))
		for i, u := range all {
			items[i] = wire.FromUser(u)
		}
		return a.json(items)
	}
	now := time.Now()
	rows := [][]string{{"ID", "NAME", "EMAIL", "ROLE", "AGE"}}
	for _, u := range all {
		d := wire.FromUser(u)
		rows = append(rows, []string{u.ID, u.Name, orElse(u.Email, "-"), d.Role, age(u.CreatedAt, now)})
	}
	return table(a.out, rows)
}
