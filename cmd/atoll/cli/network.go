package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
)

// networkOptions are the flags that say what a sandbox may talk to.
type networkOptions struct {
	blockAll          bool
	networks, domains []string
}

func (o *networkOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.blockAll, "network-block-all", false, "no network")
	f.StringSliceVar(&o.networks, "network-allow-list", nil, "networks to allow, and nothing else, as 203.0.113.0/24; with commas or repeated")
	f.StringSliceVar(&o.domains, "domain-allow-list", nil, "hosts to allow on ports 80 and 443, and nothing else, as example.com or *.example.com")
	cmd.MarkFlagsMutuallyExclusive("network-block-all", "network-allow-list")
	cmd.MarkFlagsMutuallyExclusive("network-block-all", "domain-allow-list")
}

func (o *networkOptions) policy() engine.NetworkPolicy {
	return engine.NetworkPolicy{BlockAll: o.blockAll, AllowCIDRs: o.networks, AllowDomains: o.domains}
}

func newNetworkCommand(a *app) *cobra.Command {
	var o networkOptions
	cmd := &cobra.Command{
		Use: "network SANDBOX", Short: "Change what a sandbox may talk to",
		Long: "Changes what a sandbox may talk to, at once: connections that are not allowed\n" +
			"any more end, the others go on. Without flags everything is allowed.",
		Example: "  atoll network build --domain-allow-list example.com,*.example.org\n" +
			"  atoll network build --network-block-all",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setNetwork(cmd.Context(), args[0], o.policy())
		},
	}
	o.flags(cmd)
	return cmd
}

func (a *app) setNetwork(ctx context.Context, name string, p engine.NetworkPolicy) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := c.Sandboxes().Update(ctx, ref(name), engine.UpdateSandbox{Network: &p})
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.json(sandboxJSON(s, c.URL()))
	}
	fmt.Fprintf(a.out, "%s: %s\n", s.Name, networkText(s.Network))
	return nil
}
