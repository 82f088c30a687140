package cli

import (
	"context"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest/coretest"
	"github.com/atoll-sh/atoll/gateway"
)

// The command line against a real core, for what is decided there.
func TestScriptsOnCore(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/core",
		Setup: func(env *testscript.Env) error {
			r := coretest.New(t)
			s, err := gateway.Open(t.Context(), gateway.Config{
				Listen: "127.0.0.1:0", Sandboxes: r.Sandboxes(), Snapshots: r.Snapshots(), Toolboxes: r.Toolboxes(), Events: r.Events(),
				Keys: r.Keys(), Inspector: r.Inspector(), Accounts: r.Accounts(), Previews: r.Previews(),
				Services: engine.Services{Policies: r.Policies()},
			})
			if err != nil {
				return err
			}
			env.Defer(func() { _ = s.Close(context.Background()) })
			env.Setenv("ATOLL_URL", s.URL())
			env.Setenv("ATOLL_API_KEY", coretest.AdminSecret)
			return nil
		},
	})
}
