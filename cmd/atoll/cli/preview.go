package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
)

func newPreviewCommand(a *app) *cobra.Command {
	var signed time.Duration
	cmd := &cobra.Command{
		Use: "preview NAME PORT", Short: "Show where a port of a sandbox is seen",
		Long: "Shows the URL of a port and the token that opens it, as the header\n" +
			"X-Daytona-Preview-Token or, in a browser, at the end of the URL.\n" +
			"With --signed it prints a URL alone that opens the port to whoever has it.",
		Example: "  atoll preview build 3000\n  atoll preview build 3000 --signed 1h\n  atoll preview build 22222 --signed 10m   # a terminal in the browser",
		Args:    cobra.ExactArgs(2), ValidArgsFunction: a.sandboxNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			port, err := strconv.Atoi(args[1])
			if err != nil || port < 1 || port > 65535 {
				return usagef("PORT must be a number from 1 to 65535, not %q", args[1])
			}
			if cmd.Flags().Changed("signed") && (signed < time.Second || signed > engine.MaxLinkLifetime) {
				return usagef("--signed must be from 1s to 24h, not %s", signed)
			}
			return a.preview(cmd.Context(), args[0], port, signed)
		},
	}
	cmd.Flags().DurationVar(&signed, "signed", 0, "make a URL that needs no token, for this long")
	return cmd
}

func (a *app) preview(ctx context.Context, name string, port int, signed time.Duration) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var p engine.PreviewURL
	if signed > 0 {
		p, err = c.SignedPreviewURL(ctx, ref(name), port, signed)
	} else {
		p, err = c.PreviewURL(ctx, ref(name), port)
	}
	switch {
	case err != nil:
		return err
	case a.asJSON():
		return a.json(map[string]string{"sandboxId": p.SandboxID, "url": p.URL, "token": p.Token})
	case signed > 0:
		_, err = fmt.Fprintln(a.out, p.URL)
		return err
	}
	return table(a.out, [][]string{{"url", p.URL}, {"token", p.Token}, {"in a browser", p.URL + "?DAYTONA_SANDBOX_AUTH_KEY=" + p.Token}})
}
