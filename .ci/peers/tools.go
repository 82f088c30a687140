//go:build tools

// Package peers names the commands to build, so that their dependencies are
// pinned in go.mod.
package peers

import (
	_ "github.com/containerd/containerd/v2/cmd/ctr"
	_ "github.com/containerd/nerdctl/v2/cmd/nerdctl"
)
