// Command containerd-shim-runc-v2 is containerd's shim for runc and crun, built
// from the containerd module. containerd starts one per container; it outlives
// containerd and reports the container's exit. It is a binary of its own
// because a shim instantiates every plugin that is linked into it, and because
// a small one starts faster and holds less memory.
package main

import (
	"context"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin"
	"github.com/containerd/containerd/v2/pkg/shim"
)

func main() {
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}
