// Command containerd-shim-runc-v2 is containerd's shim for runc and crun, built
// from the containerd module. containerd starts one per container; it outlives
// containerd and reports the container's exit. It is a binary of its own
// because a shim instantiates every plugin that is linked into it, and because
// a small one starts faster and holds less memory.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/go-runc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/atoll-sh/atoll/cmd/containerd-shim-runc-v2/early"
)

func main() {
	if os.Args[len(os.Args)-1] == early.Waiting {
		if err := wait(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTaskService,
	})
	shim.RunShim(context.Background(), starter{manager.NewShimManager("io.containerd.runc.v2")})
}

// newTaskService is containerd's own, with our way to run the runtime.
func newTaskService(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	service, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), stop.(shutdown.Service))
	if err == nil {
		runc.Monitor = newMonitor(reaper.Default)
	}
	return service, err
}
