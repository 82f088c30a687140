package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/gateway/wire"
)

func newWebhookCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "webhook", Aliases: []string{"webhooks"}, Short: "Send events to URLs",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("webhook needs one of create, list, delete and messages")
		},
	}
	cmd.AddCommand(newWebhookCreateCommand(a), newWebhookListCommand(a), newWebhookDeleteCommand(a), newWebhookMessagesCommand(a))
	return cmd
}

func newWebhookCreateCommand(a *app) *cobra.Command {
	var e wire.CreateEndpoint
	cmd := &cobra.Command{
		Use: "create URL", Short: "Send events to a URL; the signing secret is printed once",
		Example: "  atoll webhook create https://example.com/hook --event sandbox.state.updated",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			e.URL = args[0]
			made, err := c.CreateEndpoint(cmd.Context(), e)
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(made)
			}
			return table(a.out, [][]string{{"ID", "URL", "SECRET"}, {made.ID, made.URL, made.Secret}})
		},
	}
	cmd.Flags().StringArrayVar(&e.Events, "event", nil, "type of event to send; may be repeated; all when not given")
	cmd.Flags().StringVar(&e.Description, "description", "", "words for people")
	return cmd
}

func newWebhookListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the URLs that events are sent to", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Endpoints(cmd.Context())
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(all)
			}
			rows := [][]string{{"ID", "URL", "EVENTS", "STATE"}}
			for _, e := range all {
				state := "enabled"
				if e.Disabled {
					state = strings.TrimSuffix("disabled: "+e.Reason, ": ")
				}
				rows = append(rows, []string{e.ID, e.URL, orElse(strings.Join(e.Events, ","), "all"), state})
			}
			return table(a.out, rows)
		},
	}
}

func newWebhookDeleteCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID...", Aliases: []string{"rm"}, Short: "Send no more events to URLs", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range args {
				if err := c.DeleteEndpoint(cmd.Context(), id); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(a.out, "deleted %s\n", id)
			}
			return errors.Join(errs...)
		},
	}
}

func newWebhookMessagesCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "messages", Short: "List what was sent lately, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Messages(cmd.Context())
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(all)
			}
			now := time.Now()
			rows := [][]string{{"ID", "EVENT", "DELIVERIES", "AGE"}}
			for _, m := range all {
				states := map[string]int{}
				for _, d := range m.Deliveries {
					states[d.State]++
				}
				var parts []string
				for _, state := range slices.Sorted(maps.Keys(states)) {
					parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
				}
				rows = append(rows, []string{m.ID, m.EventType, orElse(strings.Join(parts, ", "), "-"), age(wire.ParseTime(m.CreatedAt), now)})
			}
			return table(a.out, rows)
		},
	}
}
