package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
	"github.com/atoll-sh/atoll/policies/library"
)

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
				for _, name := range p.Variables() {
					fmt.Fprintf(a.out, "%s: the server fills in ${%s}\n", file, name)
				}
			}
			return nil
		},
	}
}

type policyTestOptions struct{ file, stored string }

func newPolicyTestCommand(a *app) *cobra.Command {
	var o policyTestOptions
	cmd := &cobra.Command{
		Use: "test FILE…", Short: "Decide the cases of a table and compare",
		Long: "Decides every case of a table and says which went otherwise than expected.\n" +
			"A table is YAML: the policy, which is a file beside the table or one of the\n" +
			"library, and cases that each ask one of connect, lookup, tool, exec, read,\n" +
			"write, secret and sandbox:\n\n" +
			"  policy: build.yaml\n" +
			"  variables: {MIRROR_HOSTS: [mirror.example.com]}   # for ${MIRROR_HOSTS}\n" +
			"  cases:\n" +
			"    - {connect: \"mirror.example.com:443\", expect: allow, rule: mirrors}\n" +
			"    - {lookup: example.com, expect: deny}\n" +
			"    - {sandbox: {cpu: 8, ttl: 1h}, expect: deny, rule: resources/cpu}",
		Example: "  atoll policy test build.cases.yaml\n" +
			"  atoll policy test --stored build build.cases.yaml",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error { return a.testPolicies(cmd.Context(), o, files) },
	}
	cmd.Flags().StringVar(&o.file, "policy", "", "file of the policy to test, instead of the one that the table names")
	cmd.Flags().StringVar(&o.stored, "stored", "", "name of a policy on the server to test, instead of the one that the table names")
	cmd.MarkFlagsMutuallyExclusive("policy", "stored")
	_ = cmd.RegisterFlagCompletionFunc("stored", a.policyNames)
	return cmd
}

func (a *app) testPolicies(ctx context.Context, o policyTestOptions, files []string) error {
	failed, total := 0, 0
	for _, file := range files {
		text, err := readDocument(file)
		if err != nil {
			return err
		}
		r, err := a.testTable(ctx, o, file, text)
		if err != nil {
			return err
		}
		for _, f := range r.Failures {
			fmt.Fprintf(a.out, "%s: %s\n", file, f)
		}
		total, failed = total+r.Cases, failed+len(r.Failures)
	}
	if failed > 0 {
		return engine.Errorf(engine.KindInvalid, "%d of %d cases went otherwise", failed, total)
	}
	fmt.Fprintf(a.out, "ok: %d cases\n", total)
	return nil
}

func (a *app) testTable(ctx context.Context, o policyTestOptions, file string, text []byte) (engine.PolicyResult, error) {
	if o.stored != "" {
		c, err := a.client()
		if err != nil {
			return engine.PolicyResult{}, err
		}
		return c.Policies().Test(ctx, "", o.stored, string(text))
	}
	t, err := policies.ParseTable(text)
	if err != nil {
		return engine.PolicyResult{}, faults(file, err)
	}
	p, err := policyOfTable(o.file, file, t.Policy)
	if err == nil {
		p, err = p.Expand(t.Variables)
	}
	if err != nil {
		return engine.PolicyResult{}, faults(file, err)
	}
	r := engine.PolicyResult{Cases: len(t.Cases)}
	for _, f := range policies.Check(p, t.Cases) {
		r.Failures = append(r.Failures, f.String())
	}
	return r, nil
}

// policyOfTable reads the policy that a table is about: the given file, one
// beside the table, or one of the library.
func policyOfTable(given, table, named string) (*policies.Policy, error) {
	if given != "" {
		return readPolicy(given)
	}
	if named == "" {
		return nil, errors.New("the table names no policy; add it there, or use --policy")
	}
	if p, ok := library.Policy(named); ok {
		return p, nil
	}
	return readPolicy(filepath.Join(filepath.Dir(table), named))
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
