package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

func newPolicyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Aliases: []string{"policies"}, Short: "Check, test and learn policy documents",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("policy needs one of check, test, explain and learn")
		},
	}
	cmd.AddCommand(newPolicyCheckCommand(a), newPolicyTestCommand(a), newPolicyExplainCommand(a), newPolicyLearnCommand(a))
	return cmd
}

func newPolicyCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE…", Short: "Read policies and name their faults",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			for _, file := range files {
				p, err := readPolicy(file)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%s: policy %s is sound\n", file, p.Name)
			}
			return nil
		},
	}
}

func newPolicyTestCommand(a *app) *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use: "test FILE…", Short: "Decide the cases of a table and compare",
		Long: "Decides every case of a table and says which went otherwise than expected.\n" +
			"A table is YAML: the policy's file, beside the table, and cases that each ask\n" +
			"one of connect, lookup, tool, exec, read, write and secret:\n\n" +
			"  policy: build.yaml\n" +
			"  cases:\n" +
			"    - {connect: \"mirror.example.com:443\", expect: allow, rule: mirrors}\n" +
			"    - {lookup: example.com, expect: deny}",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error { return a.testPolicies(policy, files) },
	}
	cmd.Flags().StringVar(&policy, "policy", "", "file of the policy to test, instead of the one that the table names")
	return cmd
}

func (a *app) testPolicies(policy string, files []string) error {
	failed, total := 0, 0
	for _, file := range files {
		text, err := readDocument(file)
		if err != nil {
			return err
		}
		named, cases, err := policies.ParseCases(text)
		if err != nil {
			return faults(file, err)
		}
		path := policy
		if path == "" && named != "" {
			path = filepath.Join(filepath.Dir(file), named)
		}
		if path == "" {
			return usagef("%s names no policy; add it there, or use --policy", file)
		}
		p, err := readPolicy(path)
		if err != nil {
			return err
		}
		for _, f := range policies.Check(p, cases) {
			fmt.Fprintf(a.out, "%s: %s\n", file, f)
			failed++
		}
		total += len(cases)
	}
	if failed > 0 {
		return engine.Errorf(engine.KindInvalid, "%d of %d cases went otherwise", failed, total)
	}
	fmt.Fprintf(a.out, "ok: %d cases\n", total)
	return nil
}

func newPolicyExplainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain FILE QUESTION SUBJECT", Short: "Say what a policy decides, by which rule, and why",
		Long: "Says what a policy decides about one thing. The question is one of connect,\n" +
			"lookup, tool, exec, read, write and secret. It ends with 1 when it is denied.",
		Example: "  atoll policy explain build.yaml connect mirror.example.com:443\n" +
			"  atoll policy explain build.yaml connect 192.0.2.1:53/udp",
		Args: cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			r, err := question(args[1], args[2])
			if err != nil {
				return usage(err)
			}
			fmt.Fprintln(a.out, policies.Explain(p, r))
			if !policies.Decide(p, r).Allow {
				return exitStatus(1)
			}
			return nil
		},
	}
}

func question(kind, subject string) (policies.Request, error) {
	switch kind {
	case "connect":
		return policies.ParseConnect(subject)
	case "lookup":
		return policies.LookupRequest{Name: subject}, nil
	case "tool":
		return policies.ToolRequest{Tool: subject, Changes: true}, nil
	case "exec":
		return policies.ExecRequest{Path: subject}, nil
	case "read", "write":
		return policies.FileRequest{Path: subject, Write: kind == "write"}, nil
	case "secret":
		return policies.SecretRequest{Name: subject}, nil
	}
	return nil, fmt.Errorf("%q is none of connect, lookup, tool, exec, read, write and secret", kind)
}

func readPolicy(file string) (*policies.Policy, error) {
	text, err := readDocument(file)
	if err != nil {
		return nil, err
	}
	p, err := policies.Parse(text)
	if err != nil {
		return nil, faults(file, err)
	}
	return p, nil
}

func readDocument(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > policies.MaxDocument {
		return nil, engine.Errorf(engine.KindInvalid, "%s has %d bytes, of at most %d", file, info.Size(), policies.MaxDocument)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, engine.Errorf(engine.KindNotFound, "%v", err)
	}
	return text, nil
}

// faults puts the file's name before each line of what is wrong with it.
func faults(file string, err error) error {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i := range lines {
		lines[i] = file + ": " + lines[i]
	}
	return engine.Errorf(engine.KindInvalid, "%s", strings.Join(lines, "\n"))
}
