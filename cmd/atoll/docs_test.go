package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/cmd/atoll/cli"
)

var update = flag.Bool("update", false, "write docs/cli.md")

// TestCommandLineDocs keeps docs/cli.md what the commands themselves say.
func TestCommandLineDocs(t *testing.T) {
	const path = "../../docs/cli.md"
	var b strings.Builder
	b.WriteString("# The command line\n\n" +
		"Written from the commands themselves. `--url` (`ATOLL_URL`) names the server, `ATOLL_API_KEY` the key; " +
		"without it the key is read from the server's `credentials.json`. `-o json` prints JSON. " +
		"Exit codes: 0, 1 for an error, 2 for a wrong use, and that of the command for `exec` and `shell`. " +
		"`atoll completion bash|zsh|fish` prints shell completion, with the names of sandboxes.\n")
	describe(&b, cli.Root(options()))
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("docs/cli.md differs from the commands (-file +commands); run this test with -update:\n%s", diff)
	}
}

func describe(b *strings.Builder, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "completion" || sub.Name() == "help" {
			continue
		}
		text := sub.Long
		if text == "" {
			text = sub.Short + "."
		}
		fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n", sub.CommandPath(), text, sub.UseLine())
		if flags := sub.LocalNonPersistentFlags().FlagUsages(); flags != "" {
			fmt.Fprintf(b, "\n%s", flags)
		}
		b.WriteString("```\n")
		if sub.Example != "" {
			fmt.Fprintf(b, "\n```sh\n%s\n```\n", sub.Example)
		}
		describe(b, sub)
	}
}
