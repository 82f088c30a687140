package cli

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/atoll-sh/atoll/engine/toolbox"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// The same command line against the real toolbox, which runs its commands on
// this machine in a directory of the test.
func TestScriptsWithRealToolbox(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/real",
		Setup: func(env *testscript.Env) error {
			h, err := realToolbox(t)
			if err != nil {
				return err
			}
			env.Setenv("ATOLL_URL", gatewaytest.Serve(t, gatewaytest.NewWith(t, h)).URL())
			env.Setenv("ATOLL_API_KEY", gatewaytest.AdminKey)
			return nil
		},
	})
}

func realToolbox(t *testing.T) (http.Handler, error) {
	tb, err := toolbox.New(toolbox.Config{
		Version: "test", WorkDir: t.TempDir(), StateDir: t.TempDir(), EtcDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Env: map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin"},
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { tb.Close(0) })
	return tb.Handler(), nil
}
