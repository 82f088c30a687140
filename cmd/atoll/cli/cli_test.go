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
	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/sshd"
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
			s := gatewaytest.Serve(t, e, withSSH(t, e, env.WorkDir), func(c *gateway.Config) { c.Services = services(t) })
			env.Setenv("ATOLL_URL", s.URL())
			env.Setenv("ATOLL_API_KEY", gatewaytest.AdminKey)
			env.Setenv("ATOLL_HOME", env.WorkDir+"/home")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
	})
}

// withSSH opens an SSH gateway beside the server.
func withSSH(t *testing.T, e *gatewaytest.Engine, dir string) func(*gateway.Config) {
	key, err := sshd.HostKey(filepath.Join(dir, "host_key"))
	if err != nil {
		t.Fatal(err)
	}
	door := e.SSH()
	gate, err := sshd.Open(t.Context(), sshd.Config{Listen: "127.0.0.1:0", Door: door, Toolboxes: e, HostKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gate.Close(context.Background()) })
	return func(c *gateway.Config) {
		c.SSH = door
		c.SSHGateway = &api.SSHGateway{Host: "127.0.0.1", Port: gate.Addr().Port, HostKey: sshd.PublicKey(key), Fingerprint: sshd.Fingerprint(key)}
	}
}
