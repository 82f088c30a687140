package acceptance

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

// registryModules are the registry of MCP servers, unmodified. The version of
// its HTTP library that it asks for cannot be had from the module proxy.
const registryModules = `go 1.26.0

require github.com/modelcontextprotocol/registry v1.8.9

replace github.com/danielgtaylor/huma/v2 => github.com/danielgtaylor/huma/v2 v2.37.2
`

// startRegistry runs the registry on this machine, with an empty database, and
// returns what its publishing tool asks before it publishes: whether a
// server.json is valid, and the findings.
func startRegistry(t *testing.T) func(server any) (valid bool, verdict []byte) {
	t.Helper()
	programs := published.Go(t, registryModules, "github.com/modelcontextprotocol/registry/cmd/registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "registry"))
	cmd.Env = append(os.Environ(),
		"MCP_REGISTRY_SERVER_ADDRESS="+addr, "MCP_REGISTRY_DATABASE_URL="+enginetest.StartPostgres(t).Database(t),
		"MCP_REGISTRY_DATABASE_MIN_CONNECTIONS=1", "MCP_REGISTRY_DATABASE_MAX_CONNECTIONS=4",
		"MCP_REGISTRY_JWT_PRIVATE_KEY=0000000000000000000000000000000000000000000000000000000000000000",
	)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { <-ended }) // after the context, which kills it
	post := func(body []byte) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/v0/validate", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		return http.DefaultClient.Do(req)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if res, err := post([]byte("{}")); err == nil {
			res.Body.Close()
			break
		} else if time.Now().After(end) {
			t.Fatalf("the registry does not start: %v", err)
		}
		select {
		case <-ended:
			t.Fatal("the registry ended")
		default:
		}
	}
	return func(server any) (bool, []byte) {
		t.Helper()
		body, err := json.Marshal(server)
		if err != nil {
			t.Fatal(err)
		}
		res, err := post(body)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		verdict, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		var said struct{ Valid bool }
		if err := json.Unmarshal(verdict, &said); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v\n%s", res.Status, err, verdict)
		}
		return said.Valid, verdict
	}
}
