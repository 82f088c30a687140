package cli

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"atoll": func() { os.Exit(Main(Options{Version: "test"})) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			e := gatewaytest.New(t)
			s := gatewaytest.Serve(t, e)
			env.Setenv("ATOLL_URL", s.URL())
			env.Setenv("ATOLL_API_KEY", gatewaytest.AdminKey)
			env.Setenv("ATOLL_HOME", env.WorkDir+"/home")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
	})
}
