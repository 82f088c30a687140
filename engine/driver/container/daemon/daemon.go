// Package daemon is containerd with only the plugins that sandboxes need. The
// program runs it as a child mode of itself, so that a host needs no containerd
// of its own.
package daemon

import (
	"context"
	"runtime/debug"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
)

// Main runs containerd until it is told to end. args are those after the
// command's name, as ["--config", "/path/config.toml"].
func Main(args []string) error {
	debug.SetGCPercent(50) // it holds little and lives long
	return command.App().Run(context.Background(), append([]string{"containerd"}, args...))
}
