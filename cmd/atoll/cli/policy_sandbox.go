package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
	"github.com/atoll-sh/atoll/policies"
)

func newPolicyAttachCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "attach POLICY SANDBOX", Short: "Put a sandbox under a policy, in place of the one before",
		Example: "  atoll policy attach python-packages build",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.policyNames(cmd, args, prefix)
			}
			return a.sandboxNames(true)(cmd, args[1:], prefix)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.setPolicy(cmd.Context(), args[1], args[0]) },
	}
}

func newPolicyDetachCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "detach SANDBOX", Short: "Take a sandbox out of its policy; its own network lists stay",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.sandboxNames(true),
		RunE: func(cmd *cobra.Command, args []string) error { return a.setPolicy(cmd.Context(), args[0], "") },
	}
}

func (a *app) setPolicy(ctx context.Context, sandbox, policy string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := c.Sandboxes().Update(ctx, ref(sandbox), engine.UpdateSandbox{Policy: &policy})
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(sandboxJSON(s, c.URL()))
	}
	if s.Policy == "" {
		fmt.Fprintf(a.out, "%s is under no policy; network %s\n", s.Name, networkText(s.Network))
		return nil
	}
	fmt.Fprintf(a.out, "%s is under policy %s\n", s.Name, s.Policy)
	return nil
}

func newPolicyShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show SANDBOX", Short: "Show what holds for a sandbox: its policy and its own network lists",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.sandboxNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := c.Policies().Of(cmd.Context(), ref(args[0]))
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(wire.FromSandboxPolicy(p))
			}
			fmt.Fprintf(a.out, "# the sandbox's own network lists: %s\n", networkText(p.Sandbox.Network))
			if p.Policy == nil {
				fmt.Fprintln(a.out, "# it is under no policy")
				return nil
			}
			_, err = io.WriteString(a.out, p.Policy.Document)
			return err
		},
	}
}

func newPolicyExplainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain SANDBOX|FILE [QUESTION] SUBJECT", Short: "Say what is decided about one thing, by which rule, and why",
		Long: "Says what is decided for a sandbox, or by the policy in a file. The question is\n" +
			"one of connect, lookup, tool, exec, read, write and secret; without it, connect.\n" +
			"A host without a port means 443. It ends with 1 when it is denied.",
		Example: "  atoll policy explain build mirror.example.com\n" +
			"  atoll policy explain build.yaml connect 192.0.2.1:53/udp",
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, subject := "connect", args[len(args)-1]
			if len(args) == 3 {
				kind = args[1]
			}
			q, err := policies.ParseQuestion(kind, subject)
			if err != nil {
				return usage(err)
			}
			d, err := a.explain(cmd.Context(), args[0], kind, subject, q)
			if err != nil {
				return err
			}
			if a.asJSON() {
				err = a.json(wire.FromPolicyDecision(d))
			} else {
				fmt.Fprintln(a.out, d.Text)
			}
			if err == nil && !d.Allow {
				err = exitStatus(1)
			}
			return err
		},
	}
}

// explain decides by the file of that name, if there is one, else for the
// sandbox.
func (a *app) explain(ctx context.Context, about, kind, subject string, q policies.Request) (engine.PolicyDecision, error) {
	if info, err := os.Stat(about); err == nil && info.Mode().IsRegular() {
		p, err := readPolicy(about)
		if err != nil {
			return engine.PolicyDecision{}, err
		}
		return engine.PolicyDecision{Decision: policies.Decide(p, q), Policy: p.Name, Text: policies.Explain(p, q)}, nil
	}
	c, err := a.client()
	if err != nil {
		return engine.PolicyDecision{}, err
	}
	return c.Policies().Explain(ctx, ref(about), kind, subject)
}
