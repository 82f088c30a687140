package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func newInfoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "info NAME", Aliases: []string{"inspect"}, Short: "Show one sandbox and what it uses", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.info(cmd.Context(), args[0]) },
	}
}

func (a *app) info(ctx context.Context, name string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := c.Sandboxes().Sandbox(ctx, ref(name))
	if err != nil {
		return err
	}
	var stats *engine.Stats
	if s.State == engine.StateStarted {
		if st, err := c.Inspector().Stats(ctx, ref(s.ID)); err == nil {
			stats = &st
		}
	}
	if a.asJSON() {
		d := sandboxJSON(s, c.URL())
		if stats != nil {
			usage := wire.FromStats(*stats)
			d.Usage = &usage
		}
		return a.json(d)
	}
	return table(a.out, a.infoRows(s, stats, time.Now()))
}

func (a *app) infoRows(s engine.Sandbox, st *engine.Stats, now time.Time) [][]string {
	rows := [][]string{
		{"name", s.Name},
		{"id", s.ID},
		{"state", a.state(string(s.State))},
		{"class", string(s.Class)},
		{"snapshot", orElse(s.Snapshot, "-")},
		{"user", s.User},
		{"limits", fmt.Sprintf("%v cpu, %s memory, %s disk", s.Resources.CPU, mib(s.Resources.MemoryMiB), mib(s.Resources.DiskMiB))},
		{"network", networkText(s.Network)},
		{"policy", orElse(s.Policy, "-")},
		{"auto-stop", timer(s.Lifecycle.AutoStop)},
		{"auto-delete", deleteText(s.Lifecycle.AutoDelete)},
		{"ttl", timer(s.Lifecycle.TTL)},
		{"created", age(s.CreatedAt, now) + " ago"},
		{"active", age(s.LastActive, now) + " ago"},
	}
	for _, g := range s.Network.Grants {
		rows = append(rows, []string{"allowed", grantText(g)})
	}
	if s.Learning.Active(now) {
		rows = append(rows, []string{"learning", "the network is open until " + s.Learning.Until.Local().Format(time.DateTime)})
	}
	if s.Error != "" {
		rows = append(rows, []string{"error", s.Error}, []string{"recoverable", fmt.Sprint(s.Recoverable)})
	}
	if s.Parent != "" {
		rows = append(rows, []string{"forked from", s.Parent})
	}
	if len(s.Labels) > 0 {
		rows = append(rows, []string{"labels", labelText(s.Labels)})
	}
	if st != nil {
		rows = append(rows, []string{"uses", usageText(*st)})
	}
	return rows
}

func usageText(st engine.Stats) string {
	text := fmt.Sprintf("%s memory, %s disk, %d processes, %s cpu time",
		bytesText(int64(st.MemoryBytes)), bytesText(int64(st.DiskBytes)), st.PIDs, //nolint:gosec // sizes fit
		time.Duration(st.CPUNanos).Round(time.Millisecond)) //nolint:gosec // centuries fit
	if st.OOMKills > 0 {
		text += fmt.Sprintf("; %d processes killed for memory", st.OOMKills)
	}
	return text
}

func networkText(p engine.NetworkPolicy) string {
	switch {
	case p.BlockAll:
		return "blocked"
	case len(p.AllowCIDRs)+len(p.AllowDomains) > 0:
		return "only " + strings.Join(slices.Concat(p.AllowDomains, p.AllowCIDRs), ", ")
	}
	return "internet"
}

func grantText(g engine.NetworkGrant) string {
	text := engine.AccessRequest{Host: g.Host, Address: g.Address, Port: g.Port, Protocol: g.Protocol}.Target() + " by " + g.ID
	if !g.Until.IsZero() {
		text += " until " + g.Until.Local().Format(time.DateTime)
	}
	return text
}

func timer(d time.Duration) string {
	if d <= 0 {
		return "off"
	}
	return span(d)
}

func deleteText(d time.Duration) string {
	switch {
	case d < 0:
		return "off"
	case d == 0:
		return "at stop"
	}
	return span(d) + " after stop"
}
