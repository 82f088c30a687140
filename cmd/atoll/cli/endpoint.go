package cli

import (
	"os"

	"github.com/spf13/cobra"
)

// Endpoint finds the server and the key as our own commands do, for commands
// that package main adds. cmd must be below the root command.
func Endpoint(cmd *cobra.Command) (url, key string, err error) {
	a := &app{env: os.Getenv}
	if a.url, err = cmd.Flags().GetString("url"); err != nil {
		return "", "", err
	}
	if a.home, err = cmd.Flags().GetString("home"); err != nil {
		return "", "", err
	}
	if err := a.absoluteHome(); err != nil {
		return "", "", err
	}
	return a.endpoint()
}
