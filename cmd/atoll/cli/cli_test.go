package cli

import (
	"fmt"
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
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
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
