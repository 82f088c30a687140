package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
	"github.com/atoll-sh/atoll/policies"
)

func newPolicyCommand(a *app) *cobra.Command {
	cmd := group("policy", "Say what sandboxes and agents may do",
		newPolicyListCommand(a), newPolicyGetCommand(a), newPolicyPutCommand(a), newPolicyDeleteCommand(a),
		newPolicyAttachCommand(a), newPolicyDetachCommand(a), newPolicyShowCommand(a),
		newPolicyCheckCommand(a), newPolicyTestCommand(a), newPolicyExplainCommand(a), newPolicyLearnCommand(a))
	cmd.Aliases = []string{"policies"}
	return cmd
}

func newPolicyListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List policies: the library's and your organization's", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Policies().List(cmd.Context(), "")
			if err != nil {
				return err
			}
			return a.printPolicies(all)
		},
	}
}

func (a *app) printPolicies(all []engine.NamedPolicy) error {
	if a.asJSON() {
		items := make([]wire.Policy, len(all))
		for i, p := range all {
			items[i] = wire.FromPolicy(p)
		}
		return a.json(items)
	}
	now := time.Now()
	rows := [][]string{{"NAME", "REVISION", "CHANGED", "DESCRIPTION"}}
	for _, p := range all {
		revision, changed := strconv.FormatInt(p.Revision, 10), ""
		if p.Library {
			revision, changed = "library", "-"
		} else {
			changed = age(p.UpdatedAt, now)
		}
		rows = append(rows, []string{p.Name, revision, changed, orElse(p.Description, "-")})
	}
	return table(a.out, rows)
}

func newPolicyGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Print a policy's document",
		Example: "  atoll policy get python-packages >mine.yaml",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: a.policyNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := c.Policies().Policy(cmd.Context(), "", args[0])
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(wire.FromPolicy(p))
			}
			_, err = io.WriteString(a.out, p.Document)
			return err
		},
	}
}

func newPolicyPutCommand(a *app) *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use: "put FILE…", Short: "Make or replace policies; sandboxes under them follow at once",
		Long: "Makes or replaces the policy that each document names. Sandboxes under it\n" +
			"follow at once: connections that are not allowed any more end.",
		Example: "  atoll policy put build.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			var expect *int64
			if cmd.Flags().Changed("revision") {
				expect = &revision
			}
			for _, file := range files {
				if err := a.putPolicy(cmd.Context(), file, expect); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "that the change was made from, 0 for a new policy; fails when another is there")
	return cmd
}

func (a *app) putPolicy(ctx context.Context, file string, revision *int64) error {
	text, err := readDocument(file)
	if err != nil {
		return err
	}
	doc, err := policies.Parse(text)
	if err != nil {
		return faults(file, err)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	p, err := c.Policies().Put(ctx, engine.Principal{}, engine.PutPolicy{Name: doc.Name, Document: string(text), Revision: revision})
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(wire.FromPolicy(p))
	}
	fmt.Fprintf(a.out, "policy %s has revision %d\n", p.Name, p.Revision)
	return nil
}

func newPolicyDeleteCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete policies that nothing uses",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.policyNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.deleteAll(args, func(name string) error { return c.Policies().Delete(cmd.Context(), engine.Principal{}, name) })
		},
	}
}

func (a *app) policyNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := c.Policies().List(ctx, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
