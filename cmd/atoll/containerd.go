package main

import (
	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine/driver/container/daemon"
)

// newContainerdCommand is the containerd that the server supervises: a mode of
// the same binary, so that a host needs no containerd of its own.
func newContainerdCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "containerd",
		Short:              "Run the server's own containerd",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return daemon.Main(args) },
	}
}
