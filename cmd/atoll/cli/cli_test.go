package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/engine/webhook"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"atoll": func() { os.Exit(Main(Options{Version: "test"})) },
	})
}

// services are real ones on a store in a directory of the test.
func services(t *testing.T) engine.Services {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "atoll.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	box, err := secret.OpenFile(filepath.Join(t.TempDir(), "k"), true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := core.New(core.Config{Store: db, Cluster: enginetest.NewBus(), Box: box})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	hooks, err := webhook.Open(t.Context(), webhook.Config{Store: db, Box: box})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hooks.Close)
	return engine.Services{Secrets: c.Secrets(), Webhooks: hooks, Messages: hooks.Messages()}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Setup: func(env *testscript.Env) error {
			e := gatewaytest.New(t)
			s := gatewaytest.Serve(t, e, func(c *gateway.Config) { c.Services = services(t) })
			env.Setenv("ATOLL_URL", s.URL())
			env.Setenv("ATOLL_API_KEY", gatewaytest.AdminKey)
			env.Setenv("ATOLL_HOME", env.WorkDir+"/home")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
	})
}
