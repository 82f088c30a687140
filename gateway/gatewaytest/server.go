package gatewaytest

import (
	"context"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/client"
)

// Serve opens a gateway on a free port for the engine. The options change its
// configuration. It is closed with the test.
func Serve(tb testing.TB, e *Engine, options ...func(*gateway.Config)) *gateway.Server {
	tb.Helper()
	c := gateway.Config{
		Listen: "127.0.0.1:0", Sandboxes: e, Snapshots: e.Snapshots(), Toolboxes: e, Events: e, Keys: e, Inspector: e, Accounts: e.Accounts(), Previews: e,
		Version: "test", Census: e.CountSandboxes,
	}
	for _, o := range options {
		o(&c)
	}
	s, err := gateway.Open(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			tb.Errorf("close the gateway: %v", err)
		}
	})
	return s
}

// Client returns a client of the server with the administrator's key.
func Client(tb testing.TB, s *gateway.Server) *client.Client {
	tb.Helper()
	c, err := client.New(s.URL(), AdminKey, client.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Ref names a sandbox of the default organization.
func Ref(idOrName string) engine.SandboxRef {
	return engine.SandboxRef{OrganizationID: engine.DefaultOrganization, IDOrName: idOrName}
}
