package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func newSecretCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret", Aliases: []string{"secrets"}, Short: "Keep values that sandboxes use and never see",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("secret needs one of create, list, set and delete")
		},
	}
	cmd.AddCommand(newSecretCreateCommand(a), newSecretListCommand(a), newSecretSetCommand(a), newSecretDeleteCommand(a))
	return cmd
}

type secretOptions struct {
	file, description string
	hosts             []string
}

func newSecretCreateCommand(a *app) *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Keep a secret; its value is read from standard input or a file, never from an argument",
		Example: "  atoll secret create github --host api.github.com <token.txt\n" +
			"  atoll secret create github --host api.github.com --file token.txt",
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.secretValue(o.file)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			s, err := c.Secrets().Create(cmd.Context(), engine.CreateSecret{
				Name: args[0], Value: value, Description: o.description, Hosts: o.hosts,
			})
			if err != nil {
				return err
			}
			return a.printSecrets([]engine.Secret{s}, true)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "file", "", "file to read the value from, instead of standard input")
	f.StringVar(&o.description, "description", "", "words for people")
	f.StringArrayVar(&o.hosts, "host", nil, "name that the value may be sent to; may be repeated")
	return cmd
}

// maxSecret bounds what is read for a value; the server takes less.
const maxSecret = 1 << 20

// secretValue reads a value without the line's end that an editor adds.
func (a *app) secretValue(file string) (string, error) {
	in := a.in
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", engine.Errorf(engine.KindInvalid, "the file %s cannot be read", file).Wrap(err)
		}
		defer f.Close()
		in = f
	} else if _, ok := terminal(a.in); ok {
		fmt.Fprintln(a.err, "type the value, then ctrl-d")
	}
	b, err := io.ReadAll(io.LimitReader(in, maxSecret))
	if err != nil {
		return "", fmt.Errorf("read the value: %w", err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if value == "" {
		return "", usagef("the value is empty; send it to standard input or name a --file")
	}
	return value, nil
}

func newSecretListCommand(a *app) *cobra.Command {
	return newListByNameCommand("List secrets, without their values", func(ctx context.Context, name string) error {
		all, err := a.allSecrets(ctx, name)
		if err != nil {
			return err
		}
		return a.printSecrets(all, false)
	})
}

func (a *app) allSecrets(ctx context.Context, name string) ([]engine.Secret, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var all []engine.Secret
	q := engine.SecretQuery{Name: name, Sort: "name", Ascending: true}
	for {
		p, err := c.Secrets().List(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if q.Cursor = p.Next; q.Cursor == "" {
			return all, nil
		}
	}
}

func (a *app) printSecrets(all []engine.Secret, one bool) error {
	if a.asJSON() {
		items := make([]wire.Secret, len(all))
		for i, s := range all {
			items[i] = wire.FromSecret(s)
		}
		if one {
			return a.json(items[0])
		}
		return a.json(items)
	}
	now := time.Now()
	rows := [][]string{{"NAME", "HOSTS", "PLACEHOLDER", "CHANGED"}}
	for _, s := range all {
		rows = append(rows, []string{s.Name, orElse(strings.Join(s.Hosts, ","), "-"), s.Placeholder, age(s.UpdatedAt, now)})
	}
	return table(a.out, rows)
}

func newSecretSetCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Give a secret a new value, from standard input or a file",
		Example: "  atoll secret set github --file token.txt",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: a.secretNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.secretValue(file)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			s, err := c.Secrets().Update(cmd.Context(), engine.SecretRef{IDOrName: args[0]}, engine.UpdateSecret{Value: &value})
			if err != nil {
				return err
			}
			return a.printSecrets([]engine.Secret{s}, true)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file to read the value from, instead of standard input")
	return cmd
}

func newSecretDeleteCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete secrets; sandboxes lose their variables",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.secretNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				if err := c.Secrets().Delete(cmd.Context(), engine.SecretRef{IDOrName: name}); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(a.out, "deleted %s\n", name)
			}
			return errors.Join(errs...)
		},
	}
}

func (a *app) secretNames(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	all, err := a.allSecrets(ctx, prefix)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
