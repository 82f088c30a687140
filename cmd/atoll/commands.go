package main

import (
	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/cmd/atoll/cli"
)

// options adds what needs the server's code to the command line.
func options() cli.Options {
	return cli.Options{
		Version: version,
		Commands: []*cobra.Command{
			newServeCommand(),
			newContainerdCommand(),
			newMCPCommand(),
		},
		Teardown: teardown,
		Doctor:   examine,
	}
}
